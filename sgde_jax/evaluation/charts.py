"""Fragments of HTML: line charts as SVG, bars, tables, pictures.

Series are drawn in the order given: the run, then a baseline.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from input_pipeline import cityscapes
from sgde_jax import visualization

_SERIES = ('run', 'baseline')  # Classes of the page's style.
_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 8, 22  # Margins of the plot.
_MOST_POINTS = 300  # Of a line; longer ones are averaged.
_MOST_DOTS = 60
_SMALL = 480  # Pictures narrower than this are enlarged without smoothing.

Points = Sequence[tuple[float, float]]


def lines(title: str, series: Mapping[str, Points]) -> str:
  """Draws series of (step, value), of which one may be empty, as a figure."""
  series = {name: _thin(points) for name, points in series.items()}
  points = [point for part in series.values() for point in part]
  steps, values = zip(*points, strict=True)
  x_low, x_high = min(steps), max(max(steps), min(steps) + 1)
  y_ticks = _ticks(*_widen(min(values), max(values)))
  y_low, y_high = y_ticks[0], y_ticks[-1]
  plot_width = _WIDTH - _LEFT - _RIGHT
  plot_height = _HEIGHT - _TOP - _BOTTOM

  def place(step, value):
    x = _LEFT + plot_width * (step - x_low) / (x_high - x_low)
    y = _TOP + plot_height * (y_high - value) / (y_high - y_low)
    return f'{x:.1f}', f'{y:.1f}'

  parts = []
  for value in y_ticks:
    _, y = place(x_low, value)
    right = _WIDTH - _RIGHT
    parts.append(f'<path class="rule" d="M{_LEFT} {y}H{right}"/>')
    parts.append(
      f'<text x="{_LEFT - 6}" y="{y}" dy="4" text-anchor="end">{value:.4g}'
      '</text>'
    )
  for step in _ticks(x_low, x_high):
    if x_low <= step <= x_high:
      x, _ = place(step, y_low)
      parts.append(
        f'<text x="{x}" y="{_HEIGHT - 6}" text-anchor="middle">{step:.6g}'
        '</text>'
      )
  for kind, (name, part) in zip(_SERIES, series.items(), strict=False):
    if not part:  # A term that only the other run has.
      continue
    path = ' '.join(','.join(place(*point)) for point in part)
    parts.append(f'<polyline class="{kind}" points="{path}"/>')
    if len(part) <= _MOST_DOTS:
      for step, value in part:
        x, y = place(step, value)
        text = html.escape(f'{name}, step {step:g}: {value:.5g}')
        parts.append(
          f'<circle class="{kind}" cx="{x}" cy="{y}" r="2.5"><title>{text}'
          '</title></circle>'
        )
  label = html.escape(title)
  return (
    f'<figure><b>{label}</b><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
    f' aria-label="{label}">{"".join(parts)}</svg></figure>'
  )


def bars(
  rows: Mapping[str, Sequence[float | None]],
  heads: Sequence[str],
  *,
  notes: Mapping[str, str] | None = None,
  note_head: str = '',
) -> str:
  """Draws a row of bars for each name, one per series, with their numbers.

  Args:
    rows: name -> a value per series, or None. A series without values is left
      out.
    heads: of the columns of numbers, one per series.
    notes: name -> the text of a last column.
    note_head: the head of that column.
  """
  columns = [
    i
    for i in range(len(heads))
    if any(row[i] is not None for row in rows.values())
  ]
  most = max((v for row in rows.values() for v in row if v), default=1.0)
  body = []
  for name, values in rows.items():
    drawn = ''.join(
      f'<span class="bar {_SERIES[i]}"'
      f' style="width:{100 * (values[i] or 0) / most:.1f}%"></span>'
      for i in columns
    )
    cells = [_swatch(name) + html.escape(name), drawn]
    cells += [number(values[i]) for i in columns]
    if notes is not None:
      cells.append(html.escape(notes.get(name, '')))
    cells = [f'<td>{cell}</td>' for cell in cells]
    cells[1] = cells[1].replace('<td>', '<td class="fill">')
    body.append(f'<tr>{"".join(cells)}</tr>')
  last = [] if notes is None else [note_head]
  texts = ['', '', *(heads[i] for i in columns), *last]
  head = ''.join(f'<th>{html.escape(text)}</th>' for text in texts)
  return (
    f'<div class="scroll"><table class="bars"><thead><tr>{head}</tr></thead>'
    f'<tbody>{"".join(body)}</tbody></table></div>'
  )


def table(
  heads: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = ''
) -> str:
  """Formats rows of HTML under heads of text."""
  head = ''.join(f'<th>{html.escape(text)}</th>' for text in heads)
  body = ''.join(
    f'<tr>{"".join(f"<td>{cell}</td>" for cell in row)}</tr>' for row in rows
  )
  return (
    f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
    f'<tbody>{body}</tbody></table></div>'
  )


def number(value: float | None) -> str:
  """Formats a figure; `-` for None."""
  if value is None:
    return '-'
  return f'{value:.4f}' if abs(value) < 100 else f'{value:.5g}'


def confusion(matrix: np.ndarray) -> str:
  """Draws a confusion matrix `[19, 19]`: shares of each true class, in %.

  Only the classes that occur in truth or prediction are shown.
  """
  shown = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
  names = [cityscapes.NAMES[index] for index in shown]
  totals = matrix.sum(axis=1)
  head = ''.join(f'<th><span>{name}</span></th>' for name in names)
  body = []
  for index, name in zip(shown, names, strict=True):
    cells = []
    for share in 100 * matrix[index, shown] / max(totals[index], 1):
      strong = ' class="strong"' if share > 55 else ''
      text = f'{share:.0f}' if share >= 0.5 else ''
      cells.append(f'<td{strong} style="--share:{share:.1f}%">{text}</td>')
    all_pixels = f'<td style="--share:0%">{totals[index]:,}</td>'
    body.append(
      f'<tr><th>{_swatch(name)}{name}</th>{"".join(cells)}{all_pixels}</tr>'
    )
  return (
    f'<div class="scroll"><table class="matrix"><thead><tr><th></th>{head}'
    f'<th><span>pixels</span></th></tr></thead><tbody>{"".join(body)}</tbody>'
    '</table></div>'
  )


def picture(image: np.ndarray, alt: str, *, photo: bool = False) -> str:
  """Embeds an image `[H, W, 3]` uint8, a photo as JPEG, others as PNG."""
  buffer, kind = io.BytesIO(), 'jpeg' if photo else 'png'
  options = {'quality': 90, 'subsampling': 0} if photo else {'optimize': True}
  Image.fromarray(image).save(buffer, format=kind, **options)
  code = base64.b64encode(buffer.getvalue()).decode()
  height, width = image.shape[:2]
  small = ' class="small"' if width < _SMALL else ''
  return (
    f'<img{small} src="data:image/{kind};base64,{code}" width="{width}"'
    f' height="{height}" alt="{html.escape(alt)}">'
  )


def compare(
  left: tuple[np.ndarray, str],
  right: tuple[np.ndarray, str],
  *,
  caption: str,
  photo: bool = False,
  below: str = '',
) -> str:
  """Lays two images of one size over each other, with a slider between them.

  Args:
    left: image and name of what is seen left of the slider.
    right: of what is seen right of it.
    caption: the text below.
    photo: as for `picture`.
    below: HTML after the caption.
  """
  under, over = (picture(*part, photo=photo) for part in (left, right))
  over = over.replace('<img', '<div class="over"><img') + '</div>'
  names = [html.escape(name) for _, name in (left, right)]
  stage = (
    f'<div class="stage">{under}{over}<i></i>'
    f'<span class="left">{names[0]}</span>'
    f'<span class="right">{names[1]}</span>'
    '<input type="range" min="0" max="100" step="0.1" value="50"'
    f' aria-label="{names[0]} or {names[1]}"></div>'
  )
  drawn = figure(stage, caption, below)
  return drawn.replace('<figure>', '<figure class="compare">', 1)


def figure(picture: str, caption: str, below: str = '') -> str:
  """Puts a caption, and HTML after it, below a picture."""
  text = html.escape(caption)
  return f'<figure>{picture}<figcaption>{text}</figcaption>{below}</figure>'


def colour_bar(scale: visualization.Scale) -> str:
  """Draws a scale's colours between the texts of its ends."""
  stops = ', '.join(
    '#' + bytes(colour).hex() for colour in scale.colour_bar(16)
  )
  low, high = map(html.escape, scale.ends)
  gradient = f'linear-gradient(to right, {stops})'
  return (
    f'<div class="scale">{low}<i style="background:{gradient}"></i>{high}</div>'
  )


