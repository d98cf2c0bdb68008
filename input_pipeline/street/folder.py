"""Renders the street: a synthetic driving data set in KITTI's raw layout.

  python -m input_pipeline.street --output=DIR

Beside what KITTI has (image_02, oxts, velodyne_points, calib_*.txt), every
drive holds what is exact only in a synthetic scene:

  semantic_02/data/*.png   8 bits, the 19 train ids
  depth_02/data/*.png      16 bits, metres along the optical axis x 256, 0 = sky
  poses.txt                12 numbers a frame: left camera to that of frame 0

and the root holds splits/train.txt and splits/test.txt, whose drives differ,
and street.json, the arguments that made it. The same arguments give the same
bytes.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import pathlib

import numpy as np
from PIL import Image

from input_pipeline import command_line, files, progress
from input_pipeline.street import kitti_files, render
from input_pipeline.street import scene as street_scene

VERSION = 3
_RECORD = 'street.json'
_CHUNK = 10  # frames that a worker renders before it reports


def render_street(
  output, *, drives, frames, height, width, seed, test_drives=1, workers=2
):
  """Renders a KITTI raw root, unless it is there already.

  The root appears whole or not at all: it is made beside its place and
  renamed at the end.

  Args:
    output: the root to make.
    drives: how many drives, >= 1.
    frames: frames of each, at 10 Hz, >= 3.
    height: pixels, a multiple of 32.
    width: pixels, a multiple of 32.
    seed: >= 0; it decides everything that is not an argument here.
    test_drives: how many of the drives, the last ones, are held out for
      splits/test.txt. A single drive is never held out.
    workers: processes that render; 1 renders in this one.

  Returns:
    True where it rendered, False where the root was there already.

  Raises:
    ValueError: an argument is out of range, or `output` holds something else.
  """
  if drives == 1:
    test_drives = 0
  arguments = {
    'drives': drives,
    'frames': frames,
    'height': height,
    'width': width,
    'seed': seed,
    'test_drives': test_drives,
  }
  _check_arguments(arguments, workers)
  output = pathlib.Path(output).absolute()
  if _is_there(output, arguments):
    return False
  try:
    with files.whole_folder(output) as root:
      _write_fixed_files(root, arguments)
      _render_all(root, arguments, workers)
      record = {'version': VERSION, **arguments}
      (root / _RECORD).write_text(json.dumps(record, indent=2) + '\n')
  except OSError:
    # Another process may have put the same root there meanwhile.
    if _is_there(output, arguments):
      return False
    raise
  return True


def _check_arguments(arguments, workers):
  least = {
    'drives': 1,
    'frames': 3,
    'height': 32,
    'width': 32,
    'seed': 0,
    'test_drives': 0,
    'workers': 1,
  }
  for name, value in {**arguments, 'workers': workers}.items():
    if value < least[name]:
      raise ValueError(f'--{name} is {value}: give at least {least[name]}')
  for name in ('height', 'width'):
    if arguments[name] % 32:
      raise ValueError(
        f'--{name} is {arguments[name]}: the networks halve an image five '
        'times, so give a multiple of 32'
      )
  if arguments['test_drives'] >= arguments['drives']:
    raise ValueError(
      f'--test_drives is {arguments["test_drives"]} of '
      f'{arguments["drives"]} drives, which leaves none to train on: give '
      'more --drives or fewer --test_drives'
    )


def _is_there(output, arguments):
  """Whether the root is there; raises ValueError where another thing is."""
  if not output.exists():
    return False
  record = output / _RECORD
  if not record.exists():
    if output.is_dir() and not any(output.iterdir()):
      return False
    raise ValueError(
      f'{output} exists and is no rendered street (it has no '
      f'{_RECORD}): name a folder that is not there yet'
    )
  try:
    found = dict(json.loads(record.read_text()))
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{record} holds no record of a street ({error}): remove '
      f'{output} and render again'
    ) from None
  wanted = {'version': VERSION, **arguments}
  other = [
    f'{name} {found.get(name)} (asked for: {value})'
    for name, value in wanted.items()
    if found.get(name) != value
  ]
  if other:
    raise ValueError(
      f'{output} holds a street with {", ".join(other)}: give '
      'the same arguments, another --output, or remove it'
    )
  return True


def _drive_name(drive):
  return f'{kitti_files.DATE}_drive_{drive:04d}_sync'


def _write_fixed_files(root, arguments):
  """Writes calibration, splits and empty folders."""
  date = root / kitti_files.DATE
  for drive in range(1, arguments['drives'] + 1):
    for kind in (
      'image_02',
      'semantic_02',
      'depth_02',
      'oxts',
      'velodyne_points',
    ):
      (date / _drive_name(drive) / kind / 'data').mkdir(parents=True)
  height, width = arguments['height'], arguments['width']
  kitti_files.write_calibration(
    date, render.intrinsics(height, width), height, width
  )
  splits = root / 'splits'
  splits.mkdir()
  first_held_out = arguments['drives'] - arguments['test_drives'] + 1
  frames = arguments['frames']
  # Training needs both neighbours; of the held-out frames every second does.
  _write_split(
    splits / 'train.txt', range(1, first_held_out), range(1, frames - 1)
  )
  _write_split(
    splits / 'test.txt',
    range(first_held_out, arguments['drives'] + 1),
    range(0, frames, 2),
  )


def _write_split(path, drives, frames):
  path.write_text(
    ''.join(
      f'{kitti_files.DATE}/{_drive_name(drive)} {frame} l\n'
      for drive in drives
      for frame in frames
    )
  )


def _render_all(root, arguments, workers):
  frames = arguments['frames']
  tasks = [
    (drive, first, min(first + _CHUNK, frames))
    for drive in range(1, arguments['drives'] + 1)
    for first in range(0, frames, _CHUNK)
  ]
  work = functools.partial(_render_chunk, root, arguments)
  with contextlib.ExitStack() as stack:
    shown = stack.enter_context(
      progress.Progress('rendering frames', arguments['drives'] * frames)
    )
    if workers == 1:
      results = map(work, tasks)
    else:
      results = _results_of_processes(
        stack, work, tasks, workers, arguments['drives']
      )
    for done in results:
      shown.add(done)


def _results_of_processes(stack, work, tasks, workers, drives):
  """Yields what the workers return, as it comes."""
  # Spawned, not forked: the caller may hold threads and accelerators. A pool
  # for each worker, so that few of them have to build the same scene.
  pools = []
  for _ in range(workers):
    pools.append(
      concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context('spawn')
      )
    )
    stack.callback(pools[-1].shutdown, cancel_futures=True)
  undivided = drives - drives % workers
  futures = []
  for task in tasks:
    drive, first, _ = task
    owner = drive if drive <= undivided else first // _CHUNK
    futures.append(pools[owner % workers].submit(work, task))
  for future in concurrent.futures.as_completed(futures):
    try:
      yield future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
      raise ValueError(
        f'one of {workers} workers was killed, maybe for want of memory: '
        'render by python -m input_pipeline.street with fewer '
        '--workers'
      ) from error


# A worker takes its chunks in order, so it needs one scene at a time.
_create_scene = functools.lru_cache(maxsize=1)(street_scene.create_scene)


def _render_chunk(root, arguments, task):
  """Renders frames [first, stop) of a drive; returns how many."""
  drive, first, stop = task
  scene = _create_scene(arguments['seed'], drive, arguments['frames'])
  folder = root / kitti_files.DATE / _drive_name(drive)
  if first == 0:
    _write_motion(folder, scene.motion.camera_to_world, drive)
  height, width = arguments['height'], arguments['width']
  for number in range(first, stop):
    frame = render.render_frame(scene, number, height=height, width=width)
    _write_frame(folder, number, frame, render.intrinsics(height, width))
  return stop - first


def _write_motion(folder, camera_to_world, drive):
  to_first = np.linalg.inv(camera_to_world[0]) @ camera_to_world
  rows = to_first[:, :3].reshape(-1, 12)
  (folder / 'poses.txt').write_text(
    ''.join(' '.join(f'{value:.12e}' for value in row) + '\n' for row in rows)
  )
  for number, line in enumerate(kitti_files.oxts_lines(camera_to_world)):
    path = folder / 'oxts' / 'data' / f'{number:010d}.txt'
    path.write_text(line + '\n')
  times = kitti_files.timestamps(drive, len(camera_to_world))
  for kind in ('image_02', 'oxts', 'velodyne_points'):
    (folder / kind / 'timestamps.txt').write_text('\n'.join(times) + '\n')


def _write_frame(folder, number, frame, intrinsics):
  depth = np.rint(frame.depth * 256).astype(np.uint16)
  for kind, array in (
    ('image_02', frame.image),
    ('depth_02', depth),
    ('semantic_02', frame.labels),
  ):
    # The lowest compression but one: as small, and three times as quick.
    Image.fromarray(array).save(
      folder / kind / 'data' / f'{number:010d}.png', compress_level=2
    )
  kitti_files.scan(frame, intrinsics).tofile(
    folder / 'velodyne_points' / 'data' / f'{number:010d}.bin'
  )


def main(arguments=None):
  """Parses the command line and renders."""
  parser = argparse.ArgumentParser(
    prog='python -m input_pipeline.street',
    description='Render a synthetic street as a KITTI raw folder.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    '--output',
    required=True,
    help='the root to make',
    type=command_line.local_path,
  )
  for name, default, text in (
    ('drives', 6, 'drives, each a street of its own'),
    ('frames', 60, 'frames of a drive, at 10 Hz'),
    ('height', 192, 'pixels, a multiple of 32'),
    ('width', 640, 'pixels, a multiple of 32'),
    ('seed', 0, 'decides everything else'),
    (
      'test_drives',
      1,
      'drives held out for splits/test.txt; a single drive is never held out',
    ),
    ('workers', os.cpu_count() or 1, 'processes'),
  ):
    parser.add_argument(f'--{name}', type=int, default=default, help=text)
  options = vars(parser.parse_args(arguments))
  output = options.pop('output')
  with command_line.ending_in_one_message():
    rendered = render_street(output, **options)
  print(f'{output}: {"rendered" if rendered else "already there, unchanged"}')


if __name__ == '__main__':
  main()
