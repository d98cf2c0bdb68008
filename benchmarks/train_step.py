"""Times the training step and prediction; prints one table.

  python -m benchmarks.train_step --sizes=640x192 --batches=4
  python -m benchmarks.train_step --sizes=640x192 --batches=12,48 \
    --dtypes=float32,bfloat16                       # on an accelerator
  python -m benchmarks.train_step --torch           # PyTorch's baseline, too
  python -m benchmarks.train_step --parts=baseline,semantics,attention,seem,full

Frames are random, since the work does not depend on them; a batch is split over
all devices as in training; every row runs in its own process. Columns:

  ms/step    median over the steps, and over the rounds so far
  x first    ms/step over that of the first part: what a part costs
  compile s  seconds to compile
  peak GiB   of the device's memory if it counts that, else of the process

Each of the --rounds measures all parts in turn, for machines whose speed
varies. How many points SEEM refines depends on the prediction: fresh weights
see edges everywhere, so with --workdir the prediction of `full` uses that run's
weights and frames of its evaluation.
"""

import functools
import itertools
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from absl import app, flags

from benchmarks import measuring
from sgde_jax.configs import ablation

FLAGS = flags.FLAGS


_COLUMNS = (
  'work|part|size|batch|dtype|device|ms/step:.1f|x first:.2f|images/s:.2f'
  '|compile s:.1f|peak GiB:.2f'
)


class Case(NamedTuple):
  """What a row measures."""

  work: str  # train or predict
  part: str  # of configs/ablation.py, or PyTorch
  width: int
  height: int
  batch: int
  dtype: str  # of the networks' computation


class Times(NamedTuple):
  """What one process measured."""

  ms: float
  compile_seconds: float
  peak_bytes: int
  device: str


def time_jax(case: Case, count: int, workdir: str) -> Times:
  """Compiles and times `count` steps, of a trained run if one is given."""
  import jax

  from sgde_jax import parallel

  config = ablation.get_config(case.part)
  config.data.width, config.data.height = case.width, case.height
  config.model.dtype = case.dtype
  mesh = parallel.create_mesh()
  start, run = _compile(config, case, workdir, mesh)
  compile_seconds = time.perf_counter() - start
  ms = measuring.median_ms(lambda: jax.block_until_ready(run()), count)
  device = jax.devices()[0]
  peak = (device.memory_stats() or {}).get('peak_bytes_in_use')
  return Times(
    ms,
    compile_seconds,
    peak or measuring.peak_bytes(),
    f'{mesh.size} {device.device_kind}',
  )


def _compile(config, case, workdir, mesh):
  """Returns when compiling started, and a function that makes one step."""
  import jax

  from sgde_jax import parallel
  from sgde_jax.training import steps
  from sgde_jax.weights import initial

  model = initial.create_model(config)
  optimizer = initial.create_optimizer(config.optimizer, steps_per_epoch=1000)
  state = initial.create_train_state(
    jax.random.key(0),
    model=model,
    optimizer=optimizer,
    image_size=(config.data.height, config.data.width),
    config=config.model,
  )
  state = parallel.replicate(state, mesh)
  batch = measuring.random_batch(
    case.batch, len(model.frame_offsets), case.width, case.height
  )
  batch = parallel.to_devices(batch, mesh)
  if case.work == 'predict':
    inputs = state.variables, batch['frames'][:, 0]
    if workdir:
      inputs = _trained_inputs(config, workdir, case.batch, mesh)
    start = time.perf_counter()
    predict = functools.partial(steps.predict_step, model=model)
    predict = parallel.jit(predict).lower(*inputs).compile()
    return start, functools.partial(predict, *inputs)

  start = time.perf_counter()
  step, *_ = initial.compile_steps(
    config, model, optimizer, mesh, state, itertools.repeat(batch)
  )

  def train():
    nonlocal state  # The step takes over the state that it is given.
    state, scalars = step(state, batch)
    return state, scalars

  return start, train


