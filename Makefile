# Every target installs what it needs into .venv on first use.
PYTHON ?= python3
CHECK := import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 13) \
  else "Python 3.11 or 3.12 is needed: name one, as in  make PYTHON=python3.12 demo")
BIN := .venv/bin
STAMP := .venv/.installed
# Huge pages for what glibc's malloc maps: fewer page faults in every step.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo test lint

demo: $(STAMP)
	$(BIN)/python main.py --config=configs/demo.py --workdir=runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .

$(STAMP): requirements.txt
	test -x $(BIN)/pip || { $(PYTHON) -c '$(CHECK)' && \
	  $(PYTHON) -m venv --clear .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt
	touch $(STAMP)
