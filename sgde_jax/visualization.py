"""NumPy arrays in, uint8 RGB pictures out, PNG files written.

Colour maps and plots come from matplotlib without its global state, drawing
from Pillow, so that every function is pure and safe on any thread.
"""

import os
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from input_pipeline import cityscapes, files

_PATH = str | os.PathLike
_PALETTE = Sequence[tuple[int, int, int]] | np.ndarray
# Measurements sparser than this are points, not a surface.
_SPARSE_SHARE = 0.25
_POINT_RADIUS = 2
# Neither magma's black (far) nor turbo's indigo (no error).
_NOTHING = np.array((112, 112, 112), np.uint8)


def colorize_disparity(
  disparity: np.ndarray, *, vmax: float | None = None
) -> np.ndarray:
  """Magma, from the smallest disparity to the 95th percentile (Monodepth2).

  Args:
    disparity: `[H, W]`, finite, any unit.
    vmax: the disparity shown brightest, to make pictures comparable.

  Returns:
    `[H, W, 3]` uint8; bright is near.

  Raises:
    ValueError: the map is not `[H, W]` or not finite.
  """
  disparity = _finite_map(disparity, 'disparity')
  if vmax is None:
    vmax = np.percentile(disparity, 95)
  return _colorize(disparity, 'magma', disparity.min(), vmax)


def colorize_depth(
  depth: np.ndarray, *, vmax: float | None = None
) -> np.ndarray:
  """Depth truth in the colours of `colorize_disparity`, sparse or dense.

  Points of a sparse scan are widened until they can be seen; the nearest
  wins where they overlap.

  Args:
    depth: `[H, W]`, 0 = no measurement, shown grey.
    vmax: the disparity (1 / depth) shown brightest; by default the 95th
      percentile of those measured.

  Returns:
    `[H, W, 3]` uint8; bright is near.

  Raises:
    ValueError: the map is not `[H, W]`, not finite or negative.
  """
  depth = _finite_map(depth, 'depth')
  if (depth < 0).any():
    raise ValueError('depth must not be negative; 0 marks no measurement.')
  measured = depth > 0
  disparity = np.divide(1.0, depth, out=np.zeros_like(depth), where=measured)
  if vmax is None:
    vmax = np.percentile(disparity[measured], 95) if measured.any() else 1.0
  vmin = disparity[measured].min() if measured.any() else 0.0
  values, shown = _widen_if_sparse(disparity, measured)
  colours = _colorize(values, 'magma', vmin, vmax)
  return np.where(shown[..., None], colours, _NOTHING)


def colorize_error(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  valid: np.ndarray,
  *,
  vmax: float = 0.5,
) -> np.ndarray:
  """Relative depth error |prediction - truth| / truth, from blue to red.

  Points of a sparse scan are widened; the largest error wins.

  Args:
    ground_truth: `[H, W]`, metres.
    prediction: `[H, W]`, metres, aligned with the truth.
    valid: `[H, W]` bool; the rest is grey.
    vmax: the error shown reddest.

  Returns:
    `[H, W, 3]` uint8.

  Raises:
    ValueError: an error that counts is not finite.
  """
  truth = np.where(valid, ground_truth, 1.0)
  error = np.where(valid, np.abs(prediction - truth) / truth, 0.0)
  error = _finite_map(error, 'the relative error')
  error, shown = _widen_if_sparse(error, valid)
  colours = _colorize(error, 'turbo', 0.0, vmax)
  return np.where(shown[..., None], colours, _NOTHING)


def colorize_difference(
  difference: np.ndarray, *, limit: float | None = None
) -> np.ndarray:
  """Signed differences: blue below zero, white at zero, red above.

  Args:
    difference: `[H, W]`, finite.
    limit: the magnitude shown most saturated; by default the 95th percentile
      of the magnitudes that are not zero.

  Returns:
    `[H, W, 3]` uint8.

  Raises:
    ValueError: the map is not `[H, W]` or not finite.
  """
  difference = _finite_map(difference, 'difference')
  if limit is None:
    magnitudes = np.abs(difference[difference != 0])
    limit = np.percentile(magnitudes, 95) if magnitudes.size else 1.0
  return _colorize(difference, 'bwr', -limit, limit)


def colorize_labels(labels: np.ndarray, palette: _PALETTE) -> np.ndarray:
  """Semantic classes in their colours, unlabelled pixels black.

  Args:
    labels: `[H, W]` integer train ids, 255 = unlabelled.
    palette: an RGB colour, three of 0..255, per class.

  Returns:
    `[H, W, 3]` uint8.

  Raises:
    ValueError: a label is neither in the palette nor 255.
  """
  labels = np.asarray(labels)
  known = labels != cityscapes.UNLABELLED
  if (labels[known] < 0).any() or (labels[known] >= len(palette)).any():
    raise ValueError(
      f'labels must lie in 0..{len(palette) - 1} or be 255, got '
      f'{labels[known].min()}..{labels[known].max()}.'
    )
  colours = np.zeros((256, 3), np.uint8)
  colours[: len(palette)] = palette
  return colours[labels]


