"""Figures as (sum, count) pairs, which add in any order.

So images, batches and hosts add up to the same result. Every function that
makes totals returns all of its names for every image, with (0, 0) where
nothing counts, so that hosts can add plain arrays.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

SQUARES = 'square_error/'


@dataclasses.dataclass(frozen=True)
class Totals:
  """Named (sum, count) pairs that add over images and hosts."""

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
    """Returns sum / count for each name with a count.

    `square_error/X` becomes its root `rmse/X`; `miou` is added, the mean of
    all `iou/X`.
    """
    figures = {}
    for name, (total, count) in self.pairs.items():
      if count == 0:
        continue
      if name.startswith(SQUARES):
        key = 'rmse/' + name.removeprefix(SQUARES)
        figures[key] = float(np.sqrt(total / count))
      else:
        figures[name] = float(total / count)
    ious = [value for name, value in figures.items() if name.startswith('iou/')]
    if ious:
      figures['miou'] = float(np.mean(ious))
    return figures
