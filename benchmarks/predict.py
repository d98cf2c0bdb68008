"""Times prediction from files, next to Monodepth2's script in PyTorch.

  python -m benchmarks.predict --torch
  python -m benchmarks.predict --torch --batches=1,8 --frames=24 --rounds=3
  python -m benchmarks.predict --workdir=W           # a run of your own

The first table has the seconds of the whole command for one image, `cold` with
an empty folder of compiled programs and `warm` with a full one; the second the
images per second of a folder of JPEGs and of a video, all less the first, in
processes that have started. Both programs decode the same files and write an
array and a picture for each image, at its own size. They run in turn, and each
figure is the median of the rounds; `x PyTorch` is the median of the rounds'
ratios, and `lowest` to `highest` are their extremes.

The network is the baseline with fresh weights at 640x192. The frames are a
rendered street at 1248x384 (KITTI's are 1242x375), the JPEGs of quality 92.
"""

import concurrent.futures
import contextlib
import fractions
import multiprocessing
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks import measuring

FLAGS = flags.FLAGS
_ROOT = pathlib.Path(__file__).parents[1]
_SIZE = 640, 192
_RATIOS = '|x PyTorch:.2f|lowest:.2f|highest:.2f'


def prepare(folder: pathlib.Path, frames: int, with_torch: bool) -> None:
  """Makes images, a video, a run and PyTorch's weights in a folder."""
  from input_pipeline import street
  from sgde_jax.inference import video

  scene = {'height': 384, 'width': 1248, 'seed': 0, 'workers': os.cpu_count()}
  drives = {'drives': 1, 'test_drives': 0, 'frames': frames}
  street.render_street(folder / 'street', **scene, **drives)
  rendered = sorted((folder / 'street').rglob('image_02/data/*.png'))
  (folder / 'images').mkdir()
  with video.open_writer(folder / 'video.mp4') as write:
    for number, path in enumerate(rendered):
      with Image.open(path) as image:
        image.save(folder / 'images' / f'{path.stem}.jpg', quality=92)
        write(np.asarray(image), fractions.Fraction(number, 10))
  measuring.run_alone(_make_run, folder / 'run')
  if with_torch:
    measuring.run_alone(_make_weights, folder / 'weights.pth')


def _make_run(workdir):
  """Makes the workdir of a baseline with fresh weights."""
  from sgde_jax import configuration, models, parallel
  from sgde_jax.configs import baseline
  from sgde_jax.weights import checkpoints, initial, optimizer

  config = baseline.get_config()
  config.data.width, config.data.height = _SIZE
  model = models.create_model(config.model)
  adam = optimizer.create_optimizer(config.optimizer)
  mesh = parallel.create_mesh()
  state = initial.new_state(config, model, adam, mesh, weights={})
  with checkpoints.Checkpoints(workdir) as saved:
    saved.save(state, step=0)
  configuration.save(config, workdir)


def _make_weights(path):
  import torch

  from benchmarks import torch_predict

  torch.save(torch_predict.make_network().state_dict(), path)


