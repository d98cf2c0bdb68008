"""Depth at borders: errors near semantic ones, sharpness at depth edges.

Errors are pooled over pixels, not averaged per image, because an image may
hold few pixels of a class, or none. A semantic border pixel is one with a
4-neighbour of another class; unlabelled pixels (255) do not count as a class.

Sharpness is Depth Pro's boundary F1 and recall. Both depend on ratios of
neighbouring depths alone, so the scale of the prediction does not matter.

References:
  Bochkovskii et al., Depth Pro: Sharp Monocular Metric Depth in Less Than a
    Second (2024), section 3.2: scale-invariant boundary F1 and recall.
"""

from collections.abc import Sequence

import numpy as np

from input_pipeline import cityscapes
from sgde_jax.metrics import totals

_THRESHOLDS = np.linspace(1.05, 1.25, 10)
# Train ids that make up one foreground mask each.
_MASKS = {
  'objects': cityscapes.THIN_CLASSES + cityscapes.MOVING_CLASSES,
  'thin': cityscapes.THIN_CLASSES,
}
# The axes of the four directions: right, down, left, up.
_AXES = (1, 0, 1, 0)


def border_distance(labels: np.ndarray, *, limit: int = 5) -> np.ndarray:
  """Returns the city-block distance to the nearest semantic border, in pixels.

  The border runs between pixels, so the pixels on either side of it are at
  distance 1; each further unit dilates once by 4-neighbours, also across
  unlabelled pixels.

  Args:
    labels: `[H, W]` integer train ids, 255 = unlabelled.
    limit: the largest distance to measure.

  Returns:
    `[H, W]` int: 1..limit, and limit + 1 for all that is farther.
  """
  near = np.zeros(labels.shape, bool)
  for axis in (0, 1):
    first, second = _neighbours(labels, axis)
    differs = (first != second) & (first != cityscapes.UNLABELLED)
    differs &= second != cityscapes.UNLABELLED
    for side in _neighbours(near, axis):
      side |= differs
  distance = np.where(near, 1, limit + 1)
  for step in range(2, limit + 1):
    grown = near.copy()
    for axis in (0, 1):
      for source, target in zip(
        _neighbours(near, axis), reversed(_neighbours(grown, axis)), strict=True
      ):
        target |= source
    distance[grown & ~near] = step
    near = grown
  return distance


def border_errors(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  valid: np.ndarray,
  labels: np.ndarray,
  *,
  radii: Sequence[int] = (1, 3, 5),
) -> totals.Totals:
  """Computes depth errors near semantic borders and away from them.

  Args:
    ground_truth: `[H, W]`, metres.
    prediction: `[H, W]`, metres, aligned (`depth.align_depth`).
    valid: `[H, W]` bool, the pixels that count; unlabelled ones never do.
    labels: `[H, W]` integer train ids, 255 = unlabelled.
    radii: pixels; see `border_distance`.

  Returns:
    `abs_rel/border_R` and `square_error/border_R` for each radius R (all
    pixels within R, so that a larger radius includes the smaller), and
    `.../away` for the pixels beyond the largest.
  """
  _check_labels(labels)
  distance = border_distance(labels, limit=max(radii))
  labelled = valid & (labels != cityscapes.UNLABELLED)
  groups = {f'border_{r}': labelled & (distance <= r) for r in radii}
  groups['away'] = labelled & (distance > max(radii))
  return _error_totals(ground_truth, prediction, groups)


def class_errors(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  valid: np.ndarray,
  labels: np.ndarray,
) -> totals.Totals:
  """Computes depth errors per class and for the thin classes together.

  Takes the arguments of `border_errors`; returns `abs_rel/NAME` and
  `square_error/NAME` for each class and for `thin`.
  """
  _check_labels(labels)
  groups = {
    name: valid & (labels == index)
    for index, name in enumerate(cityscapes.NAMES)
  }
  groups['thin'] = valid & np.isin(labels, cityscapes.THIN_CLASSES)
  return _error_totals(ground_truth, prediction, groups)


