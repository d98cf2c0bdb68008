"""Figures at object borders, for evaluations with labels.

All are (sum, count) pairs that add over images, batches and hosts; those of an
image are the columns `NAME:sum` and `NAME:count` of a table.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import cityscapes, images
from sgde_jax import metrics


def measure(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  aligned: metrics.depth.AlignedDepth,
  labels: np.ndarray,
  *,
  matrix: np.ndarray | None,
  dense: bool,
) -> dict[str, float]:
  """Measures one image.

  Args:
    ground_truth: `[H, W]` depth in metres, 0 = none.
    prediction: `[H, W]` depth, as predicted.
    aligned: `prediction` scaled to the truth and clipped.
    labels: `[H, W]` uint8 true train ids, 255 = unlabelled.
    matrix: the `confusion` of the classes, or None.
    dense: whether depth edges can be found in the truth.

  Returns:
    `NAME:sum` and `NAME:count` of `border_errors`, `class_errors` and
    `boundary_totals` (see `metrics.borders`), and of `iou_totals` with
    `matrix`; `labelled` counts the images that have labels.
  """
  depths = ground_truth, aligned.prediction, aligned.valid, labels
  truth = ground_truth if dense else None
  parts = [
    metrics.borders.border_errors(*depths),
    metrics.borders.class_errors(*depths),
    metrics.borders.boundary_totals(prediction, labels, dense_truth=truth),
  ]
  if matrix is not None:
    parts.append(metrics.segmentation.iou_totals(matrix))
  labelled = bool((labels != cityscapes.UNLABELLED).any())
  parts.append(metrics.totals.Totals({'labelled': (labelled, 1)}))
  totals = functools.reduce(metrics.totals.Totals.merge, parts)
  return {
    f'{name}:{part}': float(value)
    for name, pair in totals.pairs.items()
    for part, value in zip(('sum', 'count'), pair, strict=True)
  }


def confusion(labels: np.ndarray, predicted_labels: np.ndarray) -> np.ndarray:
  """Counts classes at the size `[H, W]` of the true ones.

  Returns:
    `[19, 19]` int64, see `metrics.segmentation.confusion_matrix`.
  """
  height, width = labels.shape
  found = images.resize_nearest(predicted_labels, height=height, width=width)
  return metrics.segmentation.confusion_matrix(labels, found)


def column_names(*, semantics: bool, dense: bool) -> list[str]:
  """Returns the keys of `measure`, with or without predicted classes."""
  depth, labels = np.ones((2, 2)), np.zeros((2, 2), np.uint8)
  aligned = metrics.depth.AlignedDepth(depth, depth > 0, 1.0)
  matrix = confusion(labels, labels) if semantics else None
  return list(
    measure(depth, depth, aligned, labels, matrix=matrix, dense=dense)
  )


def summarize(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Pools the columns of all images into figures by name."""
  pairs = {}
  for column in rows[0]:
    if column.endswith(':sum'):
      name = column.removesuffix(':sum')
      pairs[name] = tuple(
        float(np.sum([row[f'{name}:{part}'] for row in rows]))
        for part in ('sum', 'count')
      )
  return metrics.totals.Totals(pairs).finalize()
