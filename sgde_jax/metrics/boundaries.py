"""How sharp a depth map is at depth edges, by Depth Pro's metrics.

Both scores depend on ratios of neighbouring depths alone, so the scale of
the prediction does not matter.

References:
  Bochkovskii et al., Depth Pro: Sharp Monocular Metric Depth in Less Than a
    Second (2024), section 3.2: scale-invariant boundary F1 and recall.
"""

import numpy as np

from input_pipeline import cityscapes
from sgde_jax.metrics import segmentation

_THRESHOLDS = np.linspace(1.05, 1.25, 10)
# Train ids that make up one foreground mask each.
_MASKS = {
  'objects': cityscapes.THIN_CLASSES + cityscapes.MOVING_CLASSES,
  'thin': cityscapes.THIN_CLASSES,
}
# The axes of the four directions: right, down, left, up.
_AXES = (1, 0, 1, 0)


def boundary_f1(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  *,
  valid: np.ndarray | None = None,
) -> float:
  """Depth Pro's scale-invariant boundary F1 against dense depth.

  Two neighbours form a boundary where the ratio of their depths exceeds a
  threshold. Precision and recall are means over the four directions; F1 is
  averaged over ten thresholds in 1.05..1.25, weighted by the threshold.

  Args:
    ground_truth: `[H, W]` dense depth.
    prediction: `[H, W]` positive depth, any scale, not clipped.
    valid: `[H, W]` bool; pairs with a pixel outside of it do not count.
      All pixels when None.

  Returns:
    F1 in [0, 1]; 0 where there is no boundary.
  """
  true_ratios = _neighbour_ratios(ground_truth, 'ground_truth', valid)
  found_ratios = _neighbour_ratios(prediction, 'prediction', valid)
  scores = []
  for threshold in _THRESHOLDS:
    recalls, precisions = [], []
    for true, found in zip(true_ratios, found_ratios, strict=True):
      true_edge, found_edge = true > threshold, found > threshold
      hits = np.count_nonzero(true_edge & found_edge)
      recalls.append(hits / max(np.count_nonzero(true_edge), 1))
      precisions.append(hits / max(np.count_nonzero(found_edge), 1))
    recall, precision = np.mean(recalls), np.mean(precisions)
    either = recall + precision
    scores.append(2 * recall * precision / either if either else 0.0)
  return float(np.average(scores, weights=_THRESHOLDS))


def boundary_recall(
  prediction: np.ndarray,
  mask: np.ndarray,
  *,
  valid: np.ndarray | None = None,
) -> float:
  """Depth Pro's boundary recall from a mask, where depth truth is sparse.

  The share of the mask's contour at which the prediction steps from near
  (inside) to far (outside) by more than a threshold; predicted edges are
  thinned to one pixel across the contour, so that blur does not pay. Mean
  over four directions and the thresholds of `boundary_f1`.

  Args:
    prediction: `[H, W]` positive depth, any scale.
    mask: `[H, W]` bool, True on what stands in front.
    valid: `[H, W]` bool; contour pairs with a pixel outside of it do not
      count. All pixels when None.

  Returns:
    Recall in [0, 1]; 0 where the mask has no contour.
  """
  contours = _mask_contours(mask, valid)
  ratios = _neighbour_ratios(prediction, 'prediction', None)
  if contours[0].shape != ratios[0].shape:
    raise ValueError(
      f'mask and prediction must have the same shape, got {mask.shape} and '
      f'{prediction.shape}.'
    )
  recalls = []
  for threshold in _THRESHOLDS:
    shares = []
    for axis, contour, ratio in zip(_AXES, contours, ratios, strict=True):
      hits = _local_maxima(ratio, threshold, axis) & contour
      shares.append(np.count_nonzero(hits) / max(np.count_nonzero(contour), 1))
    recalls.append(np.mean(shares))
  return float(np.average(recalls, weights=_THRESHOLDS))


