"""Renders the street: a synthetic driving data set in KITTI's raw layout.

  python -m input_pipeline.street --output=DIR

Besides KITTI's own files (image_02, oxts, velodyne_points, calib_*.txt), every
drive holds the exact truth of the synthetic scene:

  semantic_02/data/*.png   8 bits, the 19 train ids
  depth_02/data/*.png      16 bits, metres along the optical axis x 256, 0 = sky
  poses.txt                12 numbers per frame: left camera to that of frame 0

The root holds splits/train.txt and splits/test.txt, whose drives differ, and
street.json, the arguments that made it. Equal arguments give equal bytes.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from input_pipeline import command_line, files, progress
from input_pipeline.street import kitti_files, layout, render

VERSION = 3
_RECORD = 'street.json'
_CHUNK = 10  # frames that a worker renders before it reports
# The least that each argument may be.
_LEAST = dict(drives=1, frames=3, height=32, width=32, seed=0, test_drives=0)


def render_street(
  output: str | os.PathLike,
  *,
  drives: int,
  frames: int,
  height: int,
  width: int,
  seed: int,
  test_drives: int,
  workers: int = 2,
) -> bool:
  """Renders a KITTI raw root, unless it exists.

  The root appears whole or not at all: it is made next to its place and renamed
  at the end.

  Args:
    output: the root to make.
    drives: number of drives.
    frames: frames per drive, at 10 Hz.
    height: pixels, a multiple of 32.
    width: pixels, a multiple of 32.
    seed: decides everything that is not an argument here.
    test_drives: how many of the drives, the last ones, are held out for
      splits/test.txt. A single drive is never held out.
    workers: processes that render; 1 renders in this one.

  Returns:
    Whether it rendered; False if the root exists with the same arguments.

  Raises:
    ValueError: if an argument is out of range, or `output` is another folder.
  """
  test_drives = test_drives if drives > 1 else 0
  arguments = dict(drives=drives, frames=frames, height=height, width=width)
  arguments |= dict(seed=seed, test_drives=test_drives)
  _check_arguments(arguments)
  output = pathlib.Path(output).absolute()
  if _exists(output, arguments):
    return False
  try:
    with files.whole_folder(output) as root:
      _write_fixed_files(root, arguments)
      _render_all(root, arguments, workers)
      record = {'version': VERSION, **arguments}
      (root / _RECORD).write_text(json.dumps(record, indent=2) + '\n')
  except OSError:
    # Another process may have rendered the same street in the meantime.
    if not _exists(output, arguments):
      raise
    return False
  return True


def _check_arguments(arguments):
  wrong = [
    f'--{name} is {arguments[name]}: give at least {least}'
    for name, least in _LEAST.items()
    if arguments[name] < least
  ]
  wrong += [
    f'--{name} is {arguments[name]}: give a multiple of 32'
    for name in ('height', 'width')
    if arguments[name] % 32
  ]
  if arguments['test_drives'] >= max(arguments['drives'], 1):
    wrong.append(
      f'--test_drives is {arguments["test_drives"]} of {arguments["drives"]} '
      'drives: leave at least one to train on'
    )
  if wrong:
    raise ValueError('; '.join(wrong))


def _exists(output, arguments):
  """Returns whether the root exists; raises ValueError for any other folder."""
  if not output.exists() or (output.is_dir() and not any(output.iterdir())):
    return False
  record = output / _RECORD
  if not record.exists():
    raise ValueError(
      f'{output} exists and is not a rendered street (it has no {_RECORD}): '
      'choose a folder that does not exist, or for KITTI raw the config '
      'configs/kitti_r18.py'
    )
  found = json.loads(record.read_text())
  other = [
    f'{name} {found.get(name)} (asked for: {value})'
    for name, value in {'version': VERSION, **arguments}.items()
    if found.get(name) != value
  ]
  if other:
    raise ValueError(
      f'{output} holds a street with {", ".join(other)}: use the same '
      'arguments, choose another --output, or remove it'
    )
  return True


def _drive_name(drive):
  return f'{kitti_files.DATE}_drive_{drive:04d}_sync'


def _write_fixed_files(root, arguments):
  """Writes calibration, splits and empty folders."""
  date = root / kitti_files.DATE
  drives, frames = arguments['drives'], arguments['frames']
  for drive, kind in itertools.product(
    range(1, drives + 1),
    ('image_02', 'semantic_02', 'depth_02', 'oxts', 'velodyne_points'),
  ):
    (date / _drive_name(drive) / kind / 'data').mkdir(parents=True)
  size = arguments['height'], arguments['width']
  kitti_files.write_calibration(date, render.intrinsics(*size), *size)
  (root / 'splits').mkdir()
  held_out = drives - arguments['test_drives'] + 1
  # Training needs both neighbours; of the held-out frames every second is used.
  for name, part, used in (
    ('train', range(1, held_out), range(1, frames - 1)),
    ('test', range(held_out, drives + 1), range(0, frames, 2)),
  ):
    lines = [
      f'{kitti_files.DATE}/{_drive_name(drive)} {frame} l'
      for drive, frame in itertools.product(part, used)
    ]
    _write_lines(root / 'splits' / f'{name}.txt', lines)


def _render_all(root, arguments, workers):
  drives, frames = arguments['drives'], arguments['frames']
  tasks = itertools.product(range(1, drives + 1), range(0, frames, _CHUNK))
  work = functools.partial(_render_chunk, root, arguments)
  with contextlib.ExitStack() as stack:
    run = map
    if workers > 1:
      # Spawned, not forked: the caller may hold threads and accelerators.
      pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context('spawn')
      )
      run = stack.enter_context(pool).map
    rendered = itertools.chain.from_iterable(run(work, tasks))
    for _ in progress.bar(rendered, 'rendering frames', drives * frames):
      pass


# A worker takes its chunks in order, so it needs one scene at a time.
_create_scene = functools.lru_cache(maxsize=1)(layout.create_scene)


def _render_chunk(root, arguments, task):
  """Renders the frames of one task; returns their numbers."""
  drive, first = task
  scene = _create_scene(arguments['seed'], drive, arguments['frames'])
  folder = root / kitti_files.DATE / _drive_name(drive)
  if first == 0:
    _write_motion(folder, scene.motion.camera_to_world, drive)
  size = {name: arguments[name] for name in ('height', 'width')}
  numbers = range(first, min(first + _CHUNK, arguments['frames']))
  for number in numbers:
    frame = render.render_frame(scene, number, **size)
    _write_frame(folder, number, frame, render.intrinsics(**size))
  return numbers


def _write_motion(folder, camera_to_world, drive):
  to_first = np.linalg.inv(camera_to_world[0]) @ camera_to_world
  rows = to_first[:, :3].reshape(-1, 12)
  rows = [' '.join(f'{value:.12e}' for value in row) for row in rows]
  _write_lines(folder / 'poses.txt', rows)
  for number, line in enumerate(kitti_files.oxts_lines(camera_to_world)):
    _write_lines(folder / 'oxts/data' / f'{number:010d}.txt', [line])
  times = kitti_files.timestamps(drive, len(camera_to_world))
  for kind in ('image_02', 'oxts', 'velodyne_points'):
    _write_lines(folder / kind / 'timestamps.txt', times)


def _write_lines(path, lines):
  path.write_text(''.join(f'{line}\n' for line in lines))


def _write_frame(folder, number, frame, intrinsics):
  for kind, array in (
    ('image_02', frame.image),
    ('depth_02', np.rint(frame.depth * 256).astype(np.uint16)),
    ('semantic_02', frame.labels),
  ):
    # As small as with full compression, and three times as fast.
    path = folder / kind / 'data' / f'{number:010d}.png'
    Image.fromarray(array).save(path, compress_level=2)
  path = folder / 'velodyne_points/data' / f'{number:010d}.bin'
  kitti_files.scan(frame, intrinsics).tofile(path)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parses the command line and renders."""
  parser = argparse.ArgumentParser(
    prog='python -m input_pipeline.street',
    description='Render a synthetic street as a KITTI raw folder.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add('--output', required=True, type=command_line.local_path, help='new root')
  for name, default, text in (
    ('drives', 6, 'drives, each with its own street'),
    ('frames', 60, 'frames per drive, at 10 Hz'),
    ('height', 192, 'pixels, a multiple of 32'),
    ('width', 640, 'pixels, a multiple of 32'),
    ('seed', 0, 'decides everything else'),
    ('test_drives', 1, 'drives for splits/test.txt; never a single drive'),
    ('workers', os.cpu_count() or 1, 'processes'),
  ):
    add(f'--{name}', type=int, default=default, help=text)
  options = vars(parser.parse_args(arguments))
  with command_line.report_errors():
    rendered = render_street(**options)
  done = 'rendered' if rendered else 'already exists, unchanged'
  print(f'{options["output"]}: {done}')
