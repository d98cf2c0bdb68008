"""The street in KITTI's formats: calibration, oxts packets, scans.

The left colour camera is camera 0 and camera 2 at once: images are rectified
already and the offset between the two is zero.
"""

import pathlib

import numpy as np

from input_pipeline.street import render, route

DATE = '2000_01_01'
_BASELINE = 0.54  # metres to the right-hand camera, P_rect_03
_EARTH_RADIUS = 6378137.0  # metres, as in KITTI's development kit
_ORIGIN = 49.0, 8.43, 115.0  # latitude, longitude (degrees), altitude (metres)
_BEAMS, _HIGHEST, _LOWEST = 64, 2.0, -24.8  # degrees
_AZIMUTH_STEP = 0.18  # degrees
_RANGE = 120.0  # metres


def _rigid(rotation, translation):
  # The published digits are not quite a rotation; the nearest one is.
  u, _, v = np.linalg.svd(rotation)
  transform = np.eye(4)
  transform[:3, :3], transform[:3, 3] = u @ v, translation
  return transform


# KITTI's own mounting of 2011_09_26.
VELO_TO_CAM = _rigid(
  [
    (7.533745e-03, -9.999714e-01, -6.166020e-04),
    (1.480249e-02, 7.280733e-04, -9.998902e-01),
    (9.998621e-01, 7.523790e-03, 1.480755e-02),
  ],
  [-4.069766e-03, -7.631618e-02, -2.717806e-01],
)
IMU_TO_VELO = _rigid(
  [
    (9.999976e-01, 7.553071e-04, -2.035826e-03),
    (-7.854027e-04, 9.998898e-01, -1.482298e-02),
    (2.024406e-03, 1.482454e-02, 9.998881e-01),
  ],
  [-8.086759e-01, 3.195559e-01, -7.997231e-01],
)


def write_calibration(
  folder: pathlib.Path, intrinsics: np.ndarray, height: int, width: int
) -> None:
  """Writes the three calib_*.txt of a date; intrinsics [3, 3] in pixels."""
  eye, size = np.eye(3), [width, height]
  lines = {'corner_dist': [0.0995]}
  for camera in range(4):
    offset = -_BASELINE * (camera % 2)
    projection = np.zeros((3, 4))
    projection[:, :3] = intrinsics
    projection[0, 3] = intrinsics[0, 0] * offset
    lines |= {
      f'S_0{camera}': size,
      f'K_0{camera}': intrinsics,
      f'D_0{camera}': np.zeros(5),
      f'R_0{camera}': eye,
      f'T_0{camera}': [offset, 0, 0],
      f'S_rect_0{camera}': size,
      f'R_rect_0{camera}': eye,
      f'P_rect_0{camera}': projection,
    }
  _write_values(folder / 'calib_cam_to_cam.txt', lines)
  velo, imu = (
    {'R': transform[:3, :3], 'T': transform[:3, 3]}
    for transform in (VELO_TO_CAM, IMU_TO_VELO)
  )
  velo |= {'delta_f': [0, 0], 'delta_c': [0, 0]}
  _write_values(folder / 'calib_velo_to_cam.txt', velo)
  _write_values(folder / 'calib_imu_to_velo.txt', imu)


def _write_values(path, lines):
  text = ['calib_time: 01-Jan-2000 00:00:00']
  for name, values in lines.items():
    numbers = ' '.join(f'{v:.12e}' for v in np.ravel(values))
    text.append(f'{name}: {numbers}')
  path.write_text('\n'.join(text) + '\n')


