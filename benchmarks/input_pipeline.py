"""Times the input pipeline, beside PyTorch's; prints one table.

  python -m benchmarks.input_pipeline --torch
  python -m benchmarks.input_pipeline --batches=2000 --sources=records \
    --cores=0                                        # whether memory stays flat

Every row runs in a process of its own, on one core unless --cores says
otherwise (0: all). `images/s` are per second of processor time, that is, per
core, whatever else the machine does; `ms/batch` is by the clock. `png` and
`jpeg` are read from a folder by the tf.data graph, `records` from what
`tools.build_records` made of the PNGs, `memory` is the reader that holds
all frames decoded; `PyTorch` is a DataLoader that decodes and resizes the same
JPEGs with Pillow. An image is one frame; an example has three. `growth` is the
process' resident memory after the last batch over that after a fifth of them.

The frames are a street at 1248x384 (KITTI's own pictures are 1242x375), JPEGs
of quality 92 as Monodepth2's authors advise; all below --folder, made once.
"""

import os
import pathlib
import time

import numpy as np
from absl import flags
from PIL import Image

from benchmarks import command_line, processes

_SOURCES = ('png', 'jpeg', 'records', 'memory')

FLAGS = flags.FLAGS

_HEADER = ('source', 'images/s', 'over first', 'ms/batch', 'MiB', 'growth')
_WARM_UP = 5


def prepare(folder, frames, size):
  """Makes the PNGs, JPEGs and records that are not there yet.

  Args:
    folder: pathlib.Path.
    frames: frames of the drive.
    size: (width, height) of the records' frames.
  """
  from input_pipeline.street import folder as street
  from input_pipeline.tools import build_records

  street.render_street(
    folder / 'png',
    drives=1,
    frames=frames,
    height=384,
    width=1248,
    seed=0,
    test_drives=0,
    workers=os.cpu_count(),
  )
  for path in sorted((folder / 'png').rglob('*')):
    copy = folder / 'jpeg' / path.relative_to(folder / 'png')
    if path.is_dir() or 'semantic_02' in path.parts:
      continue
    copy.parent.mkdir(parents=True, exist_ok=True)
    if 'image_02' not in path.parts:
      copy.write_bytes(path.read_bytes())
    elif path.suffix == '.png' and not copy.with_suffix('.jpg').exists():
      with Image.open(path) as image:
        image.save(copy.with_suffix('.jpg'), quality=92, subsampling='4:2:0')
  width, height = size
  build_records.build(
    build_records.RecordsConfig(
      name=f'{width}x{height}',
      root=str(folder / 'png'),
      width=width,
      height=height,
      eval_split='splits/train.txt',
      ground_truth='none',
    ),
    folder / 'records',
  )


def make_config(folder, source, size):
  """The `config.data` of a source."""
  from sgde_jax.configs import default

  config = default.get_config().data
  config.width, config.height = size
  config.source = 'tfds' if source == 'records' else 'kitti'
  config.reader = 'memory' if source == 'memory' else 'tf'
  config.root = str(folder / ('png' if source == 'memory' else source))
  if source == 'records':
    config.root += f'/kitti_records/{size[0]}x{size[1]}'
  config.eval_split = config.train_split
  config.labels = 'none'
  return config


def read_ours(folder, source, size, batch_size):
  """An endless iterator of batches."""
  import input_pipeline

  return input_pipeline.create_train_batches(
    make_config(folder, source, size),
    seed=0,
    start_step=0,
    batch_size=batch_size,
  )


def read_torch(folder, source, size, batch_size):
  """The same work by PyTorch's DataLoader in this process."""
  del source
  import torch

  from input_pipeline import examples, splits
  from input_pipeline.sources import kitti

  root = folder / 'jpeg'
  lines = splits.read_split(root / 'splits/train.txt')
  listing = examples.Folder(str(root))
  intrinsics = kitti.intrinsics(
    listing.calibration(lines[0]), camera=2, height=size[1], width=size[0]
  )

  class Frames(torch.utils.data.Dataset):
    def __len__(self):
      return len(lines)

    def __getitem__(self, index):
      frames = []
      for offset in (0, -1, 1):
        path = listing.file('image', lines[index], offset)
        with Image.open(path) as image:
          image = image.convert('RGB').resize(size, Image.Resampling.LANCZOS)
        frames.append(np.asarray(image))
      return {'frames': np.stack(frames), 'intrinsics': intrinsics}

  loader = torch.utils.data.DataLoader(
    Frames(), batch_size, shuffle=True, drop_last=True
  )
  while True:
    yield from loader


def measure(reader, arguments, count, cores):
  """Reads batches.

  Returns:
    Seconds per batch by the clock and of processor time; memory in bytes after
    the last batch, and its growth.
  """
  if cores:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  batches = iter(reader(*arguments))
  for _ in range(_WARM_UP):
    next(batches)
  start, busy, early = time.perf_counter(), time.process_time(), None
  for step in range(count):
    next(batches)
    if step == count // 5:
      early = _resident_bytes()
  seconds = time.perf_counter() - start, time.process_time() - busy
  memory = _resident_bytes()
  return seconds[0] / count, seconds[1] / count, memory, memory / early


def define_flags():
  """Defines what the command line takes."""
  flags.DEFINE_list('sources', list(_SOURCES), 'What to read.')
  flags.DEFINE_bool('torch', False, "Time PyTorch's DataLoader, too.")
  flags.DEFINE_string('size', '640x192', 'WIDTHxHEIGHT of the batches.')
  flags.DEFINE_integer('batch', 4, 'Batch size.')
  flags.DEFINE_integer('batches', 50, 'Timed batches, after five.')
  flags.DEFINE_integer('cores', 1, 'Cores per row; 0: all.')
  flags.DEFINE_integer('frames', 40, 'Frames of the drive that is read.')
  flags.DEFINE_string('folder', 'runs/input_benchmark', 'For the data.')
  command_line.require_choices('sources', _SOURCES)
  command_line.require_sizes('size')


def main(_):
  """Prepares the data and prints a row per source."""
  folder = pathlib.Path(FLAGS.folder)
  size = tuple(map(int, FLAGS.size.split('x')))
  prepare(folder, FLAGS.frames, size)
  print('  '.join(f'{name:>10}' for name in _HEADER))
  rows = [(source, read_ours) for source in FLAGS.sources]
  if FLAGS.torch:
    rows.append(('PyTorch', read_torch))
  first = None
  for source, reader in rows:
    seconds, busy, memory, growth = processes.run_alone(
      measure,
      reader,
      (folder, source, size, FLAGS.batch),
      FLAGS.batches,
      FLAGS.cores,
    )
    rate = 3 * FLAGS.batch / busy
    first = first or rate
    row = (
      source,
      f'{rate:.1f}',
      f'{rate / first:.2f}',
      f'{1e3 * seconds:.1f}',
      f'{memory / 2**20:.0f}',
      f'{growth:.3f}',
    )
    print('  '.join(f'{value:>10}' for value in row), flush=True)


def _resident_bytes():
  """The process' resident size, from Linux."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


if __name__ == '__main__':
  command_line.run(main, define_flags)
