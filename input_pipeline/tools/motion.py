"""Finds the frames in which the car stands still, which teach nothing.

Uses the speed in the frame's oxts packet if it has one, else the difference
between the picture and a neighbour's.
"""

import collections
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from input_pipeline import images, progress, splits
from input_pipeline.sources import kitti

_PACKET_VALUES = 30
# Of lat, lon, alt, roll, pitch, yaw, vn, ve, vf, vl, vu, ...: vf and vl.
_FORWARD, _LEFTWARD = 8, 9

# Pictures are compared at this size, where noise has averaged out.
_HEIGHT, _WIDTH = 20, 64
# Mean absolute difference in grey levels of 0 .. 255 below which nothing moved.
# On a KITTI street a shift by one pixel gives 1.1, a metre per second about 2,
# noise of 4 grey levels 0.2 and an exposure 1 % longer 0.3. Traffic passing a
# standing car causes more, so such frames count as moving.
_STILL_DIFFERENCE = 1.0


def read_speed(path: str | os.PathLike) -> float:
  """Reads the speed over ground, in metres per second, from an oxts packet.

  Raises:
    ValueError: if the file does not hold KITTI's 30 numbers with finite forward
      and leftward velocities.
  """
  text = pathlib.Path(path).read_text(encoding='utf-8', errors='replace')
  try:
    values = list(map(float, text.split()))
  except ValueError:
    values = []
  speed = math.nan
  if len(values) == _PACKET_VALUES:
    speed = math.hypot(values[_FORWARD], values[_LEFTWARD])
  if not math.isfinite(speed):
    raise ValueError(
      f'{path} is not an oxts packet: it needs {_PACKET_VALUES} numbers, of '
      'which numbers 9 and 10 are finite velocities'
    )
  return speed


def find_standing(
  folder: kitti.Folder,
  frames: Sequence[splits.Example],
  *,
  neighbour: int,
  min_speed: float,
) -> tuple[set[int], collections.Counter]:
  """Finds the frames of a drive in which the car stands.

  Args:
    folder: the KITTI raw folder.
    frames: examples of one drive, each frame once.
    neighbour: offset of the frame that a picture is compared with; it exists
      for every frame.
    min_speed: metres per second below which the car stands, by oxts.

  Returns:
    Their numbers, and how many frames were judged by `oxts` and by `images`.

  Raises:
    ValueError: if a packet or a picture cannot be read.
  """
  standing, pairs = set(), {}
  for example in frames:
    packet = folder.file('oxts', example)
    if packet is None:
      offsets = 0, neighbour
      pairs[example.frame] = [
        folder.file('image', example, offset) for offset in offsets
      ]
    elif read_speed(packet) < min_speed:
      standing.add(example.frame)
  paths = list(dict.fromkeys(path for pair in pairs.values() for path in pair))

  def read(path):
    picture = images.read_frame(path, height=_HEIGHT, width=_WIDTH)
    return picture.mean(axis=-1, dtype=np.float32)

  grey = dict(zip(paths, progress.in_order(read, paths), strict=True))
  for frame, (path, other) in pairs.items():
    if np.abs(grey[path] - grey[other]).mean() < _STILL_DIFFERENCE:
      standing.add(frame)
  judged = {'oxts': len(frames) - len(pairs), 'images': len(pairs)}
  return standing, +collections.Counter(judged)