def oxts_lines(camera_to_world: np.ndarray) -> list[str]:
  """Formats the oxts packets of a drive.

  Args:
    camera_to_world: [N, 4, 4], N >= 2; the world's x is east, y north.

  Returns:
    N strings of KITTI's 30 values: latitude, longitude, altitude, roll, pitch,
    yaw, velocities (north, east, forward, left, up), accelerations and angular
    rates (x, y, z, then forward, left, up), accuracies and states.
  """
  pose = camera_to_world @ VELO_TO_CAM @ IMU_TO_VELO
  position, rotation = pose[:, :3, 3], pose[:, :3, :3]
  geodetic = _geodetic(position)
  roll = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
  pitch = np.arcsin(np.clip(-rotation[:, 2, 0], -1, 1))
  yaw = np.unwrap(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))
  step = 1 / route.FRAME_RATE
  velocity = np.gradient(position, step, axis=0)
  acceleration = np.gradient(velocity, step, axis=0)
  own = [np.einsum('nij,ni->nj', rotation, v) for v in (velocity, acceleration)]
  rates = np.gradient(np.stack([roll, pitch, yaw], 1), step, axis=0)
  gravity = rotation[:, 2] * 9.81
  constant = np.tile([0.05, 0.02, 4, 9, 4, 4, 0], (len(pose), 1))
  angles = np.stack([roll, pitch, (yaw + np.pi) % (2 * np.pi) - np.pi], 1)
  north_east, force = velocity[:, 1::-1], own[1] + gravity
  motion = north_east, own[0], force, force, rates, rates
  rows = np.concatenate([geodetic, angles, *motion, constant], 1)
  return [
    ' '.join([f'{v:.14g}' for v in row[:25]] + [f'{v:.0f}' for v in row[25:]])
    for row in rows
  ]


def _geodetic(position):
  """Metres east, north, up to latitude, longitude (degrees), altitude.

  The inverse of the Mercator projection in KITTI's development kit, whose
  scale is that of the drive's first latitude.
  """
  latitude, longitude, altitude = _ORIGIN
  # The first packet's latitude sets the scale, and this scale that latitude;
  # the second round is exact to 1e-12.
  first = latitude
  for _ in range(12):
    scale = _EARTH_RADIUS * np.cos(np.radians(first))
    base = np.arctanh(np.sin(np.radians(latitude)))
    north = base + position[:, 1] / scale
    degrees = np.degrees(np.arctan(np.sinh(north)))
    first = degrees[0]
  east = longitude + np.degrees(position[:, 0] / scale)
  return np.stack([degrees, east, altitude + position[:, 2]], 1)


def timestamps(drive: int, frames: int) -> list[str]:
  """Formats KITTI's timestamps of a drive, ten per second."""
  lines = []
  for frame in range(frames):
    tenths = round(frame * 10 / route.FRAME_RATE)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    day, hours = divmod(drive * 2 + hours, 24)
    lines.append(
      f'2000-{1 + day // 28 % 12:02d}-{1 + day % 28:02d} '
      f'{hours:02d}:{minutes:02d}:{tenths / 10:012.9f}'
    )
  return lines


def scan(frame: render.Frame, intrinsics: np.ndarray) -> np.ndarray:
  """Simulates one turn of a 64-beam scanner, where the camera sees it.

  The rays leave from the camera and snap to pixel centres, so that each point
  lies on a surface that the camera sees and projects onto its own pixel.

  Args:
    frame: the rendered frame.
    intrinsics: [3, 3] pixels.

  Returns:
    [N, 4] float32: x forward, y left, z up in metres in the scanner's frame,
    and the reflectance in [0, 1].
  """
  height, width = frame.depth.shape
  elevation = np.radians(np.linspace(_HIGHEST, _LOWEST, _BEAMS))[:, None]
  azimuth = np.radians(np.arange(-60, 60, _AZIMUTH_STEP))[None]
  level, up = np.cos(elevation), np.sin(elevation)
  direction = level * np.cos(azimuth), level * np.sin(azimuth), up
  direction = np.stack(np.broadcast_arrays(*direction), -1)
  rays = direction.reshape(-1, 3) @ VELO_TO_CAM[:3, :3].T @ intrinsics.T
  x, y = np.rint(rays[:, :2] / rays[:, 2:]).astype(int).T
  inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
  pixel = np.unique(y[inside] * width + x[inside])
  depth = frame.depth.ravel()[pixel]
  y, x = np.divmod(pixel, width)
  points = np.stack([x, y, np.ones_like(x)], 1) * depth[:, None]
  points = points @ np.linalg.inv(intrinsics).T
  near = (depth > 0) & (np.linalg.norm(points, axis=1) < _RANGE)
  points = (points - VELO_TO_CAM[:3, 3]) @ VELO_TO_CAM[:3, :3]
  grey = frame.image.reshape(-1, 3)[pixel].mean(1, keepdims=True) / 255
  return np.concatenate([points, grey], 1)[near].astype(np.float32)