def overlay_labels(
  image: np.ndarray,
  labels: np.ndarray,
  palette: _PALETTE,
  *,
  opacity: float = 0.5,
) -> np.ndarray:
  """Semantic classes over an image; unlabelled pixels stay as they are.

  Args:
    image: `[H, W, 3]` uint8.
    labels: `[H, W]` integer train ids, 255 = unlabelled.
    palette: an RGB colour, three of 0..255, per class.
    opacity: of the classes' colours, in [0, 1].

  Returns:
    `[H, W, 3]` uint8.

  Raises:
    ValueError: as `colorize_labels`.
  """
  image = _uint8_image(image, 'image')
  colours = colorize_labels(labels, palette)
  blended = np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8)
  known = np.asarray(labels) != cityscapes.UNLABELLED
  return np.where(known[..., None], blended, image)


def draw_points(
  image: np.ndarray,
  points: np.ndarray,
  mask: np.ndarray,
  *,
  colour: tuple[int, int, int] = (0, 255, 0),
  radius: int = 1,
) -> np.ndarray:
  """Marks points by small squares.

  Args:
    image: `[H, W, 3]` uint8.
    points: `[K, 2]`, (x, y) in pixels of the image.
    mask: `[K]` bool; False points are not drawn.
    colour: RGB.
    radius: pixels on each side of the point.

  Returns:
    `[H, W, 3]` uint8, a copy.
  """
  picture = Image.fromarray(_uint8_image(image, 'image'))
  draw = ImageDraw.Draw(picture)
  for x, y in np.rint(np.asarray(points)[np.asarray(mask)]).astype(int):
    draw.rectangle((x - radius, y - radius, x + radius, y + radius), colour)
  return np.asarray(picture)


def panel(
  rows: Sequence[Sequence[np.ndarray]], captions: Sequence[Sequence[str]]
) -> np.ndarray:
  """A grid of images, each under its caption.

  Args:
    rows: images `[h, w, 3]` uint8; all are resized to the size of the first.
      A shorter row leaves its cells at the right empty.
    captions: a text for each image.

  Returns:
    `[H, W, 3]` uint8.

  Raises:
    ValueError: there is no image, or captions do not match the images.
  """
  lengths = [len(row) for row in rows]
  if not any(lengths) or lengths != [len(texts) for texts in captions]:
    raise ValueError(
      f'panel needs a caption for each image, got rows of {lengths} images '
      f'and {[len(texts) for texts in captions]} captions.'
    )
  first = next(image for row in rows for image in row)
  height, width = _uint8_image(first, 'image').shape[:2]
  font_size = max(10, min(height // 10, width // 24))
  band, gap = font_size + 8, 4
  picture = Image.new(
    'RGB',
    (
      max(lengths) * (width + gap) + gap,
      len(rows) * (band + height) + gap,
    ),
    'white',
  )
  draw = ImageDraw.Draw(picture)
  font = ImageFont.load_default(font_size)
  for i, (images, texts) in enumerate(zip(rows, captions, strict=True)):
    for j, (image, text) in enumerate(zip(images, texts, strict=True)):
      left, top = gap + j * (width + gap), i * (band + height)
      draw.text((left + 2, top + band // 2), text, 'black', font, anchor='lm')
      cell = Image.fromarray(_uint8_image(image, text))
      picture.paste(cell.resize((width, height)), (left, top + band))
  return np.asarray(picture)


def draw_trajectories(
  trajectories: Mapping[str, np.ndarray], *, title: str
) -> np.ndarray:
  """Plots trajectories from above, x to the right and z ahead, equal axes.

  Args:
    trajectories: label -> `[N, 4, 4]` camera to world, metres.
    title: text above.

  Returns:
    `[H, W, 3]` uint8; a dot marks where each begins.
  """
  figure = matplotlib.figure.Figure(figsize=(7, 7), layout='constrained')
  canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
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


def write_png(path: _PATH, image: np.ndarray) -> None:
  """Writes a PNG file that is either whole or absent.

  Args:
    path: the file; its folder is made.
    image: `[H, W, 3]` or `[H, W]` uint8.
  """
  with files.whole_file(path) as partial:
    Image.fromarray(image).save(partial, format='PNG')


def _colorize(values, name, vmin, vmax):
  span = vmax - vmin
  scaled = np.clip((values - vmin) / (span if span > 0 else 1.0), 0.0, 1.0)
  return matplotlib.colormaps[name](scaled, bytes=True)[..., :3]


def _widen_if_sparse(values, shown):
  """Spreads the largest value of each neighbourhood if few are shown."""
  if shown.mean() >= _SPARSE_SHARE:
    return values, shown
  largest = ImageFilter.MaxFilter(2 * _POINT_RADIUS + 1)
  marked = np.where(shown, values, -1.0).astype(np.float32)
  spread = np.asarray(Image.fromarray(marked).filter(largest))
  return spread, spread >= 0


def _finite_map(values, name):
  values = np.asarray(values, np.float64)
  if values.ndim != 2:
    raise ValueError(f'{name} must be [H, W], got {values.shape}.')
  if not np.isfinite(values).all():
    raise ValueError(f'{name} holds NaN or infinity.')
  return values


def _uint8_image(image, name):
  image = np.asarray(image)
  if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
    raise ValueError(
      f'{name} must be [H, W, 3] uint8, got {image.shape} {image.dtype}.'
    )
  return image
