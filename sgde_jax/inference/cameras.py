"""What turns predictions into metres and points: a scale and intrinsics."""

import functools
import json
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from input_pipeline.sources import kitti

# Where a KITTI drive has its frames: folder of the camera, below it `data`.
CAMERA_FOLDERS = {'image_02': 2, 'image_03': 3}
Size = tuple[int, int]  # (height, width)
Intrinsics = Callable[[pathlib.Path, Size], np.ndarray]


def in_drive(folder: pathlib.Path) -> bool:
  """Returns whether a folder is a KITTI drive's `image_02/data`, say."""
  return folder.name == 'data' and folder.parent.name in CAMERA_FOLDERS


def read_scale(text: str | None, workdir: str | os.PathLike) -> float | None:
  """Returns `--scale` as metres per unit of the network; None if not given.

  `evaluation` stands for the median ratio of truth and prediction that
  `--mode=evaluate` stored in the workdir, which is logged with its deviation.

  Raises:
    FileNotFoundError: if the workdir has no evaluation.
    ValueError: if it is no positive number.
  """
  if not text:
    return None
  if text != 'evaluation':
    return _positive(text, '--scale')
  path = pathlib.Path(workdir, 'evaluation', 'metrics.json')
  if not path.is_file():
    raise FileNotFoundError(
      f'--scale=evaluation: there is no {path}: run --mode=evaluate first'
    )
  figures = json.loads(path.read_text())
  logging.info(
    'scale %.4g, the median over %d images, relative deviation %.3f, of step '
    '%d by %s',
    *(figures[name] for name in ('ratio', 'images', 'ratio_std', 'step')),
    path,
  )
  return _positive(figures['ratio'], str(path))


def open_intrinsics(
  paths: Iterable[pathlib.Path],
  *,
  numbers: Sequence[str] | None = None,
  fov: float | None = None,
) -> Intrinsics:
  """Returns a function of an image's path and size to `[3, 3]`, in pixels.

  Args:
    paths: the images or videos.
    numbers: fx, fy, cx and cy in pixels of the images, from `--intrinsics`.
    fov: the horizontal field of view in degrees, from `--fov`, for square
      pixels and a principal point in the middle.

  Raises:
    ValueError: without numbers and field of view, if a path is not in KITTI's
      raw layout with the calibration of its date; or if they are wrong.
  """
  if numbers:
    if len(numbers) != 4:
      raise ValueError(f'--intrinsics={",".join(numbers)}: give fx,fy,cx,cy')
    fx, fy = (_positive(text, '--intrinsics') for text in numbers[:2])
    cx, cy = map(float, numbers[2:])
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return lambda path, size: matrix
  if fov is not None:
    if not 0 < fov < 180:
      raise ValueError(f'--fov={fov:g}: degrees between 0 and 180')
    return lambda path, size: _centred(math.radians(fov), size)
  read = functools.cache(kitti.read_calibration)

  def from_calibration(path, size):
    folder = path.absolute().parent
    date, camera = folder.parents[2], CAMERA_FOLDERS[folder.parent.name]
    height, width = size
    return kitti.intrinsics(
      read(date), camera=camera, height=height, width=width
    )

  for folder in sorted({path.absolute().parent for path in paths}):
    date = folder.parents[2] if in_drive(folder) else None
    if not (date and (date / kitti.CAMERA_FILE).is_file()):
      raise ValueError(
        f"--write=ply needs the camera's intrinsics, and {folder} is not in "
        "KITTI's raw layout with its calibration: give "
        '--intrinsics=fx,fy,cx,cy in pixels, or --fov=DEGREES, the horizontal '
        'field of view'
      )
    from_calibration(folder / 'frame', (1, 1))  # Raises if it is damaged.
  return from_calibration


def _centred(fov, size):
  height, width = size
  focal = width / 2 / math.tan(fov / 2)
  centre = (width - 1) / 2, (height - 1) / 2
  return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])


def _positive(text, what):
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value < math.inf:
    raise ValueError(f'{what}: {text!r} is not a positive number')
  return value
