"""Times the training step and prediction; prints one table.

  python -m benchmarks.train_step --sizes=640x192 --batches=4
  python -m benchmarks.train_step --sizes=640x192 --batches=12,48 \
    --dtypes=float32,bfloat16                       # on an accelerator
  python -m benchmarks.train_step --torch           # PyTorch's baseline, too
  python -m benchmarks.train_step --parts=baseline,semantics,attention,seem,full

Every row runs in its own process on random frames, a batch split over all
devices as in training. `ms/step` is the median over the steps, and over the
rounds so far: each of the --rounds measures all parts in turn, for machines
whose speed varies. `x first` is ms/step over that of the first part, `peak GiB`
the memory of the device if it reports that, else of the process.

The number of points that SEEM refines depends on the prediction: fresh weights
see edges everywhere, so with --workdir the prediction of `full` uses that run's
weights and evaluation frames.
"""

import itertools
import resource
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from absl import app, flags

from benchmarks import measuring
from sgde_jax.configs import ablation

FLAGS = flags.FLAGS

COLUMNS = (
  'work|part|size|batch|dtype|device|ms/step:.1f|x first:.2f|images/s:.2f'
  '|compile s:.1f|peak GiB:.2f'
)


class Times(NamedTuple):
  """The measurements of one process."""

  ms: float
  compile_seconds: float
  peak_bytes: int
  device: str


def measure(case: measuring.Case, count: int) -> Times:
  """Times `count` steps in this process."""
  if case.part == 'PyTorch':
    from benchmarks import torch_baseline as backend
  else:
    from benchmarks import jax_step as backend
  run, compile_seconds = backend.make_step(case)
  ms = measuring.median_ms(run, count)
  device, peak = backend.describe_device()
  process_peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return Times(ms, compile_seconds, peak or process_peak, device)


def summarize(
  case: measuring.Case, rounds: Sequence[Times], first_rounds: Sequence[Times]
) -> tuple:
  """Returns a row: medians over a case's rounds and over the first part's."""
  *numbers, devices = zip(*rounds, strict=True)
  ms, compile_seconds, peak = map(statistics.median, numbers)
  first = statistics.median(times.ms for times in first_rounds)
  size = f'{case.width}x{case.height}'
  rates = ms, ms / first, 1e3 * case.batch / ms, compile_seconds, peak / 2**30
  return case.work, case.part, size, case.batch, case.dtype, devices[0], *rates


def define_flags() -> None:
  flags.DEFINE_list('sizes', ['640x192'], 'Image sizes, WIDTHxHEIGHT.')
  flags.DEFINE_list('batches', ['4'], 'Batch sizes.')
  flags.DEFINE_list('dtypes', ['float32'], 'float32, bfloat16.')
  flags.DEFINE_list('works', ['train', 'predict'], 'train, predict.')
  flags.DEFINE_list('parts', ['baseline'], 'Parts of configs/ablation.py.')
  flags.DEFINE_integer('steps', 10, 'Timed steps after the first.', 1)
  flags.DEFINE_integer('rounds', 1, 'Times that every row is measured.', 1)
  flags.DEFINE_string('workdir', '', 'A trained run of the full method.')
  flags.DEFINE_bool('torch', False, 'Also time the PyTorch baseline.')
  # Any other value would be timed as if it were one of these.
  flags.register_validator('works', {'train', 'predict'}.issuperset)
  flags.register_validator('dtypes', {'float32', 'bfloat16'}.issuperset)
  flags.register_validator('parts', set(ablation.PARTS).issuperset)


def main(_) -> None:
  table = measuring.Table(COLUMNS, width=9)
  parts = FLAGS.parts + ['PyTorch'] * FLAGS.torch
  sizes, batches = (
    map(measuring.parse_size, FLAGS.sizes),
    map(int, FLAGS.batches),
  )
  combinations = itertools.product(FLAGS.works, sizes, batches, FLAGS.dtypes)
  for work, size, batch, dtype in combinations:
    rounds = {part: [] for part in parts}
    for _, part in itertools.product(range(FLAGS.rounds), parts):
      workdir = FLAGS.workdir if part == 'full' else ''
      case = measuring.Case(work, part, *size, batch, dtype, workdir)
      rounds[part].append(measuring.run_alone(measure, case, FLAGS.steps))
      table.add(*summarize(case, rounds[part], rounds[parts[0]]))


if __name__ == '__main__':
  define_flags()
  app.run(main)
