"""Compares two runs image by image: paired bootstrap of their evaluations.

  python -m analysis.compare --first=W1 --second=W2

Reads `evaluation/per_image.csv` of both workdirs (`--mode=evaluate` writes
it), which must hold the same images. Prints each figure of both, their
difference second - first, its 95 % interval over resampled images, and the
share of resamples in which the second is smaller. Images are what varies here;
for what seeds vary, train several (benchmarks/ablation.py).
"""

import csv
import itertools
import json
import pathlib

import numpy as np
from absl import flags

from benchmarks import command_line

FLAGS = flags.FLAGS


def read_images(workdir):
  """Reads a workdir's CSV.

  Args:
    workdir: folder of a run.

  Returns:
    The N examples' lines and name -> `[N]` float64, both ordered by index.

  Raises:
    FileNotFoundError: the workdir was not evaluated.
    ValueError: the file does not name its examples.
  """
  path = pathlib.Path(workdir) / 'evaluation' / 'per_image.csv'
  if not path.is_file():
    raise FileNotFoundError(
      f'there is no {path}: run main.py --mode=evaluate --workdir={workdir}'
    )
  with open(path, newline='') as file:
    rows = sorted(csv.DictReader(file), key=lambda row: int(row['index']))
  if 'example' not in rows[0]:
    raise ValueError(
      f'{path} does not name its examples: run main.py --mode=evaluate'
      f' --workdir={workdir} anew'
    )
  examples = [row.pop('example') for row in rows]
  return examples, {
    name: np.array([float(row[name]) for row in rows]) for name in rows[0]
  }


def check_protocols(first, second):
  """Refuses two evaluations that were not made alike.

  Args:
    first: a workdir.
    second: the other.

  Raises:
    ValueError: their protocols differ.
  """
  protocols = [
    json.loads(path.read_text())['protocol']
    for path in (
      pathlib.Path(workdir) / 'evaluation' / 'metrics.json'
      for workdir in (first, second)
    )
  ]
  if protocols[0] != protocols[1]:
    raise ValueError(
      f'{first} was evaluated with {protocols[0]}, {second} with'
      f' {protocols[1]}: evaluate one of them anew'
    )


def check_examples(first, second):
  """Refuses evaluations of different images.

  Args:
    first: lines of the examples of one run.
    second: of the other.

  Raises:
    ValueError: an example differs; the message names the first that does.
  """
  pairs = itertools.zip_longest(first, second)
  for index, (one, other) in enumerate(pairs):
    if one != other:
      raise ValueError(
        'the two runs were evaluated on different images, beginning with'
        f' index {index}: {one} and {other}; evaluate both with the same'
        ' --config.data.eval_split'
      )


def resample(columns, name, draws):
  """The figure over each resample of the images.

  Args:
    columns: see `read_images`.
    name: a column, whose mean it is, or the name of a (sum, count) pair.
    draws: `[R, N]` image numbers.

  Returns:
    `[R]` float64; NaN where a resample holds nothing to count.
  """
  if name in columns:
    return columns[name][draws].mean(axis=1)
  total, count = (
    columns[f'{name}:{part}'][draws].sum(axis=1) for part in ('sum', 'count')
  )
  return np.divide(
    total, count, out=np.full(len(total), np.nan), where=count > 0
  )


def compare(first, second, name, *, resamples, seed):
  """Compares one figure of two runs.

  Args:
    first: columns of one run.
    second: columns of the other, of the same images.
    name: see `resample`.
    resamples: how many.
    seed: of the resampling.

  Returns:
    Both figures, the ends of the 95 % interval of second - first, and the
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


def define_flags():
  """Defines what the command line takes."""
  flags.DEFINE_string('first', None, 'Workdir.', required=True)
  flags.DEFINE_string('second', None, 'Workdir.', required=True)
  flags.DEFINE_integer('resamples', 10000, 'Bootstrap resamples.')
  flags.DEFINE_integer('seed', 0, 'Of the resampling.')
  flags.DEFINE_list(
    'figures',
    [
      'abs_rel',
      'rmse',
      'a1',
      'abs_rel/border_1',
      'abs_rel/border_3',
      'abs_rel/away',
      'abs_rel/thin',
      'boundary_f1',
      'boundary_recall/thin',
    ],
    'Columns; NAME:sum and NAME:count are pooled over the images.',
  )


def main(_):
  """Prints the table."""
  (examples, first), (others, second) = (
    read_images(path) for path in (FLAGS.first, FLAGS.second)
  )
  check_protocols(FLAGS.first, FLAGS.second)
  check_examples(examples, others)
  names = [
    name
    for name in FLAGS.figures
    if all({name, f'{name}:sum'} & run.keys() for run in (first, second))
  ]
  absent = [name for name in FLAGS.figures if name not in names]
  if FLAGS['figures'].present and absent:
    raise ValueError(
      f'--figures: not both runs have {", ".join(absent)}; choose from'
      f' {", ".join(name for name in first if name in second)}'
    )
  print('| figure | first | second | difference | 95 % | second smaller |')
  print('|---|---|---|---|---|---|')
  for name in names:
    one, other, low, high, share = compare(
      first, second, name, resamples=FLAGS.resamples, seed=FLAGS.seed
    )
    print(
      f'| {name} | {one:.4f} | {other:.4f} | {other - one:+.4f} |'
      f' {low:+.4f} to {high:+.4f} | {100 * share:.0f} % |'
    )


if __name__ == '__main__':
  command_line.run(main, define_flags)
