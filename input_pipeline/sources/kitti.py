"""The KITTI raw layout: files of a drive, calibration, LiDAR -> depth.

    ROOT/DATE/calib_cam_to_cam.txt, calib_velo_to_cam.txt
    ROOT/DATE/DRIVE/image_02/data/0000000000.png (or .jpg)
    ROOT/DATE/DRIVE/velodyne_points/data/0000000000.bin

Cameras 2 and 3 are the left and the right colour camera. Camera frame: x right,
y down, z forward; velodyne frame: x forward, y left, z up; metres. Pixel
centres lie at integer coordinates.
"""

import dataclasses
import os

import numpy as np

CAMERA_FILE = 'calib_cam_to_cam.txt'
VELODYNE_FILE = 'calib_velo_to_cam.txt'
# Endings of frames, the preferred one first.
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg')


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
  """Calibration of one date, float64.

  Attributes:
    folder: the folder that it was read from.
    projections: camera number -> [3, 4], P_rect_0N: rectified camera 0 to the
      pixels of camera N.
    sizes: camera number -> (height, width) of its rectified images.
    rectification: [3, 3], R_rect_00: camera 0 to rectified camera 0.
    velo_to_cam: [4, 4], velodyne to camera 0; None where the date has no
      calib_velo_to_cam.txt.
  """

  folder: str
  projections: dict
  sizes: dict
  rectification: np.ndarray
  velo_to_cam: np.ndarray | None

  def check_camera(self, camera):
    """Raises ValueError where the file does not describe this camera."""
    path = os.path.join(self.folder, CAMERA_FILE)
    names = f'P_rect_{camera:02d}', f'S_rect_{camera:02d}'
    if camera not in self.projections:
      raise ValueError(f'{path} has no {names[0]} and {names[1]}')
    projection, (height, width) = self.projections[camera], self.sizes[camera]
    if np.abs(projection[2, :3] - (0, 0, 1)).max() > 1e-4:
      raise ValueError(
        f'{path}: the last row of {names[0]} does not begin with 0 0 1'
      )
    centre = projection[0, 2]  # The other one may be, above a cropped sky.
    if not -0.5 <= centre <= width - 0.5:
      raise ValueError(
        f'{path}: {names[0]} has its principal point in column {centre:g}, '
        f'outside of the {width}x{height} pixels of {names[1]}: give both for '
        'images of one size'
      )


def read_calibration(date_folder):
  """Reads calib_cam_to_cam.txt and, where present, calib_velo_to_cam.txt.

  Args:
    date_folder: the folder of a date, as in `KITTI/2011_09_26`.

  Returns:
    A `Calibration`.

  Raises:
    FileNotFoundError: there is no calib_cam_to_cam.txt.
    ValueError: a needed line is absent, doubled or does not parse; the message
      names file and line.
  """
  path = os.path.join(date_folder, CAMERA_FILE)
  matrices = {'R_rect_00': 9}
  for camera in range(4):
    matrices |= {f'P_rect_{camera:02d}': 12, f'S_rect_{camera:02d}': 2}
  values = _read_values(path, matrices)
  _require(values, ['R_rect_00'], path)
  projections, sizes = {}, {}
  for camera in range(4):
    names = [f'P_rect_{camera:02d}', f'S_rect_{camera:02d}']
    if not any(name in values for name in names):
      continue
    _require(values, names, path)
    projection, size = (values[name] for name in names)
    if projection[0] <= 0 or projection[5] <= 0:
      raise ValueError(f'{path}: {names[0]} has no positive focal lengths')
    if (size < 1).any() or (size != np.round(size)).any():
      raise ValueError(f'{path}: {names[1]} is no width and height in pixels')
    projections[camera] = projection.reshape(3, 4)
    sizes[camera] = (int(size[1]), int(size[0]))
  return Calibration(
    folder=os.fspath(date_folder),
    projections=projections,
    sizes=sizes,
    rectification=values['R_rect_00'].reshape(3, 3),
    velo_to_cam=_read_velo_to_cam(date_folder),
  )


def intrinsics(calibration, *, camera, height, width):
  """Intrinsics of a camera whose images are resized, half-pixel.

  Scaling by s sends f to f s and c to (c + 0.5) s - 0.5, per axis, with s the
  ratio of the given to the native size.

  Args:
    calibration: a `Calibration`.
    camera: number of the camera.
    height: rows of the resized image.
    width: columns of the resized image.

  Returns:
    [3, 3] float32, pixels of the resized image.

  Raises:
    ValueError: the calibration does not describe this camera.
  """
  calibration.check_camera(camera)
  native_height, native_width = calibration.sizes[camera]
  scale = np.array([width / native_width, height / native_height])
  matrix = calibration.projections[camera][:, :3].copy()
  matrix[:2, 2] += 0.5
  matrix[:2] *= scale[:, None]
  matrix[:2, 2] -= 0.5
  return matrix.astype(np.float32)


def list_frames(folder, suffixes):
  """Files of a `data` folder by frame number.

  Args:
    folder: a folder of files named by number, as in `0000000005.png`.
    suffixes: accepted endings, the preferred ones first.

  Returns:
    Frame number -> path; empty where there is no such folder.
  """
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  files = {}
  for suffix in reversed(suffixes):
    for name in names:
      stem, ending = os.path.splitext(name)
      if ending.lower() == suffix and stem.isascii() and stem.isdigit():
        files[int(stem)] = os.path.join(folder, name)
  return files