def _trained_inputs(config, workdir, batch_size, mesh):
  """Returns a run's weights in a config's network, and evaluation frames."""
  import input_pipeline
  from sgde_jax import configuration, parallel
  from sgde_jax.configs import default
  from sgde_jax.weights import initial

  _, state = initial.load_trained(config, workdir, mesh)
  data_config = configuration.resolve(default.get_config(), workdir, {}).data
  data_config.height, data_config.width = config.data.height, config.data.width
  data = input_pipeline.open_data(data_config, train=False)
  batches = data.eval_batches(batch_size=batch_size)
  frames = next(iter(batches))['frames'][:, 0]
  return state.variables, parallel.to_devices(frames, mesh)


def time_torch(case: Case, count: int, workdir: str) -> Times:
  """Times the PyTorch baseline, always with fresh weights."""
  from benchmarks import torch_baseline

  del workdir
  ms = measuring.median_ms(torch_baseline.make_step(*case), count)
  device, peak = torch_baseline.describe_device()
  return Times(ms, 0.0, peak or measuring.peak_bytes(), f'1 {device}')


def summarize(
  case: Case, rounds: Sequence[Times], first_rounds: Sequence[Times]
) -> tuple:
  """Returns a row: medians over a case's rounds and over the first part's."""
  *numbers, devices = zip(*rounds, strict=True)
  ms, compile_seconds, peak = map(statistics.median, numbers)
  first = statistics.median(times.ms for times in first_rounds)
  size = f'{case.width}x{case.height}'
  rates = ms, ms / first, 1e3 * case.batch / ms, compile_seconds, peak / 2**30
  return case.work, case.part, size, case.batch, case.dtype, devices[0], *rates


def define_flags() -> None:
  """Defines the command-line flags."""
  flags.DEFINE_list('sizes', ['640x192'], 'Image sizes, WIDTHxHEIGHT.')
  flags.DEFINE_list('batches', ['4'], 'Batch sizes.')
  flags.DEFINE_list('dtypes', ['float32'], 'float32, bfloat16.')
  flags.DEFINE_list('works', ['train', 'predict'], 'train, predict.')
  flags.DEFINE_list('parts', ['baseline'], 'Parts of configs/ablation.py.')
  flags.DEFINE_integer('steps', 10, 'Timed steps after the first.', 1)
  flags.DEFINE_integer('rounds', 1, 'Times that every row is measured.', 1)
  flags.DEFINE_string('workdir', '', 'A trained run of the full method.')
  flags.DEFINE_bool('torch', False, 'Also time the PyTorch baseline.')
  # Another work or dtype would be timed as if it were one of these.
  for flag, choices in (
    ('works', {'train', 'predict'}),
    ('dtypes', {'float32', 'bfloat16'}),
  ):
    flags.register_validator(flag, choices.issuperset, f'use {choices}')


def main(_) -> None:
  """Measures every combination and prints the table."""
  table = measuring.Table(_COLUMNS, width=9)
  workers = dict.fromkeys(FLAGS.parts, time_jax)
  if FLAGS.torch:
    workers['PyTorch'] = time_torch
  for work, size, batch, dtype in itertools.product(
    FLAGS.works,
    map(measuring.parse_size, FLAGS.sizes),
    map(int, FLAGS.batches),
    FLAGS.dtypes,
  ):
    measured = {part: [] for part in workers}
    for _, (part, worker) in itertools.product(
      range(FLAGS.rounds), workers.items()
    ):
      case = Case(work, part, *size, batch, dtype)
      workdir = FLAGS.workdir if work == 'predict' and part == 'full' else ''
      times = measuring.run_alone(worker, case, FLAGS.steps, workdir)
      measured[part].append(times)
      first = next(iter(measured.values()))
      table.add(*summarize(case, measured[part], first))


if __name__ == '__main__':
  define_flags()
  app.run(main)
