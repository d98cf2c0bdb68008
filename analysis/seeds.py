"""Tabulates one evaluation figure over the seeds of an experiment.

  python -m analysis.seeds --workdirs=W0,W1,W2 --steps=0,250,500,1000

Reads each workdir's `metrics.jsonl` and prints a Markdown table: a row per
step, the value of every run, their mean and sample deviation.
"""

import numpy as np
from absl import flags

from benchmarks import command_line
from sgde_jax.training import log

FLAGS = flags.FLAGS


def format_rows(runs, steps, metric):
  """Returns the table's rows for one metric."""
  if any(metric not in run[step] for run in runs for step in steps):
    raise ValueError(
      f'--metrics={metric}: not every run has it; the first has'
      f' {", ".join(runs[0][steps[0]])}'
    )
  rows = []
  for step in steps:
    values = np.array([run[step][metric] for run in runs])
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    listed = ' '.join(f'{value:.4f}' for value in values)
    rows.append(
      f'| {metric} | {step} | {listed} | {values.mean():.4f} +-'
      f' {deviation:.4f} |'
    )
  return rows


def define_flags():
  """Defines what the command line takes."""
  flags.DEFINE_list('workdirs', None, 'Folders of runs.', required=True)
  flags.DEFINE_list('steps', None, 'Steps; default: all that every run has.')
  flags.DEFINE_list('metrics', ['abs_rel', 'rmse', 'a1'], 'Figures.')
  flags.register_validator('workdirs', bool, 'name at least one folder')


def main(_):
  """Prints the table."""
  runs = [
    log.find_evaluations(log.read_entries(workdir))
    for workdir in FLAGS.workdirs
  ]
  shared = sorted(set.intersection(*(set(run) for run in runs)))
  steps = [int(step) for step in FLAGS.steps] if FLAGS.steps else shared
  if not shared:
    raise ValueError('there is no step at which every run was evaluated')
  absent = sorted(set(steps) - set(shared))
  if absent:
    raise ValueError(f'not every run was evaluated at steps {absent}')
  print('| | step | runs | mean +- deviation |\n|---|---|---|---|')
  for metric in FLAGS.metrics:
    print('\n'.join(format_rows(runs, steps, metric)))


if __name__ == '__main__':
  command_line.run(main, define_flags)
