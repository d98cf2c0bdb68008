"""Evidence at object borders: what an evaluation adds where there are labels.

Depth errors near semantic borders and per class, how sharp the depth is at
borders, and the IoU of the predicted classes; all as (sum, count) pairs that
add over images, batches and hosts. In a table an image's pairs are the columns
`NAME:sum` and `NAME:count`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import cityscapes, images
from sgde_jax import metrics

_GROUPS = ('border_1', 'border_3', 'border_5', 'away', 'thin')
_SCORES = (
  'boundary_f1',
  'boundary_recall/objects',
  'boundary_recall/thin',
  'miou',
)


def measure(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  aligned: metrics.AlignedDepth,
  labels: np.ndarray,
  *,
  predicted_labels: np.ndarray | None,
  dense: bool,
) -> dict[str, float]:
  """Measures one image.

  Args:
    ground_truth: `[H, W]` depth in metres, 0 = none.
    prediction: `[H, W]` depth, as predicted.
    aligned: `prediction` scaled to the truth and clipped.
    labels: `[H, W]` uint8 true train ids, 255 = unlabelled.
    predicted_labels: `[h, w]` uint8 at the network's size; None for none.
    dense: whether the truth measures every pixel, so that depth edges can be
      read off it.

  Returns:
    `NAME:sum` and `NAME:count` of `metrics.border_errors`, `class_errors` and
    `boundary_totals`, and of `iou_totals` with `predicted_labels`; `labelled`
    counts the images that have labels.
  """
  depths = ground_truth, aligned.prediction, aligned.valid, labels
  totals = metrics.border_errors(*depths).merge(metrics.class_errors(*depths))
  totals = totals.merge(
    metrics.boundary_totals(
      prediction, labels, dense_truth=ground_truth if dense else None
    )
  )
  if predicted_labels is not None:
    found = confusion(labels, predicted_labels)
    totals = totals.merge(metrics.iou_totals(found))
  labelled = bool((labels != cityscapes.UNLABELLED).any())
  totals = totals.merge(metrics.Totals({'labelled': (labelled, 1)}))
  return {
    f'{name}:{part}': float(value)
    for name, pair in totals.pairs.items()
    for part, value in zip(('sum', 'count'), pair, strict=True)
  }


def confusion(labels: np.ndarray, predicted_labels: np.ndarray) -> np.ndarray:
  """Confusion of an image's classes at the size of its labels.

  Args:
    labels: `[H, W]` uint8 true train ids, 255 = unlabelled.
    predicted_labels: `[h, w]` uint8, resized to the nearest neighbour.

  Returns:
    `[19, 19]` int64, see `metrics.confusion_matrix`.
  """
  height, width = labels.shape
  found = images.resize_nearest(predicted_labels, height=height, width=width)
  return metrics.confusion_matrix(labels, found)


def column_names(*, semantics: bool, dense: bool) -> list[str]:
  """The names that `measure` returns, in its order.

  Args:
    semantics: whether classes are predicted.
    dense: as for `measure`.
  """
  depth, labels = np.ones((2, 2)), np.zeros((2, 2), np.uint8)
  aligned = metrics.AlignedDepth(depth, depth > 0, 1.0)
  found = labels if semantics else None
  return list(
    measure(depth, depth, aligned, labels, predicted_labels=found, dense=dense)
  )


def summarize(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Pools the columns of all images.

  Args:
    rows: a mapping per image; what is no `NAME:sum` is passed over.

  Returns:
    name -> figure, see `metrics.Totals.finalize`; empty without such columns.
  """
  names = [
    name.removesuffix(':sum') for name in rows[0] if name.endswith(':sum')
  ]
  pairs = {
    name: tuple(
      float(np.sum([row[f'{name}:{part}'] for row in rows]))
      for part in ('sum', 'count')
    )
    for name in names
  }
  return metrics.Totals(pairs).finalize()


def format_table(figures: Mapping[str, float]) -> str:
  """Errors near borders, away from them and on thin classes, and the scores.

  Args:
    figures: what `summarize` returns, other names beside it.

  Returns:
    Lines of text; '' where labels were not asked for.
  """
  if 'labelled' not in figures:
    return ''
  lines = [
    f'{group:<10}{figures[f"abs_rel/{group}"]:>10.4f}'
    f'{figures[f"rmse/{group}"]:>10.4f}'
    for group in _GROUPS
    if f'abs_rel/{group}' in figures
  ]
  if not lines:
    return 'no evaluated image has labels'
  scores = [
    f'{name} {figures[name]:.4f}' for name in _SCORES if name in figures
  ]
  scores.append(f'labels on {100 * figures["labelled"]:.0f} % of the images')
  head = f'{"pixels":<10}{"abs_rel":>10}{"rmse":>10}'
  return '\n'.join([head, *lines, '  '.join(scores)])
