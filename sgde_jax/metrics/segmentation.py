"""Confusion of classes and the intersection over union, in NumPy."""

import numpy as np

from input_pipeline import cityscapes
from sgde_jax.metrics import totals


def confusion_matrix(
  labels: np.ndarray, predicted_labels: np.ndarray
) -> np.ndarray:
  """Counts pixels by true and predicted class.

  Args:
    labels: integer train ids, 255 = unlabelled, left out.
    predicted_labels: integer train ids of the same shape, none unlabelled.

  Returns:
    `[19, 19]` int64, rows true, columns predicted.

  Raises:
    ValueError: if a value is out of range.
  """
  known = labels != cityscapes.UNLABELLED
  shape = (cityscapes.NUM_CLASSES, cityscapes.NUM_CLASSES)
  pairs = labels[known].astype(int), predicted_labels[known].astype(int)
  # Raises where a value is no train id.
  index = np.ravel_multi_index(pairs, shape)
  return np.bincount(index, minlength=shape[0] * shape[1]).reshape(shape)


def iou_totals(confusion: np.ndarray) -> totals.Totals:
  """Intersections (the sums) and unions (the counts) per class, `iou/NAME`.

  Added up they give the IoU of the whole set; `finalize` adds `miou` over the
  classes that occur in truth or prediction.

  Args:
    confusion: `[19, 19]`, rows true, columns predicted.
  """
  hits = np.diag(confusion)
  union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
  return totals.Totals(
    {
      f'iou/{name}': (int(hit), int(either))
      for name, hit, either in zip(cityscapes.NAMES, hits, union, strict=True)
    }
  )
