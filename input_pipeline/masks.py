"""Scans label masks: their coding, their classes and their problems.

Each mask is decoded once; everything follows from the counts of its 256 values.
"""

import dataclasses
import logging
from collections.abc import Iterable

import numpy as np

from input_pipeline import cityscapes, images, progress

UNREADABLE = 'masks or pictures that cannot be read'
OUTSIDE = 'masks with a value outside the coding'
RESIZED = 'masks of another size than their picture'


@dataclasses.dataclass(frozen=True)
class Scan:
  """The result of `scan_masks`.

  Attributes:
    coding: `ids` or `train_ids`.
    reason: the source of the coding.
    pixels: [20] int64, the pixels of each train id, then the unlabelled ones,
      over the masks whose values are all in the coding.
    problems: kind of problem -> one line per mask that has it.
    misfit: why the masks do not look like the coding; '' if they do.
  """

  coding: str
  reason: str
  pixels: np.ndarray
  problems: dict[str, list[str]]
  misfit: str

  def check(self, field: str, *, values_only: bool = False) -> None:
    """Raises ValueError with counts and examples if there is any problem.

    Logs a warning if the values are possible but look like the other coding.
    `field` names the coding in messages. With `values_only` values outside the
    coding are the only problem.
    """
    problems = [
      f'{what}: {len(lines)}, the first: {lines[0]}'
      for what, lines in self.problems.items()
      if what == OUTSIDE or not values_only
    ]
    if problems:
      raise ValueError(f'{field} is {self.coding!r}: {"; ".join(problems)}')
    if self.misfit:
      logging.warning('check %s = %s: %s', field, self.coding, self.misfit)


def scan_masks(
  pairs: Iterable[tuple[str | None, str | None]],
  *,
  coding: str | None = None,
  reason: str = 'as given',
  any_scale: bool = False,
) -> Scan:
  """Reads masks in parallel and compares them with their pictures.

  Args:
    pairs: paths (picture, mask). Pairs without a mask are skipped; without a
      picture the size is not compared.
    coding: `ids` or `train_ids`; None guesses from the values: `ids` if at
      least half of the masks hold values that are no train ids.
    reason: the source of the coding, if it is given.
    any_scale: whether a mask may differ in size, with the same aspect ratio.
  """
  pairs = [pair for pair in pairs if pair[1] is not None]
  counts = np.zeros((len(pairs), 256), np.int64)
  problems = {UNREADABLE: [], OUTSIDE: [], RESIZED: []}

  def read(number):
    """Counts the values of a mask; returns its problem and a line about it."""
    picture, mask = pairs[number]
    try:
      image = images.open_mask(mask)
      counts[number] = image.histogram()
      size = image.height, image.width
      shown = size if picture is None else images.read_size(picture)
    except ValueError as error:
      return UNREADABLE, str(error)
    most = images.MASK_STRETCH if any_scale else -1
    if size != shown and images.stretch(size, shown) > most:
      return RESIZED, (
        f'{mask} is {size[1]}x{size[0]}, {picture} is {shown[1]}x{shown[0]}'
      )
    return None

  found = progress.in_order(read, range(len(pairs)))
  for problem in filter(None, progress.bar(found, 'reading masks', len(pairs))):
    problems[problem[0]].append(problem[1])
  guess, evidence = _guess_coding(counts)
  if coding is None:
    coding, reason = guess, f'guessed: {evidence}'
  pixels = np.zeros(cityscapes.NUM_CLASSES + 1, np.int64)
  for number, row in enumerate(counts):
    values = np.flatnonzero(row)
    try:
      train_ids = cityscapes.to_train_ids(values, coding=coding)
    except ValueError as error:
      problems[OUTSIDE].append(f'{pairs[number][1]}: {error}')
    else:
      # Unlabelled is 255, the last of the slots.
      slots = np.minimum(train_ids, cityscapes.NUM_CLASSES)
      np.add.at(pixels, slots, row[values])
  # Train ids are valid ids, most of them unlabelled; not the other way round.
  unlikely = coding == 'ids' != guess and counts.any()
  misfit = f'{evidence}, as ids would' if unlikely else ''
  problems = {what: lines for what, lines in problems.items() if lines}
  return Scan(coding, reason, pixels, problems, misfit)


def _guess_coding(counts):
  """Returns a guess of the coding from counts of values [N, 256], and why."""
  ids_alone = (
    counts[:, cityscapes.NUM_CLASSES : cityscapes.LAST_ID + 1].any(axis=1).sum()
  )
  readable = counts.any(axis=1).sum()
  coding = 'ids' if 0 < readable <= 2 * ids_alone else 'train_ids'
  return coding, (
    f'{ids_alone} of {readable} masks hold values from '
    f'{cityscapes.NUM_CLASSES} to {cityscapes.LAST_ID}'
  )
