"""Ground truth: the kinds, the files that each needs, and their depth maps.

    lidar      a scan's forward distance, as most publications use it
    lidar_z    a scan's camera z
    improved   KITTI's annotated depth: ROOT/{train,val}/DRIVE/proj_depth/
               groundtruth/image_02/0000000005.png
    dense      DATE/DRIVE/depth_02/data/0000000005.png, as the street has it

Pictures hold metres x 256 in 16 bits. Any kind can come from one file instead,
which `python -m input_pipeline.tools.cache_depth` writes.
"""

import os
import zipfile
import zlib

import numpy as np

from input_pipeline import images
from input_pipeline.sources import kitti

# What NumPy raises on a file that is damaged or another one.
_DAMAGE = (
  OSError,
  EOFError,
  KeyError,
  TypeError,
  ValueError,
  zlib.error,
  zipfile.BadZipFile,
)

KINDS = ('lidar', 'lidar_z', 'dense', 'improved')
IMPROVED_GAPS = (
  "KITTI's annotated depth lacks the first and last five frames "
  'of a drive: list the others'
)


def open_truth(kind, folder, *, improved_root='', file=''):
  """Opens the ground truth of a folder.

  Args:
    kind: one of `KINDS`, or `none`.
    folder: an `examples.Folder`.
    improved_root: where `improved` lies; '' is the folder's root.
    file: a file of `ground_truth`, which must hold this kind; '' takes the
      folder's own files.

  Returns:
    None for `none`. Else an object with `missing(example)`, paths that are
    needed and absent;
    but for a file of `ground_truth`, `sources(example)`, paths that it reads;
    `size(example)`, (height, width); and `read(example)`, [H, W] float32
    metres, 0 = no measurement. `read` raises ValueError, naming the file.

  Raises:
    FileNotFoundError: the file or the improved root is absent.
    ValueError: the file holds something else.
  """
  if kind == 'none':
    return None
  if file:
    return StoredTruth(file, kind)
  if kind == 'dense':
    return PictureTruth(
      folder, lambda example: folder.expected_file('depth', example)
    )
  if kind == 'improved':
    root = improved_root or folder.root
    if not os.path.isdir(root):
      raise FileNotFoundError(f'ground_truth_root: there is no folder {root}')
    return PictureTruth(
      folder, lambda example: _improved_file(root, folder, example)
    )
  return ScanTruth(folder, forward_distance=kind == 'lidar')


class PictureTruth:
  """Depth maps that are 16-bit pictures."""

  def __init__(self, folder, find):
    """Takes `find`: example -> path, whether there is a file or not."""
    self._folder = folder
    self._find = find

  def sources(self, example):
    """See `open_truth`."""
    return [self._find(example)]

  def missing(self, example):
    """See `open_truth`."""
    return _absent(self.sources(example), self._folder)

  def size(self, example):
    """See `open_truth`."""
    return images.read_size(self._find(example))

  def read(self, example):
    """See `open_truth`."""
    return images.read_depth(self._find(example))


class ScanTruth:
  """Depth maps made from velodyne scans."""

  def __init__(self, folder, *, forward_distance):
    """Says whether the maps hold the forward distance or the camera's z."""
    self._folder = folder
    self._forward_distance = forward_distance

  def sources(self, example):
    """See `open_truth`."""
    return [self._scan(example), *self._folder.calibration_files(example)]

  def missing(self, example):
    """See `open_truth`."""
    return _absent(self.sources(example), self._folder)

  def size(self, example):
    """See `open_truth`."""
    calibration = self._folder.calibration(example)
    calibration.check_camera(example.camera)
    return calibration.sizes[example.camera]

  def read(self, example):
    """See `open_truth`."""
    return kitti.scan_depth(
      kitti.read_scan(self._scan(example)),
      self._folder.calibration(example),
      camera=example.camera,
      forward_distance=self._forward_distance,
    )

  def _scan(self, example):
    return self._folder.expected_file('velodyne_points', example)


class StoredTruth:
  """The depth maps of one file, float32 as they were computed.

  Attributes:
    digest: the `Folder.digest` of the files that they were made from.
  """

  def __init__(self, path, kind):
    """Reads the file's list of examples; see `open_truth`."""
    if not os.path.isfile(path):
      raise FileNotFoundError(
        f'ground_truth_file: there is no file {path}; '
        'python -m input_pipeline.tools.cache_depth writes it'
      )
    self._path = os.fspath(path)
    stored = str(self._load('kind'))
    if stored != kind:
      raise ValueError(
        f'{path} holds the ground truth {stored!r}, and '
        f'config.data.ground_truth is {kind!r}'
      )
    self.digest = str(self._load('digest'))
    lines, sizes = self._load('examples'), self._load('sizes')
    self._rows = {str(line): row for row, line in enumerate(lines)}
    self._sizes = [tuple(map(int, size)) for size in sizes]

  @property
  def examples(self):
    """Lines `DRIVE FRAME SIDE` of the examples that it holds."""
    return tuple(self._rows)

  def missing(self, example):
    """See `open_truth`."""
    if str(example) in self._rows:
      return []
    return [f'{example} in {self._path}']

  def size(self, example):
    """See `open_truth`."""
    return self._sizes[self._rows[str(example)]]

  def read(self, example):
    """See `open_truth`."""
    return self._load(member(self._rows[str(example)]))

  def _load(self, name):
    try:
      with open(self._path, 'rb') as file, np.load(file) as arrays:
        return arrays[name]
    except _DAMAGE as e:
      raise ValueError(
        f'{self._path} cannot be read: {e}; write it anew with python -m '
        'input_pipeline.tools.cache_depth'
      ) from e


def member(row):
  """Name of a depth map in the file that `StoredTruth` reads."""
  return f'depth_{row:06d}'


def _absent(paths, folder):
  return [
    os.path.relpath(path, folder.root)
    for path in paths
    if not folder.is_file(path)
  ]


def _improved_file(root, folder, example):
  """Path of an annotated depth map; where it should be if it is absent."""
  drive = os.path.basename(example.drive)
  below = os.path.join(
    'proj_depth',
    'groundtruth',
    f'image_{example.camera:02d}',
    f'{example.frame:010d}.png',
  )
  drives = [os.path.join(root, part, drive) for part in ('train', 'val', '')]
  drives.append(os.path.join(folder.root, example.drive))
  places = [os.path.join(path, below) for path in drives]
  return next(filter(folder.is_file, places), places[0])
