"""Files of predictions: their content, and which files they may replace."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from input_pipeline import cityscapes, files, images
from sgde_jax import visualization

# Where a KITTI drive has its frames.
FRAME_FOLDERS = (('image_02', 'data'), ('image_03', 'data'))


class DepthOutput:
  """`NAME.npy`, float32 inverse depth, and `NAME.png`, in colours."""

  suffixes = ('.npy', '.png')
  _brightest = None

  def predict(self, predictor, image: Image.Image) -> np.ndarray:
    """Returns the inverse depth of the image, turned upright."""
    return predictor(images.turn_upright(image)).inverse_depth

  def write(self, path: pathlib.Path, inverse_depth: np.ndarray) -> None:
    """Writes the PNG `path` and its array."""
    with files.whole_file(path.with_suffix('.npy')) as partial:
      np.save(partial, inverse_depth)
    picture = visualization.colorize_inverse_depth(inverse_depth)
    visualization.write_png(path, picture)

  def draw(self, frame: np.ndarray, inverse_depth: np.ndarray) -> np.ndarray:
    """Returns the picture for a video's next frame."""
    brightest = np.percentile(inverse_depth, 95)
    if self._brightest is not None:  # Follow the frames slowly: no flicker.
      brightest = 0.9 * self._brightest + 0.1 * brightest
    self._brightest = brightest
    return visualization.colorize_inverse_depth(inverse_depth, vmax=brightest)


class LabelOutput:
  """`NAME.png`, an 8-bit mask in the coding that the run was trained with."""

  suffixes = ('.png',)

  def __init__(self, coding: str):
    self._coding = coding

  def predict(self, predictor, image: Image.Image) -> np.ndarray:
    """Returns train ids over the pixels as they are stored."""
    return predictor.labels(image)

  def write(self, path: pathlib.Path, labels: np.ndarray) -> None:
    """Writes the mask `path`."""
    if self._coding == 'ids':
      labels = cityscapes.train_ids_to_ids(labels)
    visualization.write_png(path, labels)

  def draw(self, frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the picture for a video's frame: its classes over it."""
    return visualization.overlay_labels(frame, labels)


def check_targets(
  targets: Mapping[pathlib.Path, pathlib.Path], suffixes: tuple[str, ...]
) -> None:
  """Raises ValueError if results would replace the user's own files.

  Args:
    targets: input -> the file that its result goes to.
    suffixes: of the files that make a whole result, '' for a folder.
  """
  inputs = {os.path.realpath(path) for path in targets}
  first = {}
  for source, target in targets.items():
    found = [p for p in map(target.with_suffix, suffixes) if p.exists()]
    folder, problem = target.parent.resolve(), None
    if target in first:
      problem = f'{first[target]} has the same name'
    elif folder.parts[-2:] in FRAME_FOLDERS:
      problem = f'it would lie among the frames of {folder}'
    elif os.path.realpath(target) in inputs:
      problem = f'it would overwrite {target}'
    elif found and not _is_earlier(found, source, suffixes):
      problem = f'{found[0]} exists and is not an earlier result'
    if problem:
      raise ValueError(f'result of {source}: {problem}; use another --output')
    first[target] = source


def _is_earlier(found, source, suffixes):
  """Returns whether existing files are those of an earlier prediction."""
  if suffixes == LabelOutput.suffixes:  # Existing masks are kept.
    with Image.open(found[0]) as picture:
      return picture.mode in ('L', 'P')
  # Files next to the input, and half of a result elsewhere, may be the user's;
  # but an array is written before its picture.
  whole = len(found) == len(suffixes) or found[0].suffix == '.npy'
  return whole and found[0].parent.resolve() != source.parent.resolve()
