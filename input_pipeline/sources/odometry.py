"""Sequences with true camera poses, for measuring predicted motion.

Two layouts, distinguished by the folder `sequences`:

    ROOT/sequences/09/image_2/000000.png (or .jpg)   KITTI odometry
    ROOT/poses/09.txt
    ROOT/DATE/DRIVE/image_02/data/0000000000.png     KITTI raw, as the street
    ROOT/DATE/DRIVE/poses.txt                        writes it

A pose file has a line of 12 numbers for every frame: the upper three rows of
the left camera's pose, camera to world, in metres. KITTI odometry's are those
of camera 0, 6 cm from camera 2; as is usual, we use them for camera 2. No
intrinsics are read: the pose network needs none.
"""

import dataclasses
import os
from collections.abc import Iterable

import ml_collections
import numpy as np

from input_pipeline import examples, readers, splits
from input_pipeline.sources import folders, kitti

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
  files: tuple[str, ...]
  poses: np.ndarray


def pair_batches(
  config_data: ml_collections.ConfigDict,
  sequence: Sequence,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> readers.OrderedBatches:
  """Returns batches of the frame pairs (t, t + 1) of a sequence, in order.

  Like `Data.eval_batches`, with two frames and without depth.
  """
  count = len(sequence.files) - 1
  table = examples.ExampleTable(
    size=(config_data.height, config_data.width),
    frame_files=sequence.files,
    frame_rows=np.arange(count)[:, None] + np.arange(2),
    label_files=[None] * count,
    coding='none',
  )
  return readers.OrderedBatches(
    table,
    reader=config_data.reader,
    batch_size=batch_size,
    process_index=process_index,
    process_count=process_count,
  )


def is_odometry_root(root: str) -> bool:
  """Returns whether a folder has KITTI odometry's layout (without depth)."""
  return os.path.isdir(os.path.join(root, 'sequences'))


def open_sequences(
  config_data: ml_collections.ConfigDict, names: Iterable[str] = ()
) -> list[Sequence]:
  """Reads the poses of sequences and lists their frames.

  The names are sequences (`09`), or drives below the root; by default all with
  poses in KITTI odometry's folder or among the evaluation split's drives.
  """
  root = config_data.root
  names = list(dict.fromkeys(name.rstrip('/') for name in names))
  if not names:
    if is_odometry_root(root):
      names = sorted(os.listdir(os.path.join(root, 'sequences')))
    elif config_data.source != 'tfds':  # Records have no poses.
      folders.open_folder(config_data)
      lines = splits.read_split(splits.find_split(config_data.eval_split, root))
      names = dict.fromkeys(line.drive for line in lines)
    names = [x for x in names if os.path.isfile(_find_files(root, x)[0])]
  if not names:
    raise FileNotFoundError(
      f'config.eval.odometry needs true poses, but {root} has neither a '
      f'poses.txt in a drive of {config_data.eval_split} nor '
      'sequences/NAME with poses/NAME.txt: pass --config.data.source=kitti '
      'and --config.data.root=FOLDER for a folder that has one of them'
    )
  return [_read_sequence(root, name) for name in names]


def read_poses(path: str | os.PathLike[str]) -> np.ndarray:
  """Reads a pose file: [N, 4, 4] float64, finite and rigid, N >= 1."""
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


def _find_files(root, name):
  """Returns the paths of a sequence's poses and of the folder of its frames."""
  if is_odometry_root(root):
    frames = os.path.join(root, 'sequences', name, f'image_{_CAMERA}')
    return os.path.join(root, 'poses', f'{name}.txt'), frames
  drive = os.path.join(root, name)
  frames = kitti.data_folder(drive, 'image', _CAMERA)
  return os.path.join(drive, 'poses.txt'), frames


def _read_sequence(root, name):
  path, folder = _find_files(root, name)
  poses = read_poses(path)
  files = kitti.list_frames(folder, kitti.IMAGE_SUFFIXES)
  numbers = sorted(files)
  gaps = [x + 1 for x in numbers[:-1] if x + 1 not in files]
  if len(files) != len(poses) or gaps:
    raise ValueError(
      f'{path} has {len(poses)} poses for the {len(files)} frames in {folder}: '
      'it needs one per frame, and the frames must be consecutive'
      + (f'; frame {gaps[0]} is missing' if gaps else '')
    )
  return Sequence(
    name=os.path.basename(name),
    files=tuple(files[number] for number in numbers),
    poses=poses,
  )
