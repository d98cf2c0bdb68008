"""The bent road of the street and the camera car's motion along it.

World frame: metres, x east, y north, z up, the road surface at z = 0. Road
coordinates: arc length s along the centre line and lateral distance, positive
to the left. Traffic keeps to the right.
"""

import dataclasses

import numpy as np

HALF_WIDTH = 6.75  # of the road: a lane of 4.5 m and a parking strip of 2.25
LANE = 2.0  # lateral distance of a lane's middle
PARKING = 5.6  # and of a parked car's
PAVEMENT = 2.9  # the pavement's width
KERB = 0.12  # its height
FRAME_RATE = 10.0  # frames a second

_STEP = 0.5  # metres between the nodes of the centre line
_MARGIN = 180.0  # road before the first and beyond the last camera
_CAMERA_HEIGHT = 1.65


class Road:
  """A centre line whose heading is a sum of sines, so that it never loops.

  Args:
    rng: decides the bends.
    length: metres that the camera travels, from s = 0.
  """

  def __init__(self, rng: np.random.Generator, length: float):
    self.start, self.end = -_MARGIN, length + _MARGIN
    s = np.arange(self.start, self.end, _STEP)
    heading = np.zeros_like(s)
    for size, wave in ((0.42, 190), (0.26, 95)):
      wave = wave * rng.uniform(0.85, 1.2)
      phase = rng.uniform(0, 2 * np.pi)
      heading += size * np.sin(2 * np.pi * s / wave + phase)
    self._heading = heading
    middle = 0.5 * (heading[1:] + heading[:-1])
    steps = _STEP * np.stack([np.cos(middle), np.sin(middle)], 1)
    self._points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    self._s = s

  def pose(
    self, s: np.ndarray | float, lateral: np.ndarray | float
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps road coordinates to the world.

    Args:
      s: [...] metres.
      lateral: [...] metres.

    Returns:
      x, y (metres) and the road's heading (radians from east towards north),
      each [...].
    """
    x, y, heading = self._at(np.asarray(s, float))
    cosine, sine = np.cos(heading), np.sin(heading)
    return x - lateral * sine, y + lateral * cosine, heading

  def locate(
    self, x: np.ndarray, y: np.ndarray, guess: np.ndarray | None = None
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps the world to road coordinates, by Newton steps on the foot point.

    Args:
      x: [N] metres.
      y: [N] metres.
      guess: [N] arc lengths near the answer, if known.

    Returns:
      s, lateral and the road's heading at the foot point, each [N].
    """
    steps = 4 if guess is None else 2
    s = np.interp(x, self._points[:, 0], self._s) if guess is None else guess
    for _ in range(steps):
      cx, cy, heading = self._at(s)
      s = s + (x - cx) * np.cos(heading) + (y - cy) * np.sin(heading)
      s = np.clip(s, self.start, self.end - 2 * _STEP)
    cx, cy, heading = self._at(s)
    return s, (y - cy) * np.cos(heading) - (x - cx) * np.sin(heading), heading

  def _at(self, s):
    position = np.clip((s - self.start) / _STEP, 0, len(self._s) - 2)
    node = position.astype(np.int64)
    w = position - node
    low, high = self._points[node], self._points[node + 1]
    heading = self._heading[node]
    heading = heading + w * (self._heading[node + 1] - heading)
    x, y = np.moveaxis(low + w[..., None] * (high - low), -1, 0)
    return x, y, heading


@dataclasses.dataclass(frozen=True)
class Motion:
  """The camera car's motion, one row per frame."""

  s: np.ndarray  # [N] arc length along the road, metres
  camera_to_world: np.ndarray  # [N, 4, 4]; camera x right, y down, z forward


def travel(rng: np.random.Generator, frames: int) -> np.ndarray:
  """Returns arc lengths of a drive whose speed varies between 5 and 15 m/s.

  Args:
    rng: decides the speed.
    frames: number of frames, at 10 Hz.

  Returns:
    [frames] metres, from 0.
  """
  time = np.arange(frames) / FRAME_RATE
  speed = 10.5 + 0 * time
  for size, period in ((2.8, 14), (1.5, 6)):
    period = period * rng.uniform(0.8, 1.3)
    speed += size * np.sin(2 * np.pi * (time / period + rng.random()))
  speed = np.clip(speed, 5, 15)
  steps = np.cumsum(speed[1:] + speed[:-1])
  return np.concatenate([[0], steps]) * (0.5 / FRAME_RATE)


def drive(rng: np.random.Generator, road: Road, s: np.ndarray) -> Motion:
  """Drives the camera along the right-hand lane, with sway and bounce.

  Args:
    rng: decides sway and bounce.
    road: the road.
    s: [N] arc lengths, metres.
  """

  def wander(size, *waves):
    total = 0
    for wave in waves:
      turns = s / (wave * rng.uniform(0.8, 1.2)) + rng.random()
      total += size / len(waves) * np.sin(2 * np.pi * turns)
    return total

  lateral = -LANE + wander(0.3, 45, 80)
  x, y, heading = road.pose(s, lateral)
  yaw = heading + wander(0.03, 31, 53)
  pitch = wander(0.006, 13, 19)
  roll = wander(0.006, 17, 29)
  height = _CAMERA_HEIGHT + wander(0.015, 13, 23)
  pose = np.tile(np.eye(4), (len(s), 1, 1))
  pose[:, :3, :3] = rotation(yaw, pitch, roll) @ _AXES
  pose[:, :3, 3] = np.stack([x, y, height], 1)
  return Motion(s=s, camera_to_world=pose)


# Camera axes (right, down, forward) in a car's (forward, left, up).
_AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def rotation(
  yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray
) -> np.ndarray:
  """Maps car axes (forward, left, up) to the world: Rz(yaw) Ry(pitch) Rx(roll).

  Args:
    yaw: [N] radians, from east towards north.
    pitch: [N] radians, positive nose down.
    roll: [N] radians, positive left side up.

  Returns:
    [N, 3, 3] float64.
  """
  cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
  cr, sr = np.cos(roll), np.sin(roll)
  rows = [
    [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
    [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
    [-sp, cp * sr, cp * cr],
  ]
  return np.stack([np.stack(row, -1) for row in rows], -2)