def time_start(command: list[str], folder: pathlib.Path) -> float:
  """Returns the seconds of a command that writes to `folder / 'output'`."""
  environment = os.environ | {'JAX_COMPILATION_CACHE_DIR': f'{folder}/compiled'}
  start = time.perf_counter()
  subprocess.run(
    [sys.executable, *command, folder / 'output'],
    cwd=_ROOT,
    env=environment,
    check=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  seconds = time.perf_counter() - start
  shutil.rmtree(folder / 'output')
  return seconds


def time_ours(workdir: pathlib.Path, source: pathlib.Path, batch: int) -> float:
  """Returns the seconds of predicting a source; see `time_rest`."""
  from sgde_jax import configuration
  from sgde_jax.configs import default
  from sgde_jax.inference import images

  overrides = {'eval.batch_size': batch}
  config = configuration.resolve(default.get_config(), workdir, overrides)
  with tempfile.TemporaryDirectory() as output, open(os.devnull, 'w') as null:
    start = time.perf_counter()
    with contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
      images.predict(config, workdir, source, output)
    return time.perf_counter() - start


def time_torch(
  weights: pathlib.Path, source: pathlib.Path, batch: int
) -> float:
  """As `time_ours`, with PyTorch."""
  from benchmarks import torch_predict

  with tempfile.TemporaryDirectory() as output:
    start = time.perf_counter()
    network, folder = torch_predict.load(weights), pathlib.Path(output)
    frames = torch_predict.read(source)
    torch_predict.predict(network, frames, folder, size=_SIZE, batch=batch)
    return time.perf_counter() - start


def time_rest(
  run: Callable, weights: pathlib.Path, source: pathlib.Path, batch: int
) -> float:
  """Returns the seconds of all images of a source but one."""
  one = next((source.parent / 'images').iterdir())
  run(weights, one, batch)  # Imports and compiles.
  if batch > 1:
    run(weights, source, batch)
  return run(weights, source, batch) - run(weights, one, batch)


def compare(ours: list[float], others: list[float]) -> tuple[float, ...]:
  """Returns the rounds' ratios: median, lowest, highest."""
  ratios = [a / b for a, b in zip(ours, others, strict=True)]
  return statistics.median(ratios), min(ratios), max(ratios)


def _print_starts(folder, workdir, image):
  command = ['main.py', '--mode=predict', f'--workdir={workdir}']
  command += [f'--input={image}', '--output']
  other = ['-m', 'benchmarks.torch_predict', folder / 'weights.pth', image]
  shutil.rmtree(folder / 'compiled', ignore_errors=True)
  cold = time_start(command, folder)
  time_start(command, folder)
  warm, torch = [], []
  for _ in range(FLAGS.rounds):
    warm.append(time_start(command, folder))
    if FLAGS.torch:
      torch.append(time_start(other, folder))
  columns = 'cold s:.2f|warm s:.2f'
  row = [cold, statistics.median(warm)]
  if FLAGS.torch:
    columns += f'|PyTorch s:.2f{_RATIOS}'
    row += [statistics.median(torch), *compare(warm, torch)]
  measuring.Table(columns, width=9).add(*row)


def _print_rates(folder, workdir):
  columns = 'source|batch|images/s:.2f'
  columns += f'|PyTorch images/s:.2f{_RATIOS}' * FLAGS.torch
  table = measuring.Table(columns, width=9)
  start = multiprocessing.get_context('spawn')
  for name in ('images', 'video.mp4'):
    for batch in map(int, FLAGS.batches):
      source, ours, torch = folder / name, [], []
      with (
        concurrent.futures.ProcessPoolExecutor(1, start) as first,
        concurrent.futures.ProcessPoolExecutor(1, start) as second,
      ):
        for _ in range(FLAGS.rounds):
          job = first.submit(time_rest, time_ours, workdir, source, batch)
          ours.append((FLAGS.frames - 1) / job.result())
          if FLAGS.torch:
            weights = folder / 'weights.pth'
            job = second.submit(time_rest, time_torch, weights, source, batch)
            torch.append((FLAGS.frames - 1) / job.result())
      row = [name.partition('.')[0], batch, statistics.median(ours)]
      if FLAGS.torch:
        row += [statistics.median(torch), *compare(ours, torch)]
      table.add(*row)


def define_flags() -> None:
  flags.DEFINE_string('workdir', '', 'A trained run instead of fresh weights.')
  flags.DEFINE_list('batches', ['1', '8'], 'Batch sizes.')
  flags.DEFINE_integer('frames', 24, 'Images and frames of the video.', 2)
  flags.DEFINE_integer('rounds', 3, 'Times that everything is measured.', 1)
  flags.DEFINE_bool('torch', False, 'Also time the PyTorch baseline.')


def main(_) -> None:
  with tempfile.TemporaryDirectory() as made:
    folder = pathlib.Path(made)
    prepare(folder, FLAGS.frames, FLAGS.torch)
    workdir = pathlib.Path(FLAGS.workdir or folder / 'run').absolute()
    image = min((folder / 'images').iterdir())
    _print_starts(folder, workdir, image)
    print()
    _print_rates(folder, workdir)


if __name__ == '__main__':
  define_flags()
  app.run(main)
