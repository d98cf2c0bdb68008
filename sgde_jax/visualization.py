"""NumPy arrays in, pictures `[H, W, 3]` uint8 RGB out, PNG files written.

Colours and panels need Pillow alone; only plots import matplotlib.
"""

import contextlib
import dataclasses
import importlib
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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


# Name -> `[256, 3]` uint8, matplotlib's colour map of that name.
_MAPS = dict(
  zip(
    ('magma', 'turbo', 'inferno', 'bwr'),
    np.asarray(Image.open(pathlib.Path(__file__).with_name('colour_maps.png'))),
    strict=True,
  )
)


@dataclasses.dataclass(frozen=True)
class Scale:
  """A colour map over a range of values, and how the range is written.

  Attributes:
    colours: `magma`, `turbo`, `inferno` or `bwr`.
    low: the value of the first colour; smaller ones have it, too.
    high: that of the last.
    ends: the text at both ends of the colour bar.
  """

  colours: str
  low: float
  high: float
  ends: tuple[str, str]

  def colorize(self, values: np.ndarray) -> np.ndarray:
    """Returns the picture of values `[H, W]`."""
    span = self.high - self.low
    values = np.asarray(values, np.float64)
    share = (values - self.low) / (span if span > 0 else 1.0)
    index = np.clip(256 * share, 0, 255).astype(np.uint8)
    return _MAPS[self.colours][index]

  def colour_bar(self, count: int = 256) -> np.ndarray:
    """Returns the colours `[count, 3]` uint8 from low to high."""
    return _MAPS[self.colours][np.linspace(0, 255, count).astype(int)]


def inverse_depth_scale(
  inverse_depth: np.ndarray, *, vmax: float | None = None, metric: bool = False
) -> Scale:
  """Returns the scale from the minimum to the 95th percentile (Monodepth2).

  It spans at least a factor of two, so that a flat map looks flat.

  Args:
    inverse_depth: any shape and unit; a disparity gives the same picture.
    vmax: the value shown brightest, to make pictures comparable.
    metric: whether the unit is 1/metres; if so, the ends are depths.
  """
  high = np.percentile(inverse_depth, 95) if vmax is None else vmax
  low = min(np.min(inverse_depth), high / 2)
  ends = f'{low:.3g}', f'{high:.3g}'
  if metric:
    ends = tuple(f'{1 / value:.3g} m' for value in (low, high))
  return Scale('magma', float(low), float(high), ends)


def error_scale(vmax: float = 0.5) -> Scale:
  """Returns the scale of relative errors: blue at 0, red from `vmax` on."""
  return Scale('turbo', 0.0, vmax, ('0', f'{100 * vmax:.3g} %'))


def difference_scale(difference: np.ndarray, *, least: float = 0.0) -> Scale:
  """Returns a scale of signed values, symmetric around white at zero.

  It ends at the 95th percentile of the magnitudes that are not zero, or at
  `least` if that is larger.
  """
  magnitudes = np.abs(difference[difference != 0])
  limit = np.percentile(magnitudes, 95) if magnitudes.size else 1.0
  limit = float(max(limit, least))
  ends = f'{-limit:.2g}', f'+{limit:.2g}'
  return Scale('bwr', -limit, limit, ends)


def colorize_inverse_depth(
  inverse_depth: np.ndarray, *, vmax: float | None = None
) -> np.ndarray:
  """Colours `[H, W]` by its `inverse_depth_scale`; bright is near."""
  return inverse_depth_scale(inverse_depth, vmax=vmax).colorize(inverse_depth)


def colorize_depth(
  depth: np.ndarray, *, scale: Scale | None = None
) -> np.ndarray:
  """Colours true depth, sparse or dense, as `colorize_inverse_depth` does.

  Points of a sparse scan are widened to make them visible; the nearest wins
  where they overlap.

  Args:
    depth: `[H, W]`, 0 = no measurement, shown grey.
    scale: of inverse depths; by default that of the measurements.
  """
  measured = depth > 0
  inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=measured)
  if scale is None:
    known = inverse[measured] if measured.any() else np.array([0.0, 1.0])
    scale = inverse_depth_scale(known)
  values, shown = _widen_if_sparse(inverse, measured)
  return np.where(shown[..., None], scale.colorize(values), _NOTHING)


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
  colours = error_scale(vmax).colorize(error)
  return np.where(shown[..., None], colours, _NOTHING)


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


@dataclasses.dataclass(frozen=True)
class Cell:
  """A picture of a panel.

  Attributes:
    image: `[h, w, 3]` uint8.
    caption: the line above it.
    scale: that of its colours, drawn below it.
    labels: the train ids that it shows, for the legend of the classes.
  """

  image: np.ndarray
  caption: str
  scale: Scale | None = None
  labels: np.ndarray | None = None


