"""What a run records in its folder: evaluations written, all of it read."""

import contextlib
import csv
import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import cityscapes, files

_Path = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The evaluation of a checkpoint.

  Attributes:
    made: how it was made: `step`, `protocol` and `list`.
    summary: the figures by name.
    images: a dict per image: `index`, `example` (its line of the list), the
      seven errors, `ratio` and, with labels, the columns of `borders.measure`.
    confusion: `[19, 19]` int64, pixels by true (rows) and predicted class; None
      without labels or semantics.
  """

  made: Mapping[str, Any]
  summary: Mapping[str, float]
  images: Sequence[Mapping[str, Any]]
  confusion: np.ndarray | None = None


def write_evaluation(workdir: _Path, evaluation: Evaluation) -> None:
  """Writes `metrics.json`, `per_image.csv` and, with classes, `confusion.csv`.

  They go to the workdir's folder `evaluation`.
  """
  folder = pathlib.Path(workdir, 'evaluation')
  rows = evaluation.images
  _write_table(
    folder / 'per_image.csv', list(rows[0]), (row.values() for row in rows)
  )
  matrix = folder / 'confusion.csv'
  if evaluation.confusion is None:
    matrix.unlink(missing_ok=True)  # Of an evaluation with classes.
  else:
    counts = zip(cityscapes.NAMES, evaluation.confusion.tolist(), strict=True)
    rows = ([name, *row] for name, row in counts)
    _write_table(matrix, ['true', *cityscapes.NAMES], rows)
  # Last, so that an evaluation that has it has all of its files.
  figures = {**evaluation.made, **evaluation.summary}
  files.write_json(folder / 'metrics.json', figures)
  logging.info('wrote %s', folder)


def read_evaluation(workdir: _Path) -> Evaluation | None:
  """Reads what `write_evaluation` wrote; None if there is nothing."""
  folder = pathlib.Path(workdir, 'evaluation')
  if not (folder / 'metrics.json').is_file():
    return None
  summary = json.loads((folder / 'metrics.json').read_text())
  made = {name: summary.pop(name) for name in ('step', 'protocol', 'list')}
  images = [
    {
      name: value if name == 'example' else float(value)
      for name, value in row.items()
    }
    | {'index': int(row['index'])}
    for row in _read_table(folder / 'per_image.csv')
  ]
  confusion = None
  if (folder / 'confusion.csv').is_file():
    rows = _read_table(folder / 'confusion.csv')
    counts = [[int(row[name]) for name in cityscapes.NAMES] for row in rows]
    confusion = np.array(counts)
  return Evaluation(made, summary, images, confusion)


def read_entries(workdir: _Path) -> list[dict]:
  """Reads a run's `metrics.jsonl`: a dict per line, `step` and figures by name.

  Empty without the file. Skips lines that are not an entry, such as the last
  one of a killed run.
  """
  return _read_lines(pathlib.Path(workdir) / 'metrics.jsonl')


def read_starts(workdir: _Path) -> list[dict]:
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


def _write_table(path, names, rows):
  with files.whole_file(path) as partial, open(partial, 'w') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(names)
    writer.writerows(rows)


def _read_table(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))