def boundary_f1(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  *,
  valid: np.ndarray | None = None,
) -> float:
  """Computes Depth Pro's scale-invariant boundary F1 against dense depth.

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
  true_ratios = _neighbour_ratios(ground_truth, valid)
  found_ratios = _neighbour_ratios(prediction, valid)
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
  prediction: np.ndarray, mask: np.ndarray, *, valid: np.ndarray | None = None
) -> float:
  """Computes Depth Pro's boundary recall from a mask, for sparse depth truth.

  It is the share of the mask's contour at which the prediction steps from near
  (inside) to far (outside) by more than a threshold, averaged over the four
  directions and the thresholds of `boundary_f1`. Predicted edges are thinned
  to one pixel across the contour, so that blur is not rewarded.

  Args:
    prediction: `[H, W]` positive depth, any scale.
    mask: `[H, W]` bool, True on the foreground.
    valid: `[H, W]` bool; contour pairs with a pixel outside of it do not
      count. All pixels when None.

  Returns:
    Recall in [0, 1]; 0 where the mask has no contour.
  """
  contours = _mask_contours(mask, valid)
  ratios = _neighbour_ratios(prediction, None)
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
) -> totals.Totals:
  """Computes the boundary scores of one image as totals over images.

  Args:
    prediction: `[H, W]` positive depth, any scale, not clipped.
    labels: `[H, W]` integer train ids, 255 = unlabelled.
    dense_truth: `[H, W]` depth, 0 = none; None where the truth is sparse.

  Returns:
    `boundary_recall/objects` (everything in the foreground) and
    `boundary_recall/thin`, from the labels; `boundary_f1` from the dense truth.
    The count is 0 where an image has no such contour or boundary.
  """
  _check_labels(labels)
  known = labels != cityscapes.UNLABELLED
  pairs = {}
  for name, classes in _MASKS.items():
    mask = np.isin(labels, classes)
    pairs[f'boundary_recall/{name}'] = (0.0, 0)
    if any(contour.any() for contour in _mask_contours(mask, known)):
      score = boundary_recall(prediction, mask, valid=known)
      pairs[f'boundary_recall/{name}'] = (score, 1)
  pairs['boundary_f1'] = (0.0, 0)
  if dense_truth is not None:
    valid = dense_truth > 0
    ratios = _neighbour_ratios(dense_truth, valid)
    if any((ratio > _THRESHOLDS[0]).any() for ratio in ratios):
      score = boundary_f1(dense_truth, prediction, valid=valid)
      pairs['boundary_f1'] = (score, 1)
  return totals.Totals(pairs)


def _neighbours(array, axis):
  """Views of all first and all second pixels of the pairs along an axis."""
  if axis == 0:
    return array[:-1], array[1:]
  return array[:, :-1], array[:, 1:]


def _error_totals(ground_truth, prediction, groups):
  pairs = {}
  for name, group in groups.items():
    truth = np.asarray(ground_truth)[group].astype(np.float64)
    error = np.asarray(prediction)[group] - truth
    relative = np.abs(error) / truth
    pairs[f'abs_rel/{name}'] = (float(np.sum(relative)), error.size)
    pairs[totals.SQUARES + name] = (float(np.sum(error**2)), error.size)
  return totals.Totals(pairs)


def _check_labels(labels):
  """Raises ValueError unless labels are train ids or 255."""
  found = np.unique(labels)
  wrong = found[(found >= cityscapes.NUM_CLASSES) | (found < 0)]
  wrong = wrong[wrong != cityscapes.UNLABELLED]
  if wrong.size:
    raise ValueError(
      f'labels hold {wrong[:5].tolist()}, which are neither train ids 0..18 nor'
      ' 255; convert label ids to train ids first.'
    )


def _directed_pairs(array, valid):
  """Each pixel, its neighbour and whether both are valid, along `_AXES`."""
  if valid is None:
    valid = np.ones(array.shape, bool)
  forward = [
    (*_neighbours(array, axis), np.logical_and(*_neighbours(valid, axis)))
    for axis in (1, 0)
  ]
  return forward + [(second, first, both) for first, second, both in forward]


def _neighbour_ratios(depth, valid):
  """Returns how many times nearer each pixel is than its four neighbours.

  The four arrays are in the order of `_AXES`; 0 where a pixel of the pair is
  not valid.
  """
  depth = np.asarray(depth, np.float64)
  usable = np.isfinite(depth) & (depth > 0)
  if not (usable if valid is None else usable[valid]).all():
    raise ValueError('depth must be finite and positive wherever it counts.')
  depth = np.where(usable, depth, 1.0)
  return [
    np.where(both, far / near, 0.0)
    for near, far, both in _directed_pairs(depth, valid)
  ]


def _mask_contours(mask, valid):
  """Pairs that step out of a mask to the right, down, left and up."""
  return [
    inside & ~outside & both
    for inside, outside, both in _directed_pairs(mask, valid)
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
