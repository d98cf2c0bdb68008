"""Where the errors lie: at semantic borders and per class; and the IoU.

Every figure is a (sum, count) pair, so that images, batches and hosts add
up to the same result in any order. Depth errors are pooled over pixels (not
averaged per image), because an image may hold few pixels of a class, or
none. Every function returns all of its names for every image, with (0, 0)
where nothing counts, so that hosts can add plain arrays.

A semantic border pixel is one with a 4-neighbour of another class; 255
(unlabelled) neither is nor makes one.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import cityscapes

_SQUARES = 'square_error/'


@dataclasses.dataclass(frozen=True)
class Totals:
  """Named (sum, count) pairs that add over images and hosts.

  Attributes:
    pairs: name -> (sum, count).
  """

  pairs: Mapping[str, tuple[float, float]] = dataclasses.field(
    default_factory=dict
  )

  def merge(self, other: 'Totals') -> 'Totals':
    """Adds pair by pair; a name that one side lacks counts as (0, 0)."""
    merged = dict(self.pairs)
    for name, (total, count) in other.pairs.items():
      old_total, old_count = merged.get(name, (0.0, 0))
      merged[name] = (old_total + total, old_count + count)
    return Totals(merged)

  def finalize(self) -> dict[str, float]:
    """Turns the pairs into figures.

    Returns:
      sum / count for each name with a count; `square_error/X` becomes its
      root `rmse/X`; `miou` is added as the mean of the `iou/X` there are.
    """
    figures = {}
    for name, (total, count) in self.pairs.items():
      if count == 0:
        continue
      if name.startswith(_SQUARES):
        key = 'rmse/' + name.removeprefix(_SQUARES)
        figures[key] = float(np.sqrt(total / count))
      else:
        figures[name] = float(total / count)
    ious = [value for name, value in figures.items() if name.startswith('iou/')]
    if ious:
      figures['miou'] = float(np.mean(ious))
    return figures


def border_distance(labels: np.ndarray, *, limit: int = 5) -> np.ndarray:
  """City-block distance to the nearest semantic border, in pixels.

  The border runs between pixels, so the pixels on either side of it are at
  distance 1; each further unit dilates once by 4-neighbours, also across
  unlabelled pixels.

  Args:
    labels: `[H, W]` integer train ids, 255 = unlabelled.
    limit: the largest distance told apart.

  Returns:
    `[H, W]` int: 1..limit, and limit + 1 for all that is farther.
  """
  check_labels(labels, 'labels')
  near = np.zeros(labels.shape, bool)
  for axis in (0, 1):
    first, second = neighbours(labels, axis)
    differs = (first != second) & (first != cityscapes.UNLABELLED)
    differs &= second != cityscapes.UNLABELLED
    for side in neighbours(near, axis):
      side |= differs
  distance = np.where(near, 1, limit + 1)
  for step in range(2, limit + 1):
    grown = near.copy()
    for axis in (0, 1):
      for source, target in zip(
        neighbours(near, axis), reversed(neighbours(grown, axis)), strict=True
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
) -> Totals:
  """Depth errors near semantic borders and away from them.

  Args:
    ground_truth: `[H, W]`, metres.
    prediction: `[H, W]`, metres, aligned (`metrics.align_depth`).
    valid: `[H, W]` bool, the pixels that count; unlabelled ones never do.
    labels: `[H, W]` integer train ids, 255 = unlabelled.
    radii: pixels; see `border_distance`.

  Returns:
    `abs_rel/border_R` and `square_error/border_R` for each radius R (all
    pixels within R, so that a larger radius includes the smaller), and
    `.../away` for the pixels beyond the largest.
  """
  _check_same_shape(
    ground_truth=ground_truth, prediction=prediction, valid=valid, labels=labels
  )
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
) -> Totals:
  """Depth errors per semantic class and for the thin classes together.

  Args:
    ground_truth: `[H, W]`, metres.
    prediction: `[H, W]`, metres, aligned (`metrics.align_depth`).
    valid: `[H, W]` bool, the pixels that count.
    labels: `[H, W]` integer train ids, 255 = unlabelled.

  Returns:
    `abs_rel/NAME` and `square_error/NAME` for each class and for `thin`.
  """
  _check_same_shape(
    ground_truth=ground_truth, prediction=prediction, valid=valid, labels=labels
  )
  check_labels(labels, 'labels')
  groups = {
    name: valid & (labels == index)
    for index, name in enumerate(cityscapes.NAMES)
  }
  groups['thin'] = valid & np.isin(labels, cityscapes.THIN_CLASSES)
  return _error_totals(ground_truth, prediction, groups)


def confusion_matrix(
  labels: np.ndarray, predicted_labels: np.ndarray
) -> np.ndarray:
  """Counts pixels by true and predicted class.

  Args:
    labels: `[...]` integer train ids, 255 = unlabelled, left out.
    predicted_labels: `[...]` integer train ids, none unlabelled.

  Returns:
    `[19, 19]` int64, rows true, columns predicted.

  Raises:
    ValueError: the shapes differ or a value is out of range.
  """
  _check_same_shape(labels=labels, predicted_labels=predicted_labels)
  check_labels(labels, 'labels')
  check_labels(predicted_labels, 'predicted_labels')
  known = labels != cityscapes.UNLABELLED
  true = np.asarray(labels)[known].astype(np.int64)
  found = np.asarray(predicted_labels)[known].astype(np.int64)
  if (found == cityscapes.UNLABELLED).any():
    raise ValueError(
      'predicted_labels holds 255 where labels has a class; a prediction '
      'must choose a class everywhere.'
    )
  num_classes = cityscapes.NUM_CLASSES
  counts = np.bincount(true * num_classes + found, minlength=num_classes**2)
  return counts.reshape(num_classes, num_classes)


def iou_totals(confusion: np.ndarray) -> Totals:
  """Intersections and unions per class, as `iou/NAME`.

  Args:
    confusion: `[19, 19]`, rows true, columns predicted.

  Returns:
    Totals whose sum is the intersection and whose count is the union, so
    that they add up to the IoU of the whole set; `finalize` adds `miou` over
    the classes that occur in truth or prediction.
  """
  hits = np.diag(confusion)
  union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
  return Totals(
    {
      f'iou/{name}': (int(hit), int(either))
      for name, hit, either in zip(cityscapes.NAMES, hits, union, strict=True)
    }
  )


def neighbours(array, axis):
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
    pairs[_SQUARES + name] = (float(np.sum(error**2)), error.size)
  return Totals(pairs)


def check_labels(labels, name):
  """Refuses labels that are not train ids or 255, by their name."""
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f'{name} must hold integer train ids, got {labels.dtype}.')
  above = (labels >= cityscapes.NUM_CLASSES) & (labels != cityscapes.UNLABELLED)
  outside = (labels < 0) | above
  if outside.any():
    raise ValueError(
      f'{name} holds {np.unique(labels[outside])[:5].tolist()}, which are '
      'neither train ids 0..18 nor 255; convert label ids to '
      'train ids first.'
    )


def _check_same_shape(**arrays):
  shapes = {name: np.shape(array) for name, array in arrays.items()}
  if len(set(shapes.values())) > 1:
    told = ', '.join(f'{name} {shape}' for name, shape in shapes.items())
    raise ValueError(f'these must have the same shape: {told}.')
