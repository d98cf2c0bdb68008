"""Times the training step and prediction; prints one table.

  python -m benchmarks.train_step --sizes=640x192 --batches=4
  python -m benchmarks.train_step --sizes=640x192 --batches=12,48 \
    --dtypes=float32,bfloat16                       # on an accelerator
  python -m benchmarks.train_step --torch           # beside PyTorch
  python -m benchmarks.train_step --parts=baseline,semantics,attention,seem,full

`x first` is the time of a step over that of the first part at the same work,
size, batch and dtype: what the parts cost. Frames are random; the work does not
depend on them. Every row runs in a process of its own, so that its peak memory
is its own: the device's where it keeps count, the process' otherwise.
Milliseconds are medians over the steps, and over --rounds, in each of which all
parts are measured in turn, for machines whose pace changes; a round prints the
medians so far. How many points SEEM refines depends on what is predicted: with
--workdir, the prediction of `full` takes the weights of that run and frames of
its evaluation; fresh weights see edges everywhere. A batch is split over all
devices of the process, as in training.
"""

import functools
import itertools
import resource
import statistics
import time

import numpy as np
from absl import flags

from benchmarks import command_line, processes
from sgde_jax.configs import ablation

FLAGS = flags.FLAGS

_HEADER = (
  'work',
  'part',
  'size',
  'batch',
  'dtype',
  'device',
  'ms/step',
  'x first',
  'images/s',
  'compile s',
  'peak GiB',
)


def time_jax(work, part, size, batch_size, dtype, count, workdir):
  """Compiles and times one kind of step; returns a row of the table."""
  import jax

  from sgde_jax import parallel
  from sgde_jax.weights import initial

  width, height = size
  config = _make_config(part, height, width, dtype)
  mesh = parallel.create_mesh()
  model = initial.create_model(config)
  optimizer = initial.create_optimizer(config.optimizer, steps_per_epoch=1000)
  state = initial.create_train_state(
    jax.random.key(0),
    model=model,
    optimizer=optimizer,
    image_size=(height, width),
    config=config.model,
  )
  state = parallel.replicate(state, mesh)
  batch = parallel.to_devices(
    _random_batch(batch_size, len(model.frame_offsets), height, width), mesh
  )
  variables, frames = state.variables, batch['frames'][:, 0]
  if workdir:
    variables, frames = _trained_arguments(config, workdir, frames.shape, mesh)
  start = time.perf_counter()
  if work == 'train':
    run = _compile_training(config, model, optimizer, mesh, state, batch)
  else:
    run = _compile_prediction(model, variables, frames)
  compile_seconds = time.perf_counter() - start
  milliseconds = _median_ms(run, count)
  device = jax.devices()[0]
  used = (device.memory_stats() or {}).get('peak_bytes_in_use')
  return (
    milliseconds,
    compile_seconds,
    used or _peak_bytes(),
    f'{mesh.size} {device.device_kind}',
  )


def time_torch(work, _, size, batch_size, dtype, count, workdir):
  """Times the PyTorch baseline; returns as `time_jax`."""
  from benchmarks import torch_baseline

  del workdir  # Always fresh weights.
  run = torch_baseline.make_step(work, *size, batch_size, dtype)
  milliseconds = _median_ms(run, count)
  device, used = torch_baseline.describe_device()
  return milliseconds, 0.0, used or _peak_bytes(), f'1 {device}'


def define_flags():
  """Defines what the command line takes."""
  flags.DEFINE_list('sizes', ['640x192'], 'Image sizes, WIDTHxHEIGHT.')
  flags.DEFINE_list('batches', ['4'], 'Batch sizes.')
  flags.DEFINE_list('dtypes', ['float32'], 'float32, bfloat16.')
  flags.DEFINE_list('works', ['train', 'predict'], 'train, predict.')
  flags.DEFINE_list('parts', ['baseline'], 'Parts of configs/ablation.py.')
  flags.DEFINE_integer(
    'steps', 10, 'Timed steps after the first.', lower_bound=1
  )
  flags.DEFINE_integer(
    'rounds', 1, 'Times that every row is measured.', lower_bound=1
  )
  flags.DEFINE_string('workdir', '', 'A trained run of the full method.')
  flags.DEFINE_bool('torch', False, 'Time the PyTorch baseline, too.')
  command_line.require_sizes('sizes')
  command_line.require_integers('batches', 1)
  command_line.require_choices('dtypes', ('float32', 'bfloat16'))
  command_line.require_choices('works', ('train', 'predict'))
  command_line.require_choices('parts', ablation.PARTS)