def class_legend(labels: Sequence[int]) -> str:
  """Names the colours of train ids."""
  names = [cityscapes.NAMES[i] for i in labels if i < cityscapes.NUM_CLASSES]
  entries = ''.join(f'<span>{_swatch(name)}{name}</span>' for name in names)
  return f'<p class="classes">{entries}</p>'


def _swatch(name):
  """Returns a square of a class's colour; '' for other names."""
  if name not in cityscapes.NAMES:
    return ''
  colour = bytes(cityscapes.COLOURS[cityscapes.NAMES.index(name)]).hex()
  return f'<i class="swatch" style="background:#{colour}"></i>'


def _thin(points):
  """Averages runs of neighbouring points where there are too many."""
  size = max(-(-len(points) // _MOST_POINTS), 1)
  parts = [points[i : i + size] for i in range(0, len(points), size)]
  return [tuple(np.mean(part, axis=0).tolist()) for part in parts]


def _widen(low, high):
  """Keeps rounding from looking like a trend."""
  least = 0.02 * max(abs(low), abs(high)) or 1.0
  short = max(least - (high - low), 0) / 2
  return low - short, high + short


def _ticks(low, high):
  """Returns three to six round numbers from below `low` to above `high`."""
  rough = (high - low) / 4
  power = 10 ** math.floor(math.log10(rough))
  step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
  first, last = math.floor(low / step), math.ceil(high / step)
  return [step * index for index in range(first, last + 1)]
