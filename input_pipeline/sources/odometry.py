"""Sequences with true camera poses, for measuring predicted motion.

Two layouts, told apart by the folder `sequences`:

    ROOT/sequences/09/image_2/000000.png (or .jpg)   KITTI odometry
    ROOT/poses/09.txt
    ROOT/DATE/DRIVE/image_02/data/0000000000.png     KITTI raw, as the street
    ROOT/DATE/DRIVE/poses.txt                        writes it

A pose file has a line of 12 numbers for every frame: the upper three rows of
the left camera's pose, camera to world, in metres. KITTI odometry's are those
of camera 0, 6 cm from camera 2; the field takes them for camera 2 and so does
this. No intrinsics are read: the pose network takes none.
"""

import dataclasses
import os

import numpy as np

from input_pipeline import data, examples, readers, splits
from input_pipeline.sources import kitti

_CAMERA = 2
_ROTATION_TOLERANCE = 1e-3  # Published poses have seven digits.


@dataclasses.dataclass(frozen=True, eq=False)
class Sequence:
  """Consecutive frames and their true poses.

  Attributes:
    name: the sequence's number, or the drive's own folder.
    files: N paths of frames, in temporal order.
    poses: [N, 4, 4] float64, camera to world, metres.
  """

  name: str
  files: tuple
  poses: np.ndarray

  def pair_table(self, *, height, width):
    """Makes the table of the pairs of frames t and t + 1.

    Args:
      height: rows of the resized frames.
      width: columns of the resized frames.

    Returns:
      An `examples.ExampleTable` of N - 1 examples of two frames, in temporal
      order; its intrinsics mean nothing.
    """
    count = len(self.files) - 1
    return examples.ExampleTable(
      size=(height, width),
      frame_files=self.files,
      frame_rows=np.arange(count)[:, None] + np.arange(2),
      label_files=(None,) * count,
      coding='none',
      truths=None,
      native_sizes=None,
      intrinsics=np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
    )


def pair_batches(
  config_data, sequence, *, batch_size, process_index=0, process_count=1
):
  """Batches of the pairs of frames t and t + 1 of a sequence, in order.

  Args:
    config_data: the config's `data`.
    sequence: a `Sequence`.
    batch_size: global batch size, a multiple of `process_count`.
    process_index: this process, 0 .. process_count - 1.
    process_count: number of processes.

  Returns:
    As `Data.eval_batches`, of two frames and without depth.
  """
  table = sequence.pair_table(
    height=config_data.height, width=config_data.width
  )
  return readers.OrderedBatches(
    table,
    reader=config_data.reader,
    batch_size=batch_size,
    process_index=process_index,
    process_count=process_count,
  )


def is_odometry_root(root):
  """Whether a folder has KITTI odometry's layout, which has no depth."""
  return os.path.isdir(os.path.join(root, 'sequences'))


def open_sequences(config_data, names=()):
  """Reads the poses of sequences and lists their frames.

  Args:
    config_data: the config's `data`.
    names: sequences (`09`), or drives below the root; empty for all that have
      poses: of KITTI odometry those of the folder, else those drives of the
      evaluation split.

  Returns:
    A non-empty list of `Sequence`, no two of one name.

  Raises:
    FileNotFoundError: a file or folder is absent, or nothing has poses.
    ValueError: a line of a pose file is wrong, frames are missing, their number
      is not that of the poses, or two sequences have the same name.
  """
  root = config_data.root
  data.check_paths(config_data, train=False, evaluation=False)
  if config_data.source == 'tfds' and not is_odometry_root(root):
    raise ValueError(
      f'config.eval.odometry: the records in {root} hold no poses; pass the '
      'folder they were built from with --config.data.source=kitti and '
      '--config.data.root'
    )
  if is_odometry_root(root):
    chosen = names or _list_sequences(root)
    where = f'no NAME in {root} has both sequences/NAME and poses/NAME.txt'
  else:
    folder = data.open_folder(config_data)
    chosen = names or _list_drives(config_data.eval_split, folder)
    where = f'no drive of {config_data.eval_split} has a poses.txt in {root}'
  if not chosen:
    raise FileNotFoundError(
      f'config.eval.odometry needs true poses, but {where}: pass '
      '--config.data.root=FOLDER, one with KITTI odometry (sequences/09/image_2'
      ' and poses/09.txt) or with drives that hold poses.txt'
    )
  found = [_read_sequence(root, name) for name in chosen]
  seen = set()
  for name in (sequence.name for sequence in found):
    if name in seen:
      raise ValueError(
        f'config.eval.odometry_sequences: {name} is there twice, and results '
        'are named by it: evaluate one at a time'
      )
    seen.add(name)
  return found


def read_poses(path):
  """Reads a pose file.

  Args:
    path: the text file, 12 numbers a line.

  Returns:
    [N, 4, 4] float64, finite and rigid, N >= 1.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a line is no pose; the message names file and line.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'no poses at {path}')
  with open(path, encoding='utf-8-sig', errors='replace') as file:
    lines = file.read().rstrip().split('\n')
  poses = np.tile(np.eye(4), (len(lines), 1, 1))
  for index, line in enumerate(lines):
    what = f'{path}, line {index + 1}: the pose'
    poses[index, :3] = kitti.parse_numbers(line, 12, what=what).reshape(3, 4)
    rotation = poses[index, :3, :3]
    # Bounded before it is squared, which could overflow.
    if (
      np.abs(rotation).max() > 2
      or np.abs(rotation.T @ rotation - np.eye(3)).max() > _ROTATION_TOLERANCE
      or np.linalg.det(rotation) < 0
    ):
      raise ValueError(
        f'{what} is not rigid: give the upper three rows of camera to world, '
        'row by row, whose first three columns are a rotation'
      )
  return poses


def _list_sequences(root):
  return sorted(
    name
    for name in os.listdir(os.path.join(root, 'sequences'))
    if os.path.isfile(_pose_file(root, name))
  )


def _list_drives(split, folder):
  lines = splits.read_split(splits.find_split(split, folder.root))
  drives = dict.fromkeys(example.drive for example in lines)
  return [
    drive for drive in drives if os.path.isfile(_pose_file(folder.root, drive))
  ]


def _pose_file(root, name):
  if is_odometry_root(root):
    return os.path.join(root, 'poses', f'{name}.txt')
  return os.path.join(root, name, 'poses.txt')


def _read_sequence(root, name):
  path = _pose_file(root, name)
  folder = kitti.data_folder(os.path.join(root, name), 'image', _CAMERA)
  if is_odometry_root(root):
    folder = os.path.join(root, 'sequences', name, f'image_{_CAMERA}')
  poses = read_poses(path)
  files = kitti.list_frames(folder, kitti.IMAGE_SUFFIXES)
  if not files:
    raise FileNotFoundError(
      f'no frames in {folder}, to which the poses of {path} belong'
    )
  numbers = sorted(files)
  for number, expected in zip(
    numbers, range(numbers[0], numbers[-1] + 1), strict=False
  ):
    if number != expected:
      raise ValueError(
        f'{folder} has no frame {expected}, but later ones: motion is measured '
        'between consecutive frames'
      )
  if len(files) != len(poses):
    raise ValueError(
      f'{path} has {len(poses)} poses for the {len(files)} '
      f'frames in {folder}: it needs a line for each'
    )
  return Sequence(
    name=os.path.basename(name.rstrip('/')),
    files=tuple(files[number] for number in numbers),
    poses=poses,
  )