def main(_):
  """Runs every combination in fresh processes and prints the table."""
  print('  '.join(f'{name:>9}' for name in _HEADER))
  workers = [(part, time_jax) for part in FLAGS.parts]
  if FLAGS.torch:
    workers.append(('PyTorch', time_torch))
  for combination in itertools.product(
    FLAGS.works, FLAGS.sizes, FLAGS.batches, FLAGS.dtypes
  ):
    measured = [[] for _ in workers]
    for _ in range(FLAGS.rounds):
      for (name, worker), rounds in zip(workers, measured, strict=True):
        rounds.append(_measure(name, worker, *combination))
        row = _format_row(name, rounds, measured[0], *combination)
        print(row, flush=True)


def _measure(name, worker, work, size, batch, dtype):
  """Runs a worker in a fresh process."""
  size = tuple(map(int, size.split('x')))
  trained = work == 'predict' and name == 'full'
  return processes.run_alone(
    worker,
    work,
    name,
    size,
    int(batch),
    dtype,
    FLAGS.steps,
    FLAGS.workdir if trained else '',
  )


def _format_row(name, rounds, first_rounds, work, size, batch, dtype):
  """Returns a row of the table: medians over the rounds so far."""
  first = statistics.median(ms for ms, *_ in first_rounds)
  *numbers, devices = zip(*rounds, strict=True)
  ms, compile_seconds, peak = map(statistics.median, numbers)
  row = (
    work,
    name,
    size,
    batch,
    dtype,
    devices[0],
    f'{ms:.1f}',
    f'{ms / first:.2f}',
    f'{1e3 * int(batch) / ms:.2f}',
    f'{compile_seconds:.1f}',
    f'{peak / 2**30:.2f}',
  )
  return '  '.join(f'{value:>9}' for value in row)


def _make_config(part, height, width, dtype):
  config = ablation.get_config(part)
  config.data.height, config.data.width = height, width
  config.model.dtype = dtype
  config.model.encoder_weights = config.model.pose_weights = ''
  return config


def _compile_training(config, model, optimizer, mesh, state, batch):
  """Returns a function that makes one update, as `train_and_evaluate` does."""
  import jax

  from sgde_jax.weights import initial

  step, *_ = initial.compile_steps(
    config, model, optimizer, mesh, state, itertools.repeat(batch)
  )

  def run():
    nonlocal state  # The one before was donated.
    state, scalars = step(state, batch)
    jax.block_until_ready((state, scalars))

  return run


def _compile_prediction(model, variables, frames):
  """Returns a function that predicts the frames."""
  import jax

  from sgde_jax import parallel
  from sgde_jax.inference import steps

  predict = functools.partial(steps.predict_step, model=model)
  predict = parallel.jit(predict).lower(variables, frames).compile()
  return lambda: jax.block_until_ready(predict(variables, frames))


def _trained_arguments(config, workdir, shape, mesh):
  """A run's weights in a config's network; frames of the run's evaluation."""
  import input_pipeline
  from sgde_jax import configuration, parallel
  from sgde_jax.configs import default
  from sgde_jax.weights import initial

  _, state = initial.load_trained(config, workdir, mesh)
  data = configuration.resolve(default.get_config(), workdir, {}).data
  batch_size, data.height, data.width, _ = shape
  batch = next(
    iter(
      input_pipeline.create_eval_batches(
        data, split=data.eval_split, batch_size=batch_size
      )
    )
  )
  return state.variables, parallel.to_devices(batch['frames'][:, 0], mesh)


def _random_batch(batch_size, frames, height, width):
  rng = np.random.default_rng(0)
  intrinsics = np.array(
    [
      [0.58 * width, 0, 0.5 * width],
      [0, 1.92 * height, 0.5 * height],
      [0, 0, 1],
    ],
    np.float32,
  )
  return {
    'frames': rng.integers(
      0, 256, (batch_size, frames, height, width, 3), dtype=np.uint8
    ),
    'intrinsics': np.tile(intrinsics, (batch_size, 1, 1)),
    'labels': rng.integers(0, 19, (batch_size, height, width), dtype=np.uint8),
  }


def _median_ms(run, count):
  """Median milliseconds of `count` calls, after one that is not counted."""
  run()
  seconds = []
  for _ in range(count):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return 1e3 * statistics.median(seconds)


def _peak_bytes():
  """The process' largest resident size."""
  return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == '__main__':
  command_line.run(main, define_flags)
