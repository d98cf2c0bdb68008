"""NumPy arrays in, pictures `[H, W, 3]` uint8 RGB out, PNG files written.

Colour maps and plots come from matplotlib without its global state, drawing
from Pillow, so that every function is pure and safe on any thread.
"""

import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from input_pipeline import cityscapes, files

# Measurements sparser than this are points, not a surface.
_SPARSE_SHARE = 0.25
_POINT_RADIUS = 2
# Neither magma's black (far) nor turbo's indigo (no error).
_NOTHING = np.array((112, 112, 112), np.uint8)
# By label; 255 and all that is no class are black.
_COLOURS = np.zeros((256, 3), np.uint8)
_COLOURS[: cityscapes.NUM_CLASSES] = cityscapes.COLOURS


def colorize_inverse_depth(
  inverse_depth: np.ndarray, *, vmax: float | None = None
) -> np.ndarray:
  """Colours by magma up to the 95th percentile (Monodepth2); bright is near.

  Args:
    inverse_depth: `[H, W]`, any unit; a disparity gives the same picture.
    vmax: the value shown brightest, to make pictures comparable.
  """
  if vmax is None:
    vmax = np.percentile(inverse_depth, 95)
  return _colorize(inverse_depth, 'magma', inverse_depth.min(), vmax)


def colorize_depth(
  depth: np.ndarray, *, vmax: float | None = None
) -> np.ndarray:
  """Colours true depth, sparse or dense, as `colorize_inverse_depth` does.

  Points of a sparse scan are widened to make them visible; the nearest wins
  where they overlap.

  Args:
    depth: `[H, W]`, 0 = no measurement, shown grey.
    vmax: the inverse depth shown brightest; by default the 95th percentile of
      the measurements.
  """
  measured = depth > 0
  inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=measured)
  known = inverse[measured] if measured.any() else np.array([0.0, 1.0])
  if vmax is None:
    vmax = np.percentile(known, 95)
  values, shown = _widen_if_sparse(inverse, measured)
  colours = _colorize(values, 'magma', known.min(), vmax)
  return np.where(shown[..., None], colours, _NOTHING)


def colorize_error(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  valid: np.ndarray,
  *,
  vmax: float = 0.5,
) -> np.ndarray:
  """Colours relative depth error |prediction - truth| / truth, blue to red.

  Points of a sparse scan are widened; the largest error wins.

  Args:
    ground_truth: `[H, W]`, metres.
    prediction: `[H, W]`, metres, aligned with the truth.
    valid: `[H, W]` bool; the rest is grey.
    vmax: the error shown reddest.
  """
  truth = np.where(valid, ground_truth, 1.0)
  error = np.where(valid, np.abs(prediction - truth) / truth, 0.0)
  error, shown = _widen_if_sparse(error, valid)
  colours = _colorize(error, 'turbo', 0.0, vmax)
  return np.where(shown[..., None], colours, _NOTHING)


def colorize_difference(
  difference: np.ndarray, *, limit: float | None = None
) -> np.ndarray:
  """Colours signed differences: blue below zero, white at zero, red above.

  Args:
    difference: `[H, W]`.
    limit: the magnitude shown most saturated; by default the 95th percentile
      of the magnitudes that are not zero.
  """
  if limit is None:
    magnitudes = np.abs(difference[difference != 0])
    limit = np.percentile(magnitudes, 95) if magnitudes.size else 1.0
  return _colorize(difference, 'bwr', -limit, limit)


def colorize_labels(labels: np.ndarray) -> np.ndarray:
  """Colours train ids `[H, W]` uint8; unlabelled pixels (255) are black."""
  return _COLOURS[labels]


def overlay_labels(
  image: np.ndarray, labels: np.ndarray, *, opacity: float = 0.5
) -> np.ndarray:
  """Draws classes over an image; unlabelled pixels show the image.

  Args:
    image: `[H, W, 3]` uint8.
    labels: `[H, W]` uint8 train ids, 255 = unlabelled.
    opacity: of the classes' colours, in [0, 1].
  """
  colours = colorize_labels(labels)
  blended = np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8)
  known = labels != cityscapes.UNLABELLED
  return np.where(known[..., None], blended, image)


