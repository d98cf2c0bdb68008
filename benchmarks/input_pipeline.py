"""Times the input pipeline, side by side with PyTorch's; prints one table.

  python -m benchmarks.input_pipeline --torch
  python -m benchmarks.input_pipeline --batches=2000 --sources=records \
    --cores=0                                        # does memory stay flat?

Every row runs in its own process, on one core unless --cores gives another
number (0: all). Rows: `png` and `jpeg` are decoded from a folder by the tf.data
graph, `records` come from `input_pipeline.tools.build_records`, `memory` is the
reader that holds all frames decoded, and `PyTorch` is a DataLoader that decodes
and resizes the same JPEGs with Pillow. `images/s` are frames (three to an
example) per second of processor time, that is, per core, regardless of other
load; `ms/batch` is wall-clock time; `MiB` is resident memory after the last
batch, `growth` its ratio to the memory after a fifth of the batches.

The frames are a rendered street at 1248x384 (KITTI's are 1242x375), the JPEGs
of quality 92 as in Monodepth2. All files are in --folder and made once.
"""

import os
import pathlib
import shutil
import time

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks import measuring

FLAGS = flags.FLAGS


def _prepare(folder, frames, size):
  """Makes the PNGs, JPEGs and records that `folder` lacks."""
  from input_pipeline import street
  from input_pipeline.tools import build_records

  png, jpeg = folder / 'png', folder / 'jpeg'
  scene = {'height': 384, 'width': 1248, 'seed': 0}
  drives = {'drives': 1, 'test_drives': 0, 'frames': frames}
  street.render_street(png, **scene, **drives, workers=os.cpu_count())
  ignored = shutil.ignore_patterns('*.png')
  shutil.copytree(png, jpeg, ignore=ignored, dirs_exist_ok=True)
  for path in png.rglob('image_02/data/*.png'):
    copy = (jpeg / path.relative_to(png)).with_suffix('.jpg')
    if not copy.exists():
      with Image.open(path) as image:
        image.save(copy, quality=92, subsampling='4:2:0')
  fields = {'root': str(png), 'width': size[0], 'height': size[1]}
  fields |= {'eval_split': 'splits/train.txt', 'ground_truth': 'none'}
  name = f'{size[0]}x{size[1]}'
  config = build_records.RecordsConfig(name=name, **fields)
  build_records.build(config, folder / 'records')


def _read_ours(folder, source, size, batch_size):
  """Returns an endless iterator of training batches."""
  import input_pipeline
  from sgde_jax.configs import default

  config = default.get_config().data
  config.width, config.height = size
  config.source = 'tfds' if source == 'records' else 'kitti'
  config.reader = 'memory' if source == 'memory' else 'tf'
  records = f'records/kitti_records/{size[0]}x{size[1]}'
  root = {'memory': 'png', 'records': records}.get(source, source)
  config.root = str(folder / root)
  config.eval_split = config.train_split
  config.labels = 'none'
  data = input_pipeline.open_data(config, evaluation=False)
  return data.train_batches(seed=0, start_step=0, batch_size=batch_size)


def _read_torch(folder, size, batch_size):
  """Yields batches of the same work by PyTorch's DataLoader."""
  import torch

  paths = sorted((folder / 'jpeg').rglob('image_02/data/*.jpg'))

  def read(path):
    with Image.open(path) as image:
      image = image.convert('RGB').resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image)

  def read_example(index):
    frames = [read(paths[index + offset]) for offset in (1, 0, 2)]
    return {'frames': np.stack(frames), 'intrinsics': np.eye(3)}

  def read_batch(indices):
    return torch.utils.data.default_collate(list(map(read_example, indices)))

  indices = range(len(paths) - 2)
  loader = torch.utils.data.DataLoader(
    indices, batch_size, shuffle=True, drop_last=True, collate_fn=read_batch
  )
  while True:
    yield from loader


def _measure(folder, source, size, batch_size, count, cores):
  """Returns ms/batch, processor seconds per batch, MiB and growth."""
  if cores:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  if source == 'PyTorch':
    batches = _read_torch(folder, size, batch_size)
  else:
    batches = _read_ours(folder, source, size, batch_size)
  for _ in range(5):  # The first are slower.
    next(batches)
  start, busy = time.perf_counter(), time.process_time()
  for step in range(count):
    next(batches)
    if step == count // 5:
      early = _resident_mib()
  seconds, busy = time.perf_counter() - start, time.process_time() - busy
  memory = _resident_mib()
  return 1e3 * seconds / count, busy / count, memory, memory / early


def _resident_mib():
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def define_flags() -> None:
  flags.DEFINE_list('sources', 'png,jpeg,records,memory', 'What to read.')
  flags.DEFINE_bool('torch', False, "Also time PyTorch's DataLoader.")
  flags.DEFINE_string('size', '640x192', 'WIDTHxHEIGHT of the batches.')
  flags.DEFINE_integer('batch', 4, 'Batch size.')
  flags.DEFINE_integer('batches', 50, 'Timed batches, after five.')
  flags.DEFINE_integer('cores', 1, 'Cores per row; 0: all.')
  flags.DEFINE_integer('frames', 40, 'Frames of the drive that is read.')
  flags.DEFINE_string('folder', 'runs/input_benchmark', 'For the data.')


def main(_) -> None:
  folder, size = pathlib.Path(FLAGS.folder), measuring.parse_size(FLAGS.size)
  _prepare(folder, FLAGS.frames, size)
  columns = 'images/s:.1f|over first:.2f|ms/batch:.1f|MiB:.0f|growth:.3f'
  table = measuring.Table(f'source|{columns}', width=10)
  first = None
  for source in FLAGS.sources + ['PyTorch'] * FLAGS.torch:
    arguments = folder, source, size, FLAGS.batch, FLAGS.batches, FLAGS.cores
    ms, busy, memory, growth = measuring.run_alone(_measure, *arguments)
    rate = 3 * FLAGS.batch / busy
    first = first or rate
    table.add(source, rate, rate / first, ms, memory, growth)


if __name__ == '__main__':
  define_flags()
  app.run(main)
