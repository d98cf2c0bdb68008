# Every target installs what it needs into .venv on first use.
PYTHON ?= python3
CHECK := import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) \
  else "Python 3.11 to 3.13 is needed, for example: make PYTHON=python3.12 demo")
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile \
  --no-loadscope-reorder
# Huge pages for what glibc's malloc maps: fewer page faults in every step.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo lint quick test

demo: $(STAMP)
	$(BIN)/python main.py --config=demo --workdir=runs/demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

quick: $(STAMP)
	$(PYTEST) -m "not slow"

test: $(STAMP)
	$(PYTEST)

$(STAMP): requirements.txt pyproject.toml
	test -x $(BIN)/pip || { $(PYTHON) -c '$(CHECK)' && \
	  $(PYTHON) -m venv --clear .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt
	touch $(STAMP)