def draw_points(
  image: np.ndarray,
  points: np.ndarray,
  mask: np.ndarray,
  *,
  colour: tuple[int, int, int] = (0, 255, 0),
  radius: int = 1,
) -> np.ndarray:
  """Marks points by small squares in a copy of the image.

  Args:
    image: `[H, W, 3]` uint8.
    points: `[K, 2]`, (x, y) in pixels of the image.
    mask: `[K]` bool; False points are not drawn.
    colour: RGB.
    radius: pixels on each side of the point.
  """
  picture = Image.fromarray(image)
  draw = ImageDraw.Draw(picture)
  for x, y in np.rint(points[mask]).astype(int):
    draw.rectangle((x - radius, y - radius, x + radius, y + radius), colour)
  return np.asarray(picture)


def panel(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> np.ndarray:
  """Draws rows of images `[h, w, 3]` uint8, each under its caption.

  All images are resized to the size of the first. Shorter rows end with empty
  cells.
  """
  height, width = rows[0][0][0].shape[:2]
  font_size = max(10, min(height // 10, width // 24))
  band, gap = font_size + 8, 4
  columns = max(map(len, rows))
  size = columns * (width + gap) + gap, len(rows) * (band + height) + gap
  picture = Image.new('RGB', size, 'white')
  draw = ImageDraw.Draw(picture)
  font = ImageFont.load_default(font_size)
  for i, row in enumerate(rows):
    for j, (image, text) in enumerate(row):
      left, top = gap + j * (width + gap), i * (band + height)
      draw.text((left + 2, top + band // 2), text, 'black', font, anchor='lm')
      cell = Image.fromarray(image).resize((width, height))
      picture.paste(cell, (left, top + band))
  return np.asarray(picture)


def draw_trajectories(
  trajectories: Mapping[str, np.ndarray], *, title: str
) -> np.ndarray:
  """Plots trajectories from above, x to the right and z ahead, equal axes.

  Takes label -> `[N, 4, 4]` camera to world, metres. A dot marks where each
  trajectory begins.
  """
  # Half of matplotlib's import time, which pictures do not need.
  from matplotlib import figure as figures
  from matplotlib.backends import backend_agg

  figure = figures.Figure(figsize=(7, 7), layout='constrained')
  canvas = backend_agg.FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  for label, poses in trajectories.items():
    x, z = poses[:, 0, 3], poses[:, 2, 3]
    (line,) = axes.plot(x, z, label=label)
    axes.plot(x[0], z[0], 'o', color=line.get_color())
  axes.set_aspect('equal', adjustable='datalim')
  axes.set_xlabel('x, metres')
  axes.set_ylabel('z, metres')
  axes.set_title(title)
  axes.grid(alpha=0.3)
  axes.legend()
  canvas.draw()
  return np.array(canvas.buffer_rgba())[..., :3]


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes `[H, W, 3]` or `[H, W]` uint8 to a PNG file, whole or not at all.

  The file's folder is made.
  """
  with files.whole_file(path) as partial:
    Image.fromarray(image).save(partial, format='PNG')


def _colorize(values, name, vmin, vmax):
  span = vmax - vmin
  values = np.asarray(values, np.float64)
  scaled = np.clip((values - vmin) / (span if span > 0 else 1.0), 0.0, 1.0)
  return matplotlib.colormaps[name](scaled, bytes=True)[..., :3]


def _widen_if_sparse(values, shown):
  """Spreads the largest value of each neighbourhood if values are sparse."""
  if shown.mean() >= _SPARSE_SHARE:
    return values, shown
  largest = ImageFilter.MaxFilter(2 * _POINT_RADIUS + 1)
  marked = np.where(shown, values, -1.0).astype(np.float32)
  spread = np.asarray(Image.fromarray(marked).filter(largest))
  return spread, spread >= 0