def boundary_totals(
  prediction: np.ndarray,
  labels: np.ndarray,
  *,
  dense_truth: np.ndarray | None = None,
) -> segmentation.Totals:
  """The boundary scores of one image, ready to be averaged over images.

  Args:
    prediction: `[H, W]` positive depth, any scale, not clipped.
    labels: `[H, W]` integer train ids, 255 = unlabelled.
    dense_truth: `[H, W]` depth, 0 = none; None where the truth is sparse.

  Returns:
    `boundary_recall/objects` (everything that stands in front of the scene)
    and `boundary_recall/thin`, from the labels; `boundary_f1` from the dense
    truth. What an image lacks, a contour or a boundary, counts 0 there.
  """
  segmentation.check_labels(labels, 'labels')
  known = labels != cityscapes.UNLABELLED
  pairs = {}
  for name, classes in _MASKS.items():
    mask = np.isin(labels, classes)
    if any(contour.any() for contour in _mask_contours(mask, known)):
      score = boundary_recall(prediction, mask, valid=known)
      pairs[f'boundary_recall/{name}'] = (score, 1)
    else:
      pairs[f'boundary_recall/{name}'] = (0.0, 0)
  pairs['boundary_f1'] = (0.0, 0)
  if dense_truth is not None:
    valid = dense_truth > 0
    ratios = _neighbour_ratios(dense_truth, 'dense_truth', valid)
    if any((ratio > _THRESHOLDS[0]).any() for ratio in ratios):
      score = boundary_f1(dense_truth, prediction, valid=valid)
      pairs['boundary_f1'] = (score, 1)
  return segmentation.Totals(pairs)


def _directed_pairs(array):
  """Views of each pixel and its neighbour, for the directions of `_AXES`."""
  forward = [segmentation.neighbours(array, axis) for axis in (1, 0)]
  return forward + [(second, first) for first, second in forward]


def _neighbour_ratios(depth, name, valid):
  """How many times nearer each pixel is than its right, lower, left, upper.

  Returns four arrays, along `_AXES`; 0 where a pixel of the pair is not
  valid.
  """
  depth = np.asarray(depth, np.float64)
  usable = np.isfinite(depth) & (depth > 0)
  if valid is None:
    valid = np.ones(depth.shape, bool)
  if depth.ndim != 2 or valid.shape != depth.shape:
    raise ValueError(
      f'{name} and its mask must be [H, W], got {depth.shape} and '
      f'{valid.shape}.'
    )
  if not usable[valid].all():
    raise ValueError(f'{name} must be finite and positive wherever it counts.')
  depth = np.where(usable, depth, 1.0)
  return [
    np.where(first & second, far / near, 0.0)
    for (near, far), (first, second) in zip(
      _directed_pairs(depth), _directed_pairs(valid), strict=True
    )
  ]


def _mask_contours(mask, valid):
  """Pairs that step out of a mask to the right, down, left and up."""
  mask = np.asarray(mask)
  if mask.ndim != 2 or mask.dtype != bool:
    raise ValueError(
      f'mask must be [H, W] bool, got {mask.shape} {mask.dtype}.'
    )
  if valid is None:
    valid = np.ones(mask.shape, bool)
  return [
    inside & ~outside & first & second
    for (inside, outside), (first, second) in zip(
      _directed_pairs(mask), _directed_pairs(valid), strict=True
    )
  ]


def _local_maxima(ratio, threshold, axis):
  """Keeps the first maximum of each run above a threshold along an axis."""
  lines = ratio if axis == 1 else ratio.T
  rows, columns = np.nonzero(lines > threshold)
  kept = np.zeros(lines.shape, bool)
  if rows.size:
    new_run = (np.diff(rows) != 0) | (np.diff(columns) != 1)
    starts = np.flatnonzero(np.concatenate([[True], new_run]))
    run = np.cumsum(np.concatenate([[0], new_run]))
    values = lines[rows, columns]
    peaks = np.flatnonzero(values == np.maximum.reduceat(values, starts)[run])
    first = peaks[np.unique(run[peaks], return_index=True)[1]]
    kept[rows[first], columns[first]] = True
  return kept if axis == 1 else kept.T
