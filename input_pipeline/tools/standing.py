"""In which frames of a drive the car stands: no motion, nothing to learn.

By the speed of the oxts packet where the frame has one, else by how little the
picture differs from a neighbour's.
"""

import collections
import concurrent.futures
import math

import numpy as np

from input_pipeline import images

PACKET_VALUES = 30
# Of lat, lon, alt, roll, pitch, yaw, vn, ve, vf, vl, vu, ...: vf and vl.
_FORWARD, _LEFTWARD = 8, 9

# Pictures are compared at this size, where noise has averaged out.
_HEIGHT, _WIDTH = 20, 64
# Mean absolute difference in grey levels of 0 .. 255 below which nothing moved.
# On a KITTI street a shift by one pixel gives 1.1, a metre per second about 2,
# noise of 4 grey levels 0.2 and an exposure 1 % longer 0.3. Traffic that
# passes a standing car gives more: such frames count as moving.
STILL_DIFFERENCE = 1.0


def read_speed(path):
  """Reads the speed over ground from an oxts packet.

  Args:
    path: a text file of KITTI's 30 values.

  Returns:
    Metres per second, finite: the length of forward and leftward velocity.

  Raises:
    ValueError: the packet cannot be read; the message names file and reason.
  """
  try:
    with open(path, encoding='utf-8', errors='replace') as file:
      words = file.read().split()
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror}') from error
  if len(words) != PACKET_VALUES:
    raise ValueError(
      f'{path}: an oxts packet has {PACKET_VALUES} values, found {len(words)}'
    )
  try:
    values = [float(word) for word in words]
  except ValueError as error:
    raise ValueError(f'{path}: no oxts packet: {error}') from None
  speed = math.hypot(values[_FORWARD], values[_LEFTWARD])
  if not math.isfinite(speed):
    raise ValueError(
      f'{path}: the velocities {words[_FORWARD]} and '
      f'{words[_LEFTWARD]} (values 9 and 10) give no speed'
    )
  return speed


def find_standing(folder, frames, *, neighbour, min_speed):
  """Finds the frames of a drive in which the car stands.

  Args:
    folder: an `examples.Folder`.
    frames: `splits.Example` of one drive, each frame once.
    neighbour: offset of the frame that a picture is compared with; it exists
      for every frame.
    min_speed: metres per second below which the car stands, by oxts.

  Returns:
    The set of their numbers, and a `Counter` of how many frames were judged by
    `oxts` and by `images`.

  Raises:
    ValueError: a packet or a picture cannot be read; the message names it.
  """
  standing, by_images = set(), []
  for example in frames:
    packet = folder.file('oxts', example)
    if packet is None:
      by_images.append(example)
      continue
    if read_speed(packet) < min_speed:
      standing.add(example.frame)
  pairs = {
    example.frame: (
      folder.file('image', example),
      folder.file('image', example, neighbour),
    )
    for example in by_images
  }
  pictures = _read_small(pairs.values())
  for frame, (path, other) in pairs.items():
    difference = np.abs(pictures[path] - pictures[other]).mean()
    if difference < STILL_DIFFERENCE:
      standing.add(frame)
  judged = collections.Counter(
    oxts=len(frames) - len(by_images), images=len(by_images)
  )
  return standing, +judged


def _read_small(pairs):
  """Reads pictures small and grey: path -> [20, 64] float32, 0 .. 255."""
  paths = list(dict.fromkeys(path for pair in pairs for path in pair))

  def read(path):
    colours = images.read_frame(path, height=_HEIGHT, width=_WIDTH)
    return colours.mean(axis=-1, dtype=np.float32)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    return dict(zip(paths, pool.map(read, paths), strict=True))
