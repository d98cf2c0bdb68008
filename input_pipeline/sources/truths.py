"""Ground truth: its kinds, the files each needs, and reading depth maps.

    lidar      a scan's forward distance, as most publications use it
    lidar_z    a scan's camera z
    improved   KITTI's annotated depth: ROOT/{train,val}/DRIVE/proj_depth/
               groundtruth/image_02/0000000005.png
    dense      DATE/DRIVE/depth_02/data/0000000005.png, as the street has it

Pictures hold metres x 256 in 16 bits. Any kind can come from one file instead,
which `python -m input_pipeline.tools.cache_depth` writes.
"""

import os

import numpy as np

from input_pipeline import images, splits
from input_pipeline.sources import kitti

KINDS = ('lidar', 'lidar_z', 'dense', 'improved')
_IN_PICTURES = KINDS[2:]  # The others are made of scans.
IMPROVED_HINT = (
  "KITTI's annotated depth lies in train/ and val/ of ground_truth_root and "
  'lacks the first and last five frames of a drive: list the others'
)


def open_truth(
  kind: str, folder: kitti.Folder, *, improved_root: str = '', file: str = ''
) -> 'Truth | StoredTruth | None':
  """Opens ground truth, one of `KINDS`; returns None for `none`.

  `improved_root` is where `improved` lies, by default the folder. `file`, of
  `cache_depth`, replaces the folder's files and must hold the same kind.
  """
  if kind == 'none':
    return None
  if kind not in KINDS:
    raise ValueError(f'there is no ground truth {kind!r}: {", ".join(KINDS)}')
  if file:
    return StoredTruth(file, kind)
  return Truth(kind, folder, improved_root or folder.root)


class Truth:
  """The ground truth of a folder, from its own scans or pictures."""

  def __init__(self, kind: str, folder: kitti.Folder, improved_root: str):
    self._kind = kind
    self._in_pictures = kind in _IN_PICTURES
    self._folder = folder
    self._improved_root = improved_root

  def sources(self, example: splits.Example) -> list[str]:
    """Returns the paths that a depth map is made of; the first holds it."""
    if self._kind == 'improved':
      return [self._improved_file(example)]
    if self._in_pictures:
      return [self._folder.expected_file('depth', example)]
    scan = self._folder.expected_file('velodyne_points', example)
    return [scan, *self._folder.calibration_files(example)]

  def missing(self, example: splits.Example) -> list[str]:
    """Returns the missing `sources`, relative to the folder's root."""
    return self._folder.missing(self.sources(example))

  def size(self, example: splits.Example) -> tuple[int, int]:
    """(height, width) of a depth map."""
    if self._in_pictures:
      return images.read_size(self.sources(example)[0])
    return self._folder.calibration(example).sizes[example.camera]

  def read(self, example: splits.Example) -> np.ndarray:
    """Reads a depth map, [H, W] float32, metres; 0 = no measurement."""
    path = self.sources(example)[0]
    if self._in_pictures:
      return images.read_depth(path)
    return kitti.scan_depth(
      kitti.read_scan(path),
      self._folder.calibration(example),
      camera=example.camera,
      forward_distance=self._kind == 'lidar',
    )

  def _improved_file(self, example):
    """Returns an annotated depth map's path; the likeliest one if absent."""
    root, drive = self._improved_root, os.path.basename(example.drive)
    drives = [f'{root}/{x}' for x in (f'train/{drive}', f'val/{drive}', drive)]
    drives.append(f'{self._folder.root}/{example.drive}')
    below = f'proj_depth/groundtruth/image_{example.camera:02d}'
    for drive in drives:
      found = self._folder.numbered(f'{drive}/{below}', '.png')
      path = found.get(example.frame)
      if path and self._folder.is_file(path):
        return path
    return f'{drives[0]}/{below}/{example.frame:010d}.png'


class StoredTruth:
  """The depth maps of one file, float32 as computed; used like `Truth`.

  Attributes:
    digest: the `Folder.digest` of the files that they were made of.
    examples: lines `DRIVE FRAME SIDE` of its examples.
  """

  def __init__(self, path: str | os.PathLike[str], kind: str):
    self._path = os.fspath(path)
    stored = str(self._load('kind'))
    if stored != kind:
      raise ValueError(
        f'{path} holds the ground truth {stored!r}, but '
        f'config.data.ground_truth is {kind!r}'
      )
    self.digest = str(self._load('digest'))
    self.examples = tuple(map(str, self._load('examples')))
    self._rows = {line: row for row, line in enumerate(self.examples)}
    self._sizes = [tuple(map(int, size)) for size in self._load('sizes')]

  def missing(self, example: splits.Example) -> list[str]:
    """Returns the example's name if the file lacks it."""
    stored = str(example) in self._rows
    return [] if stored else [f'{example} in {self._path}']

  def size(self, example: splits.Example) -> tuple[int, int]:
    """(height, width) of a depth map."""
    return self._sizes[self._rows[str(example)]]

  def read(self, example: splits.Example) -> np.ndarray:
    """Reads a depth map, [H, W] float32, metres; 0 = no measurement."""
    return self._load(member(self._rows[str(example)]))

  def _load(self, name):
    try:
      with open(self._path, 'rb') as file, np.load(file) as arrays:
        return arrays[name]
    except Exception as error:  # NumPy, zipfile and zlib have their own.
      raise ValueError(
        f'{self._path} cannot be read: {error}; write it with python -m '
        'input_pipeline.tools.cache_depth'
      ) from error


def member(row: int) -> str:
  """Returns a depth map's name in the file that `StoredTruth` reads."""
  return f'depth_{row:06d}'
