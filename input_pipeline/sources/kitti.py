"""The KITTI raw layout: drives, calibration, and LiDAR scans to depth maps.

    ROOT/DATE/calib_cam_to_cam.txt, calib_velo_to_cam.txt
    ROOT/DATE/DRIVE/image_02/data/0000000000.png (or .jpg)
    ROOT/DATE/DRIVE/velodyne_points/data/0000000000.bin

Cameras 2 and 3 are the left and the right colour camera. Camera frame: x right,
y down, z forward; velodyne frame: x forward, y left, z up; metres. Pixel
centres lie at integer coordinates.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline import files, splits

CAMERA_FILE = 'calib_cam_to_cam.txt'
VELODYNE_FILE = 'calib_velo_to_cam.txt'
# Endings of frames, the preferred one first.
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg')
_SUFFIXES = {
  'image': IMAGE_SUFFIXES,
  'semantic': ('.png',),
  'depth': ('.png',),
  'velodyne_points': ('.bin',),
  'oxts': ('.txt',),
}
_PER_DRIVE = ('velodyne_points', 'oxts')  # The other kinds are per camera.


class Folder:
  """A KITTI raw folder; lists each of its folders once.

  The kinds of files are `image`, `semantic`, `depth`, `velodyne_points` and
  `oxts`.
  """

  def __init__(self, root: str):
    self.root = root
    self._frames = functools.cache(list_frames)
    self._files = functools.cache(_list_files)
    self._calibration = functools.cache(read_calibration)

  def frames(self, kind: str, example: splits.Example) -> dict[int, str]:
    """Returns frame number -> path, for the drive and camera of an example."""
    return self._frames(self._data_folder(kind, example), _SUFFIXES[kind])

  def numbered(self, folder: str, suffix: str) -> dict[int, str]:
    """Returns number -> path of the files of any folder with a suffix."""
    return self._frames(folder, (suffix,))

  def file(
    self, kind: str, example: splits.Example, offset: int = 0
  ) -> str | None:
    """Returns a file's path at a frame offset of an example; None if absent."""
    return self.frames(kind, example).get(example.frame + offset)

  def expected_file(
    self, kind: str, example: splits.Example, offset: int = 0
  ) -> str:
    """Returns the path that `file` looks for, whether it exists or not."""
    name = f'{example.frame + offset:010d}{_SUFFIXES[kind][0]}'
    return self.file(kind, example, offset) or os.path.join(
      self._data_folder(kind, example), name
    )

  def is_file(self, path: str) -> bool:
    """Returns whether a file exists; False for a broken link.

    Lists the file's folder: on network disks one request per folder is much
    faster than one per file.
    """
    folder, name = os.path.split(path)
    return name in self._files(folder)

  def missing(self, paths: Iterable[str]) -> list[str]:
    """Returns the paths that are not files, relative to the root."""
    absent = [path for path in paths if not self.is_file(path)]
    return [os.path.relpath(path, self.root) for path in absent]

  def calibration(self, example: splits.Example) -> 'Calibration':
    """Returns the calibration of the example's date."""
    return self._calibration(self._date_folder(example))

  def calibration_files(self, example: splits.Example) -> tuple[str, str]:
    """Returns the paths of the two calibration files of the example's date."""
    folder = self._date_folder(example)
    return f'{folder}/{CAMERA_FILE}', f'{folder}/{VELODYNE_FILE}'

  def digest(self, paths: Iterable[str]) -> str:
    """Hashes existing files: names, sizes, and calibrations' content."""
    total = hashlib.sha256()
    for path in sorted(set(paths)):
      if os.path.isfile(path):
        name = os.path.relpath(path, self.root)
        total.update(f'{name} {os.path.getsize(path)}\n'.encode())
        if os.path.basename(path) in (CAMERA_FILE, VELODYNE_FILE):
          total.update(pathlib.Path(path).read_bytes())
    return total.hexdigest()

  def _date_folder(self, example):
    return os.path.dirname(os.path.join(self.root, example.drive))

  def _data_folder(self, kind, example):
    camera = None if kind in _PER_DRIVE else example.camera
    return data_folder(os.path.join(self.root, example.drive), kind, camera)


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
  """Calibration of one date, float64.

  Attributes:
    path: the file of the cameras.
    projections: camera number -> [3, 4], P_rect_0N: rectified camera 0 to the
      pixels of camera N.
    sizes: camera number -> (height, width) of its rectified images.
    rectification: [3, 3], R_rect_00: camera 0 to rectified camera 0.
    velo_to_cam: [4, 4], velodyne to camera 0; None if the date has no
      calib_velo_to_cam.txt.
  """

  path: str
  projections: dict[int, np.ndarray]
  sizes: dict[int, tuple[int, int]]
  rectification: np.ndarray
  velo_to_cam: np.ndarray | None


def read_calibration(date_folder: str | os.PathLike[str]) -> Calibration:
  """Reads the calibration of a date's folder, such as `KITTI/2011_09_26`."""
  path = os.path.join(date_folder, CAMERA_FILE)
  values = _read_values(path)
  projections, sizes = {}, {}
  for camera in range(4):
    names = f'P_rect_{camera:02d}', f'S_rect_{camera:02d}'
    if all(name in values for name in names):
      projections[camera] = _parse(path, values, names[0], 12).reshape(3, 4)
      width, height = map(int, _parse(path, values, names[1], 2))
      sizes[camera] = height, width
  rectification = _parse(path, values, 'R_rect_00', 9).reshape(3, 3)
  velo_path, velo_to_cam = os.path.join(date_folder, VELODYNE_FILE), None
  if os.path.isfile(velo_path):
    values = _read_values(velo_path)
    velo_to_cam = np.eye(4)
    velo_to_cam[:3, :3] = _parse(velo_path, values, 'R', 9).reshape(3, 3)
    velo_to_cam[:3, 3] = _parse(velo_path, values, 'T', 3)
  return Calibration(path, projections, sizes, rectification, velo_to_cam)


