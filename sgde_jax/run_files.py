"""What a run has recorded in its folder, read back."""

import contextlib
import json
import pathlib
from collections.abc import Iterable, Mapping


def read_entries(workdir: str | pathlib.Path) -> list[dict]:
  """Reads a run's `metrics.jsonl`: a dict per line, `step` and figures by name.

  Empty without the file. Skips lines that are not an entry, such as the last
  one of a killed run.
  """
  return _read_lines(pathlib.Path(workdir) / 'metrics.jsonl')


def read_starts(workdir: str | pathlib.Path) -> list[dict]:
  """Reads a run's `configs.jsonl`: `step`, `version` and `commit` per start."""
  return _read_lines(pathlib.Path(workdir) / 'configs.jsonl')


def find_evaluations(entries: Iterable[Mapping]) -> dict[int, dict]:
  """Returns step -> summary of the evaluations among a run's entries."""
  return {
    entry['step']: {
      name.removeprefix('eval/'): value
      for name, value in entry.items()
      if name.startswith('eval/')
    }
    for entry in entries
    if 'eval/abs_rel' in entry
  }


def _read_lines(path):
  lines = []
  if path.is_file():
    for line in path.read_text(errors='replace').splitlines():
      with contextlib.suppress(json.JSONDecodeError):
        lines.append(json.loads(line))
  return [e for e in lines if isinstance(e, dict) and 'step' in e]