def panel(rows: Sequence[Sequence[Cell]]) -> np.ndarray:
  """Draws rows of captioned pictures with their colour bars and a legend.

  All pictures are resized to the size of the largest. Shorter rows end with
  empty cells.
  """
  cells = [cell for row in rows for cell in row]
  height, width = max((cell.image.shape[:2] for cell in cells), key=np.prod)
  font = ImageFont.load_default(max(10, min(height // 10, width // 24)))
  band, gap = int(font.size) + 8, 4
  heights = [
    band * (1 + any(cell.scale for cell in row)) + height for row in rows
  ]
  total = max(map(len, rows)) * (width + gap) + gap
  legend = _draw_legend(cells, total, font)
  size = total, sum(heights) + gap + len(legend)
  picture = Image.new('RGB', size, 'white')
  draw = ImageDraw.Draw(picture)
  for i, row in enumerate(rows):
    for j, cell in enumerate(row):
      left, top = gap + j * (width + gap), sum(heights[:i])
      place = left + 2, top + band // 2
      draw.text(place, cell.caption, 'black', font, anchor='lm')
      image = Image.fromarray(cell.image).resize((width, height))
      picture.paste(image, (left, top + band))
      frame = left - 1, top + band - 1, left + width, top + band + height
      draw.rectangle(frame, outline=(208, 208, 208))
      if cell.scale:
        _draw_bar(picture, cell.scale, (left, top + band + height), width, font)
  picture.paste(Image.fromarray(legend), (0, size[1] - len(legend)))
  return np.asarray(picture)


def draw_trajectories(
  trajectories: Mapping[str, np.ndarray], *, title: str, unit: str = 'metres'
) -> np.ndarray:
  """Plots trajectories from above, x to the right and z ahead, equal axes.

  Takes label -> `[N, 4, 4]` camera to world in the unit. A dot marks where each
  trajectory begins.
  """
  with figure(figsize=(7, 7), layout='constrained') as plot:
    axes = plot.add_subplot()
    for label, poses in trajectories.items():
      x, z = poses[:, 0, 3], poses[:, 2, 3]
      (line,) = axes.plot(x, z, label=label)
      axes.plot(x[0], z[0], 'o', color=line.get_color())
    axes.set_aspect('equal', adjustable='datalim')
    axes.set_xlabel(f'x, {unit}')
    axes.set_ylabel(f'z, {unit}')
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    plot.canvas.draw()
    return np.array(plot.canvas.buffer_rgba())[..., :3]


@contextlib.contextmanager
def figure(**options: Any) -> Iterator[Any]:
  """Yields a new `matplotlib.figure.Figure`, to be drawn inside the context.

  It has matplotlib's own settings, whatever the user's matplotlibrc sets, and
  a canvas that needs no display, whatever MPLBACKEND names.
  """
  _import_matplotlib()
  import matplotlib.backends.backend_agg
  import matplotlib.figure
  import matplotlib.style

  with matplotlib.style.context('default'):
    plot = matplotlib.figure.Figure(**options)
    matplotlib.backends.backend_agg.FigureCanvasAgg(plot)
    yield plot


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes `[H, W, 3]` or `[H, W]` uint8 to a PNG file, whole or not at all.

  The file's folder is made.
  """
  with files.whole_file(path) as partial:
    Image.fromarray(image).save(partial, format='PNG')


def _draw_bar(picture, scale, place, width, font):
  """Draws a colour bar between the texts of its ends."""
  draw, (left, top) = ImageDraw.Draw(picture), place
  band = int(font.size) + 8
  low, high = (draw.textlength(text, font) for text in scale.ends)
  middle, right = top + band // 2, left + width - 2
  draw.text((left + 2, middle), scale.ends[0], 'black', font, anchor='lm')
  draw.text((right, middle), scale.ends[1], 'black', font, anchor='rm')
  start, end = left + 2 + round(low) + 4, right - round(high) - 4
  if end > start:
    colours = np.tile(scale.colour_bar(end - start), (band - 8, 1, 1))
    picture.paste(Image.fromarray(colours), (start, top + 4))


def _draw_legend(cells, width, font):
  """Returns the colours and names of all classes shown, `[h, width, 3]`."""
  shown = [np.unique(c.labels) for c in cells if c.labels is not None]
  names = [
    (name, colour)
    for label, (name, colour) in enumerate(
      zip(cityscapes.NAMES, cityscapes.COLOURS, strict=True)
    )
    if any(label in labels for labels in shown)
  ]
  side = int(font.size)
  band, places, x, y = side + 6, [], 4, 0
  for name, colour in names:
    entry = side + 4 + round(font.getlength(name)) + 12
    if x + entry > width and x > 4:
      x, y = 4, y + band
    places.append((x, y, name, colour))
    x += entry
  height = y + band if names else 0
  picture = Image.new('RGB', (width, height), 'white')
  draw = ImageDraw.Draw(picture)
  for x, y, name, colour in places:
    draw.rectangle((x, y + 1, x + side - 1, y + side), colour, 'black')
    place = x + side + 4, y + 1 + side // 2
    draw.text(place, name, 'black', font, anchor='lm')
  return np.asarray(picture)


def _import_matplotlib():
  """Imports matplotlib, also where it does not know MPLBACKEND's backend.

  A command started in a notebook inherits such a name, at which the import
  fails.
  """
  backend = os.environ.pop('MPLBACKEND', None)
  if backend is None:
    return
  is_new = 'matplotlib' not in sys.modules
  try:
    matplotlib = importlib.import_module('matplotlib')
  finally:
    os.environ['MPLBACKEND'] = backend
  if is_new:  # So that the user's own plots have it, as after a usual import.
    with contextlib.suppress(ValueError):
      matplotlib.rcParams['backend'] = backend


def _widen_if_sparse(values, shown):
  """Spreads the largest value of each neighbourhood if values are sparse."""
  if shown.mean() >= _SPARSE_SHARE:
    return values, shown
  largest = ImageFilter.MaxFilter(2 * _POINT_RADIUS + 1)
  marked = np.where(shown, values, -1.0).astype(np.float32)
  spread = np.asarray(Image.fromarray(marked).filter(largest))
  return spread, spread >= 0