def intrinsics(
  calibration: Calibration, *, camera: int, height: int, width: int
) -> np.ndarray:
  """Returns intrinsics of resized images: [3, 3] float32, pixels.

  Half-pixel: scaling by s sends f to f s and c to (c + 0.5) s - 0.5, per axis.
  """
  native = calibration.sizes.get(camera)
  matrix = calibration.projections.get(camera, np.zeros((3, 4)))[:, :3].copy()
  # The row of the principal point may be outside, above a cropped sky.
  if native is None or not -0.5 <= matrix[0, 2] <= native[1] - 0.5:
    raise ValueError(
      f'{calibration.path} needs P_rect_{camera:02d} and S_rect_{camera:02d} '
      f'of the same images: principal point in column {matrix[0, 2]:g}, '
      f'(height, width) {native}'
    )
  matrix[:2, 2] += 0.5
  matrix[:2] *= np.array([[width / native[1]], [height / native[0]]])
  matrix[:2, 2] -= 0.5
  return matrix.astype(np.float32)


def list_frames(folder: str, suffixes: Sequence[str]) -> dict[int, str]:
  """Returns frame number -> path of a folder's files, such as `0000000005.png`.

  Empty if there is no such folder. The first suffixes are preferred.
  """
  found = files.list_stems(folder, suffixes)
  numbers = (stem for stem in found if stem.isascii() and stem.isdigit())
  return {int(stem): found[stem] for stem in numbers}


def data_folder(drive_folder: str, kind: str, camera: int | None = None) -> str:
  """Returns a drive's folder of a kind of file, as in `DRIVE/image_02/data`."""
  name = kind if camera is None else f'{kind}_{camera:02d}'
  return os.path.join(drive_folder, name, 'data')


def read_scan(path: str | os.PathLike[str]) -> np.ndarray:
  """Reads a velodyne scan: [N, 4] float32 x, y, z (metres), reflectance."""
  size = os.path.getsize(path)
  if size % 16:
    raise ValueError(f'{path} is truncated: {size} bytes, points have 16 each')
  return np.fromfile(path, '<f4').reshape(-1, 4)


def scan_depth(
  points: np.ndarray,
  calibration: Calibration,
  *,
  camera: int = 2,
  forward_distance: bool = True,
) -> np.ndarray:
  """Projects a scan to a depth map: [H, W] float32, metres, 0 = no measurement.

  H x W is the camera's native size. Follows Monodepth2's `generate_depth_map`,
  the usual raw ground truth: drops points behind the scanner, projects with
  P_rect R_rect_00 [R|T], rounds, subtracts 1; of several points in a pixel the
  nearest wins.

  Args:
    points: [N, 4] float32, metres in the velodyne frame.
    calibration: with `velo_to_cam`.
    camera: 2 or 3.
    forward_distance: the scanner's x, as is usual, instead of the camera's z.
  """
  height, width = calibration.sizes[camera]
  rectification = np.eye(4)
  rectification[:3, :3] = calibration.rectification
  projection = (
    calibration.projections[camera] @ rectification @ calibration.velo_to_cam
  )

  points = points[points[:, 0] >= 0].astype(np.float64)
  points[:, 3] = 1.0
  x, y, z = projection @ points.T  # [N] each
  with np.errstate(divide='ignore', invalid='ignore'):
    # Minus 1 for the same pixels as KITTI's own Matlab code.
    columns, rows = np.round(x / z) - 1, np.round(y / z) - 1
  inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
  distance = (points[:, 0] if forward_distance else z)[inside]

  # The last write to a pixel stays: write the nearest last.
  order = np.argsort(-distance, kind='stable')
  depth = np.zeros((height, width), np.float32)
  depth[
    rows[inside][order].astype(np.int64),
    columns[inside][order].astype(np.int64),
  ] = distance[order]
  return np.maximum(depth, 0)


def parse_numbers(text: str, count: int, *, what: str) -> np.ndarray:
  """Parses `count` finite numbers separated by white space."""
  try:
    values = np.array([float(word) for word in text.split()])
  except ValueError:
    values = np.empty(0)
  if len(values) != count or not np.isfinite(values).all():
    raise ValueError(
      f'{what} needs {count} finite numbers, found {text.strip()[:80]!r}'
    )
  return values


def _read_values(path):
  """Returns name -> text of the `name: text` lines of a file."""
  with open(path, encoding='utf-8-sig', errors='replace') as file:
    lines = [line.partition(':') for line in file.read().split('\n')]
  return {name.strip(): text for name, _, text in lines}


def _parse(path, values, name, count):
  return parse_numbers(values.get(name, ''), count, what=f'{path}: {name}')


def _list_files(folder):
  """Lists the names of a folder's files; only links need another request."""
  if not os.path.isdir(folder):
    return frozenset()
  with os.scandir(folder) as entries:
    return frozenset(
      entry.name
      for entry in entries
      if (os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file())
    )
