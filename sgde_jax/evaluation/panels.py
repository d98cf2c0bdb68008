"""Panels of one example, for training and evaluation."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from PIL import Image

from sgde_jax import metrics, visualization

_COLUMNS = 3


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
  mask = np.repeat(example['automask'][..., None], 3, axis=2)
  coarse = visualization.colorize_inverse_depth(disparity)
  cells = [
    (frame, 'frame'),
    (coarse, 'coarse disparity'),
    (_to_uint8(example['rebuilt'][0]), 'rebuilt from source 1'),
    (255 * mask.astype(np.uint8), 'auto-mask (white: used)'),
  ]
  if 'labels' in example:
    cells += [
      (_draw_classes(frame, example['labels']), 'predicted classes'),
      (_draw_classes(frame, example['true_labels']), 'labels'),
    ]
  if 'enhanced' in example:
    cells += _enhanced_cells(frame, disparity, example)
  for name in sorted(example, reverse=True):
    if name.startswith('attention_'):
      cells += _attention_cells(frame, example['queries'], example[name], name)
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
    `[H, W, 3]` uint8: frame, inverse depth, classes; error, and the truth.
  """
  inverse_depth = 1 / aligned.prediction
  near = float(np.percentile(inverse_depth, 95))
  predicted = visualization.colorize_inverse_depth(inverse_depth, vmax=near)
  truth = visualization.colorize_depth(ground_truth, vmax=near)
  error = visualization.colorize_error(
    ground_truth, aligned.prediction, aligned.valid
  )
  above = [(frame, f'input {captions[0]}'), (predicted, 'inverse depth')]
  below = [
    (error, f'error, abs_rel {captions[1]}'),
    (truth, 'true inverse depth'),
  ]
  if labels is not None:
    above.append((_draw_classes(frame, labels), 'predicted classes'))
  if true_labels is not None:
    below.append((_draw_classes(frame, true_labels), 'labels'))
  return visualization.panel([above, below])


def _enhanced_cells(frame, disparity, example):
  """Draws SEEM's points, its result and the difference from the coarse one."""
  mask, enhanced = example['point_mask'], example['enhanced'][..., 0]
  points = visualization.draw_points(frame, example['points'], mask, radius=0)
  shown = visualization.colorize_inverse_depth(
    enhanced, vmax=float(np.percentile(disparity, 95))
  )
  change = visualization.colorize_difference(enhanced - disparity)
  return [
    (points, f'edge points drawn ({int(mask.sum())})'),
    (shown, 'enhanced disparity'),
    (change, 'enhanced - coarse (red: nearer)'),
  ]


def _attention_cells(frame, queries, maps, name):
  """Draws a cell per query pixel: its attention weights over the frame."""
  caption = f'attention, level {name.removeprefix("attention_")}'
  cells = []
  for query, weights in zip(queries, maps, strict=True):
    heat = np.clip(weights / weights.max(), 0, 1).astype(np.float32)
    heat = Image.fromarray(heat).resize(
      frame.shape[1::-1], Image.Resampling.BILINEAR
    )
    colours = matplotlib.colormaps['inferno'](np.asarray(heat), bytes=True)
    mixed = np.rint(0.35 * frame + 0.65 * colours[..., :3]).astype(np.uint8)
    mixed = visualization.draw_points(
      mixed, query[None], np.array([True]), colour=(0, 255, 255), radius=2
    )
    cells.append((mixed, caption))
  return cells


def _draw_classes(frame, labels):
  """Draws classes over the frame at the labels' size."""
  frame = np.asarray(Image.fromarray(frame).resize(labels.shape[::-1]))
  return visualization.overlay_labels(frame, labels, opacity=0.7)


def _to_uint8(image):
  return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