def data_folder(drive_folder, kind, camera=None):
  """Folder of a drive's files: `image`, `semantic`, `depth`, `velodyne_points`.

  Args:
    drive_folder: folder of the drive.
    kind: first part of the folder's name.
    camera: number of the camera, for what exists per camera.

  Returns:
    A path as in `DRIVE/image_02/data`.
  """
  name = kind if camera is None else f'{kind}_{camera:02d}'
  return os.path.join(drive_folder, name, 'data')


def read_scan(path):
  """Reads a velodyne scan.

  Args:
    path: a .bin file: float32 x, y, z, reflectance per point.

  Returns:
    [N, 4] float32; the first three columns are metres in the velodyne frame.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is truncated or holds values that are not finite.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'no velodyne scan at {path}')
  size = os.path.getsize(path)
  if size % 16:
    raise ValueError(
      f'{path} is truncated: {size} bytes are no whole number '
      'of points (four float32 each)'
    )
  points = np.fromfile(path, '<f4').reshape(-1, 4)
  if not np.isfinite(points).all():
    raise ValueError(f'{path} holds values that are not finite')
  return points


def lidar_depth(drive_folder, frame, *, camera=2, forward_distance=True):
  """Depth map of a velodyne scan, as the field's evaluations make it.

  As Monodepth2's `generate_depth_map` (the usual raw ground truth): drop points
  behind the scanner, project with P_rect R_rect_00 [R|T], round, minus 1;
  of several points in a pixel the nearest wins.

  Args:
    drive_folder: folder of the drive; its parent holds the calibration.
    frame: number of the frame.
    camera: number of the camera.
    forward_distance: store the velodyne's forward distance (the usual); else
      the camera's z.

  Returns:
    [H, W] float32, metres, at the camera's native size; 0 = no measurement.

  Raises:
    FileNotFoundError: the scan or a calibration file is absent.
    ValueError: the scan or the calibration cannot be read.
  """
  calibration = read_calibration(os.path.dirname(os.path.abspath(drive_folder)))
  path = os.path.join(
    data_folder(drive_folder, 'velodyne_points'), f'{frame:010d}.bin'
  )
  return scan_depth(
    read_scan(path),
    calibration,
    camera=camera,
    forward_distance=forward_distance,
  )


def scan_depth(points, calibration, *, camera=2, forward_distance=True):
  """Projects a scan; see `lidar_depth`.

  Args:
    points: [N, 4] float32, metres in the velodyne frame.
    calibration: a `Calibration` with `velo_to_cam`.
    camera: number of the camera.
    forward_distance: as for `lidar_depth`.

  Returns:
    [H, W] float32, metres; 0 = no measurement.

  Raises:
    FileNotFoundError: the date has no calib_velo_to_cam.txt.
    ValueError: the calibration does not describe this camera.
  """
  calibration.check_camera(camera)
  if calibration.velo_to_cam is None:
    raise FileNotFoundError(
      f'LiDAR depth needs {os.path.join(calibration.folder, VELODYNE_FILE)}'
    )
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


def parse_numbers(text, count, *, what):
  """Parses numbers that white space separates.

  Args:
    text: the text.
    count: how many there must be.
    what: the subject of messages: where the text stands and what it is.

  Returns:
    [count] float64, finite.

  Raises:
    ValueError: the text is something else.
  """
  try:
    values = np.array([float(word) for word in text.split()])
  except ValueError:
    raise ValueError(
      f'{what} holds what is no number: {text.strip()[:80]!r}'
    ) from None
  if len(values) != count:
    raise ValueError(f'{what} needs {count} numbers, found {len(values)}')
  if not np.isfinite(values).all():
    raise ValueError(f'{what} holds numbers that are not finite')
  return values


def _read_velo_to_cam(date_folder):
  path = os.path.join(date_folder, VELODYNE_FILE)
  if not os.path.isfile(path):
    return None
  values = _read_values(path, {'R': 9, 'T': 3})
  _require(values, ['R', 'T'], path)
  matrix = np.eye(4)
  matrix[:3, :3] = values['R'].reshape(3, 3)
  matrix[:3, 3] = values['T']
  return matrix


def _require(values, names, path):
  for name in names:
    if name not in values:
      raise ValueError(f'{path} has no line `{name}: ...`')


def _read_values(path, lengths):
  """Reads the wanted `name: numbers` lines of a calibration file.

  Args:
    path: the file.
    lengths: wanted name -> how many numbers it must have.

  Returns:
    Name -> [length] float64, for the wanted names that the file has.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a wanted line is doubled or does not parse.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(
      f'no calibration at {path}; KITTI ships it per date (calib.zip)'
    )
  with open(path, encoding='utf-8-sig', errors='replace') as file:
    lines = file.read().split('\n')
  values = {}
  for number, line in enumerate(lines, start=1):
    name, _, text = line.partition(':')
    name = name.strip()
    if name not in lengths:
      continue
    where = f'{path}, line {number}'
    if name in values:
      raise ValueError(f'{where}: {name} is given twice')
    values[name] = parse_numbers(text, lengths[name], what=f'{where}: {name}')
  return values
