"""Compares two runs image by image: paired bootstrap of their evaluations.

  python -m analysis.compare --first=W1 --second=W2

Reads `evaluation/per_image.csv` of both workdirs, written by `--mode=evaluate`
for the same images. The table has a row per figure (rmse in metres, the others
without a unit) with both runs' values, the difference second - first, its 95 %
interval over resampled images, and the share of resamples in which the second
is smaller. This covers the variation between images; for the variation between
seeds, train several (analysis/ablation.py).
"""

import itertools
import operator
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
from absl import app, flags

from analysis import tables
from sgde_jax import run_files

FLAGS = flags.FLAGS

Columns = Mapping[str, np.ndarray]  # Name -> `[N]` float64.

_USUAL = (
  'abs_rel,rmse,a1,abs_rel/border_1,abs_rel/border_3,abs_rel/away,abs_rel/thin,'
  'boundary_f1,boundary_recall/thin'
)


def read_images(
  workdir: str | pathlib.Path,
) -> tuple[str, list[str], Columns]:
  """Returns an evaluation's protocol, its examples' lines and its columns."""
  evaluation = run_files.read_evaluation(workdir)
  if evaluation is None:
    raise FileNotFoundError(
      f'no evaluation in {workdir}: run main.py --mode=evaluate'
    )
  rows = sorted(evaluation.images, key=operator.itemgetter('index'))
  columns = {
    name: np.array([row[name] for row in rows], np.float64)
    for name in rows[0].keys() - {'example'}
  }
  examples = [row['example'] for row in rows]
  return evaluation.made['protocol'], examples, columns


def check_same(what: str, first: Iterable, second: Iterable) -> None:
  """Raises ValueError at the first difference between two evaluations."""
  for one, other in itertools.zip_longest(first, second):
    if one != other:
      raise ValueError(
        f'the runs were evaluated with different {what}, {one} and {other}:'
        ' evaluate both in the same way'
      )


def resample(columns: Columns, name: str, draws: np.ndarray) -> np.ndarray:
  """Returns a figure `[R]` over image numbers `[R, N]`, NaN without a count.

  `name` is a column to average, or that of a (sum, count) pair to pool.
  """
  if name in columns:
    return columns[name][draws].mean(axis=1)
  total = columns[f'{name}:sum'][draws].sum(axis=1)
  count = columns[f'{name}:count'][draws].sum(axis=1)
  nothing = np.full(len(total), np.nan)
  return np.divide(total, count, out=nothing, where=count > 0)


def compare(
  first: Columns, second: Columns, name: str, *, resamples: int, seed: int
) -> tuple[float, float, float, float, float]:
  """Compares a figure, see `resample`, of two runs on the same images.

  Returns both figures, the ends of the 95 % interval of second - first, and the
  share of resamples in which the second is smaller.
  """
  images = len(first['index'])
  draws = np.random.default_rng(seed).integers(0, images, (resamples, images))
  whole = np.arange(images)[None]
  figures = [resample(run, name, whole)[0] for run in (first, second)]
  change = resample(second, name, draws) - resample(first, name, draws)
  change = change[np.isfinite(change)]
  if not len(change):
    return (*figures, np.nan, np.nan, np.nan)
  low, high = np.percentile(change, (2.5, 97.5))
  return (*figures, low, high, float(np.mean(change < 0)))


def define_flags() -> None:
  flags.DEFINE_string('first', None, 'Workdir.', required=True)
  flags.DEFINE_string('second', None, 'Workdir.', required=True)
  flags.DEFINE_integer('resamples', 10000, 'Bootstrap resamples.')
  flags.DEFINE_integer('seed', 0, 'Of the resampling.')
  text = 'Columns; NAME pools NAME:sum and NAME:count. Default: the usual.'
  flags.DEFINE_list('figures', None, text)


def main(_) -> None:
  protocol, examples, first = read_images(FLAGS.first)
  other_protocol, others, second = read_images(FLAGS.second)
  check_same('protocols', [protocol], [other_protocol])
  check_same('images', examples, others)
  shared = first.keys() & second.keys()
  usual = [n for n in _USUAL.split(',') if shared & {n, f'{n}:sum'}]
  rows = []
  for name in FLAGS.figures or usual:
    one, other, low, high, share = compare(
      first, second, name, resamples=FLAGS.resamples, seed=FLAGS.seed
    )
    numbers = f'{one:.4f}', f'{other:.4f}', f'{other - one:+.4f}'
    interval = f'{low:+.4f} to {high:+.4f}'
    rows.append([name, *numbers, interval, f'{100 * share:.0f} %'])
  header = 'figure | first | second | difference | 95 % | second smaller'
  print(tables.markdown(header, rows))


if __name__ == '__main__':
  define_flags()
  app.run(main)
