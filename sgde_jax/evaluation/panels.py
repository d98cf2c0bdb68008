"""Panels of one example, for training and evaluation."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from sgde_jax import metrics, visualization

_COLUMNS = 3
# Of the disparity shown brightest: a change this small stays pale.
_LEAST_CHANGE = 0.05
_Cell = visualization.Cell


def training_panel(example: Mapping[str, np.ndarray]) -> np.ndarray:
  """Draws a training example and the output of each part of the network.

  Args:
    example: a row of the result of `steps.preview_step`.

  Returns:
    `[H, W, 3]` uint8: frame, disparity, rebuilt frame and auto-mask; with
    semantics the predicted and the true classes; with SEEM the edge points,
    the enhanced disparity and its difference from the coarse one; with
    attention a row of maps per level, each with its query pixel.
  """
  frame = _to_uint8(example['frame'])
  disparity = example['disparity'][..., 0]
  scale = visualization.inverse_depth_scale(disparity)
  mask = np.repeat(example['automask'][..., None], 3, axis=2)
  cells = [
    _Cell(frame, 'frame'),
    _Cell(scale.colorize(disparity), 'coarse disparity', scale),
    _Cell(_to_uint8(example['rebuilt'][0]), 'rebuilt from source 1'),
    _Cell(255 * mask.astype(np.uint8), 'auto-mask (white: used)'),
  ]
  if 'labels' in example:
    cells += [
      _class_cell(frame, example['labels'], 'predicted classes'),
      _class_cell(frame, example['true_labels'], 'labels'),
    ]
  if 'enhanced' in example:
    cells += _enhanced_cells(frame, disparity, scale, example)
  for name in sorted(example, reverse=True):
    if name.startswith('attention_'):
      cells += attention_cells(
        frame,
        example['queries'],
        example[name],
        level=int(name.removeprefix('attention_')),
      )
  return visualization.panel(
    [cells[i : i + _COLUMNS] for i in range(0, len(cells), _COLUMNS)]
  )


def evaluation_panel(
  frame: np.ndarray,
  ground_truth: np.ndarray,
  aligned: metrics.depth.AlignedDepth,
  *,
  labels: np.ndarray | None,
  true_labels: np.ndarray | None,
  captions: tuple[str, str],
) -> np.ndarray:
  """Draws the prediction for an evaluated image above its truth.

  Args:
    frame: `[h, w, 3]` uint8.
    ground_truth: `[H, W]` metres, 0 = none.
    aligned: the prediction on the truth's scale.
    labels: `[h, w]` uint8 predicted train ids, or None for no picture.
    true_labels: `[H, W]` uint8 train ids, or None for no picture.
    captions: the image's name, and its error.

  Returns:
    A panel of pictures at the truth's size: frame, inverse depth, classes;
    error, and the truth.
  """
  inverse_depth = 1 / aligned.prediction
  scale = visualization.inverse_depth_scale(inverse_depth, metric=True)
  truth = visualization.colorize_depth(ground_truth, scale=scale)
  error = visualization.colorize_error(
    ground_truth, aligned.prediction, aligned.valid
  )
  above = [
    _Cell(frame, f'input {captions[0]}'),
    _Cell(scale.colorize(inverse_depth), 'inverse depth', scale),
  ]
  below = [
    _Cell(error, f'error, abs_rel {captions[1]}', visualization.error_scale()),
    _Cell(truth, 'true inverse depth', scale),
  ]
  if labels is not None:
    above.append(_class_cell(frame, labels, 'predicted classes'))
  if true_labels is not None:
    below.append(_class_cell(frame, true_labels, 'labels'))
  return visualization.panel([above, below])


def attention_cells(
  frame: np.ndarray, queries: np.ndarray, maps: np.ndarray, *, level: int
) -> list[visualization.Cell]:
  """Draws where query pixels look: a cell for each, over the frame.

  Args:
    frame: `[H, W, 3]` uint8.
    queries: `[P, 2]` pixels (x, y), each marked in its cell.
    maps: `[P, h, w]` attention weights, which sum to 1.
    level: of the decoder, for the captions.
  """
  cells = []
  for query, weights in zip(queries, maps, strict=True):
    times = weights * weights.size  # The mean: equal attention is 1.
    high = float(times.max())
    scale = visualization.Scale('inferno', 0.0, high, ('0', f'{high:.3g} x'))
    heat = Image.fromarray(times.astype(np.float32)).resize(
      frame.shape[1::-1], Image.Resampling.BILINEAR
    )
    colours = scale.colorize(np.asarray(heat))
    mixed = np.rint(0.35 * frame + 0.65 * colours).astype(np.uint8)
    mixed = visualization.draw_points(
      mixed, query[None], np.array([True]), colour=(0, 255, 255), radius=2
    )
    cells.append(_Cell(mixed, f'attention / mean, level {level}', scale))
  return cells


def draw_classes(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Draws classes `[H, W]` over a frame of any size, at the classes' size."""
  frame = resize(frame, labels.shape)
  return visualization.overlay_labels(frame, labels, opacity=0.7)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an image `[h, w, 3]` uint8 to (height, width)."""
  return np.asarray(Image.fromarray(image).resize(size[::-1]))


def change_scale(
  change: np.ndarray, scale: visualization.Scale
) -> visualization.Scale:
  """Returns the scale of changes `[H, W]` of values that have `scale`."""
  least = _LEAST_CHANGE * scale.high
  return visualization.difference_scale(change, least=least)


def _enhanced_cells(frame, disparity, scale, example):
  """Draws SEEM's points, its result and the difference from the coarse one."""
  mask, enhanced = example['point_mask'], example['enhanced'][..., 0]
  points = visualization.draw_points(frame, example['points'], mask, radius=0)
  change = enhanced - disparity
  changes = change_scale(change, scale)
  caption = 'enhanced - coarse (red: nearer)'
  return [
    _Cell(points, f'edge points drawn ({int(mask.sum())})'),
    _Cell(scale.colorize(enhanced), 'enhanced disparity', scale),
    _Cell(changes.colorize(change), caption, changes),
  ]


def _class_cell(frame, labels, caption):
  return _Cell(draw_classes(frame, labels), caption, labels=labels)


def _to_uint8(image):
  return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
