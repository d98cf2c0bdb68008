"""Tabulates evaluation figures over the seeds of an experiment.

  python -m analysis.seeds --workdirs=W0,W1,W2 --steps=0,250,500,1000

Reads each workdir's `metrics.jsonl` and prints a Markdown table: a row per
figure and step with the value of every run, their mean and sample deviation.
Units are those of the figures: rmse in metres, abs_rel and a1 without one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from absl import app, flags

from analysis import tables
from sgde_jax import run_files

FLAGS = flags.FLAGS


def format_row(
  runs: Sequence[Mapping[int, Mapping[str, float]]], metric: str, step: int
) -> list[str]:
  """Returns the cells of a row from each run's step -> metric -> value."""
  values = np.array([run[step][metric] for run in runs])
  deviation = values.std(ddof=1) if len(values) > 1 else 0.0
  listed = ' '.join(f'{value:.4f}' for value in values)
  return [metric, str(step), listed, f'{values.mean():.4f} +- {deviation:.4f}']


def define_flags() -> None:
  flags.DEFINE_list('workdirs', None, 'Folders of runs.', required=True)
  flags.DEFINE_list('steps', None, 'Steps; default: all that every run has.')
  flags.DEFINE_list('metrics', ['abs_rel', 'rmse', 'a1'], 'Figures.')


def main(_) -> None:
  entries = map(run_files.read_entries, FLAGS.workdirs)
  runs = list(map(run_files.find_evaluations, entries))
  shared = sorted(set.intersection(*map(set, runs)))
  steps = [int(step) for step in FLAGS.steps or shared]
  rows = [format_row(runs, m, step) for m in FLAGS.metrics for step in steps]
  print(tables.markdown(' | step | runs | mean +- deviation', rows))


if __name__ == '__main__':
  define_flags()
  app.run(main)
