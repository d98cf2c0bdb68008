"""Looks at every mask of a folder: coverage, classes, and what is wrong.

A mask is decoded once, and all is read off the counts of its 256 values.
"""

import dataclasses
import logging
import os
import pathlib

import numpy as np

from input_pipeline import cityscapes, examples, images, splits, threads
from input_pipeline.sources import stills

# Layout -> where its masks lie.
_LAYOUTS = {
  'KITTI raw': 'DATE/DRIVE/semantic_02/data/*.png beside image_02 (or 03)',
  'KITTI semantic': 'semantic/*.png beside image_2',
  'Cityscapes': 'gtFine/SPLIT/CITY/*_gtFine_labelIds.png (or _labelTrainIds) '
  'beside leftImg8bit',
}
_NAMED = 10  # Files of a problem that are named.
_UNREADABLE = 'masks or pictures that cannot be read'
_OUTSIDE = 'masks with a value outside the coding'
_RESIZED = 'masks of another size than their picture'
_STRAY = 'masks without a picture'
_MISSING = 'missing masks'
_MISFIT = 'a coding that the masks do not look like'


@dataclasses.dataclass(frozen=True)
class Group:
  """The pictures of a drive's camera or of a split, and their masks.

  Attributes:
    name: what to call it.
    pairs: list of (picture, mask); in place of a path that is absent, None.
    missing: masks that have to be there and are not.
  """

  name: str
  pairs: list
  missing: list = dataclasses.field(default_factory=list)

  def __str__(self):
    frames = sum(picture is not None for picture, _ in self.pairs)
    both = sum(None not in pair for pair in self.pairs)
    share = 100 * both / max(frames, 1)
    return f'{self.name}: {both} of {frames} frames have masks, {share:.1f} %'


@dataclasses.dataclass(frozen=True)
class Scan:
  """What a list of masks holds.

  Attributes:
    coding: `ids` or `train_ids`.
    reason: how the coding is known.
    pixels: [20] int64, pixels of each train id, and of those unlabelled, in
      the masks whose values are all of the coding.
    problems: what is wrong -> one line for each mask that it is wrong with.
    misfit: why the masks do not look like the coding; '' where they do.
  """

  coding: str
  reason: str
  pixels: np.ndarray
  problems: dict
  misfit: str

  def refuse_problems(self):
    """Raises a ValueError that counts and names what is wrong, if any is."""
    if self.problems:
      raise ValueError(
        '; '.join(
          f'{what}: {len(lines)}, the first: {lines[0]}'
          for what, lines in self.problems.items()
        )
      )

  def compare_coding(self, field):
    """Refuses values outside the config's coding, warns if they look other.

    Args:
      field: the config's field that names the coding.

    Raises:
      ValueError: masks hold values outside the coding.
    """
    outside = self.problems.get(_OUTSIDE)
    if outside:
      raise ValueError(
        f'{field} is {self.coding!r}, and of the masks looked at '
        f'{len(outside)} hold other values, the first: {outside[0]}'
      )
    if self.misfit:
      logging.warning('look at %s = %s: %s', field, self.coding, self.misfit)


@dataclasses.dataclass(frozen=True)
class Report:
  """What `check` found; its `str` is what the command prints.

  Attributes:
    root: the folder.
    layout: `KITTI raw`, `KITTI semantic` or `Cityscapes`.
    groups: list of `Group`.
    scan: the `Scan` of all their masks.
  """

  root: str
  layout: str
  groups: list
  scan: Scan

  @property
  def problems(self):
    """What is wrong -> a line for each time that it is."""
    found = dict(self.scan.problems)
    stray = [
      mask
      for group in self.groups
      for picture, mask in group.pairs
      if picture is None
    ]
    missing = [mask for group in self.groups for mask in group.missing]
    return found | {
      what: lines
      for what, lines in (
        (_STRAY, stray),
        (_MISSING, missing),
        (_MISFIT, [self.scan.misfit] if self.scan.misfit else []),
      )
      if lines
    }

  def __str__(self):
    scan = self.scan
    lines = [
      f'{self.root}: {self.layout}, coding {scan.coding} ({scan.reason})',
      *map(str, self.groups),
      *_format_classes(scan.pixels),
    ]
    for what, found in self.problems.items():
      lines.append(f'WRONG, {what}: {len(found)}')
      lines += [f'  {line}' for line in found[:_NAMED]]
      if len(found) > _NAMED:
        lines.append(f'  and {len(found) - _NAMED} more')
    if not self.problems:
      lines.append('nothing is wrong')
    return '\n'.join(lines)


def check(root, *, coding=None):
  """Looks at every mask of a folder.

  Args:
    root: a folder in the layout of KITTI raw, KITTI semantic or Cityscapes.
    coding: `ids` or `train_ids`; None guesses.

  Returns:
    A `Report`.

  Raises:
    FileNotFoundError: there is no such folder, it has none of the layouts, or
      holds no mask.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise FileNotFoundError(f'there is no folder {root}')
  reason = 'as told'
  if (root / 'leftImg8bit').is_dir():
    layout = 'Cityscapes'
    if coding is None:
      coding, reason = _named_coding(root), "guessed from the masks' names"
    groups = [
      _still_group(root, coding, split)
      for split in stills.SPLITS
      if (root / 'leftImg8bit' / split).is_dir()
    ]
  elif (root / 'image_2').is_dir():
    layout = 'KITTI semantic'
    groups = [_still_group(root, coding or 'ids', 'image_2')]
  else:
    layout, groups = 'KITTI raw', _raw_groups(root)
  pairs = [pair for group in groups for pair in group.pairs]
  if not any(mask for _, mask in pairs):
    where = '; '.join(
      f'{name}: {masks}'
      for name, masks in _LAYOUTS.items()
      if name == layout or not pairs
    )
    raise FileNotFoundError(f'there is no mask in {root}; looked for {where}')
  return Report(
    os.fspath(root),
    layout,
    groups,
    scan_masks(pairs, coding=coding, reason=reason),
  )


def scan_masks(pairs, *, coding=None, reason='as told', any_scale=False):
  """Reads masks, in threads.

  Args:
    pairs: list of (picture, mask), paths; a pair without a mask is passed over,
      and without a picture its size is not compared.
    coding: `ids` or `train_ids`; None guesses from the values: `ids` where
      half of the masks hold values that are no train ids.
    reason: how the coding is known, where it is given.
    any_scale: whether a mask may have another size than its picture, as long
      as it has its shape.

  Returns:
    A `Scan`.
  """
  pairs = [pair for pair in pairs if pair[1] is not None]
  counts = np.zeros((len(pairs), 256), np.int64)
  problems = {_UNREADABLE: {}, _OUTSIDE: {}, _RESIZED: {}}

  def read(number):
    picture, mask = pairs[number]
    try:
      image = cityscapes.open_mask(mask)
      counts[number] = image.histogram()
      if picture is not None:
        size, shown = (image.height, image.width), images.read_size(picture)
        differs = size != shown
        if any_scale:
          differs = images.stretch(size, shown) > cityscapes.STRETCH
        if differs:
          problems[_RESIZED][number] = (
            f'{mask} is {size[1]}x{size[0]}, {picture} is {shown[1]}x{shown[0]}'
          )
    except ValueError as error:
      problems[_UNREADABLE][number] = str(error)

  threads.for_each(read, len(pairs), 'reading masks')
  guess, evidence = _guess_coding(counts)
  if coding is None:
    coding, reason = guess, f'guessed: {evidence}'
  pixels = np.zeros(cityscapes.NUM_CLASSES + 1, np.int64)
  for number, row in enumerate(counts):
    values = np.flatnonzero(row)
    try:
      train_ids = cityscapes.to_train_ids(values, coding=coding)
    except ValueError as error:
      problems[_OUTSIDE][number] = f'{pairs[number][1]}: {error}'
    else:
      # Unlabelled is 255, the last of the slots.
      slots = np.minimum(train_ids, cityscapes.NUM_CLASSES)
      np.add.at(pixels, slots, row[values])
  # Train ids pass for ids, most of them as unlabelled; not the other way.
  misfit = ''
  if coding == 'ids' != guess and counts.any():
    misfit = f'{evidence}, as ids would'
  return Scan(
    coding,
    reason,
    pixels,
    {
      what: [line for _, line in sorted(lines.items())]
      for what, lines in problems.items()
      if lines
    },
    misfit,
  )


def _guess_coding(counts):
  """The coding of masks with these counts of values, [N, 256], and why."""
  ids_alone = (
    counts[:, cityscapes.NUM_CLASSES : cityscapes.LAST_ID + 1].any(axis=1).sum()
  )
  readable = counts.any(axis=1).sum()
  coding = 'ids' if 0 < readable <= 2 * ids_alone else 'train_ids'
  return coding, (
    f'{ids_alone} of {readable} masks hold values from '
    f'{cityscapes.NUM_CLASSES} to {cityscapes.LAST_ID}'
  )


def _named_coding(root):
  """The coding that Cityscapes' file names tell."""
  found = any((root / 'gtFine').glob(f'*/*/[!.]*{stills.ENDINGS["ids"]}'))
  return 'ids' if found else 'train_ids'


def _still_group(root, coding, split):
  """The group of a split of stills; KITTI semantic passes any name."""
  pictures, masks, found = stills.list_files(root, coding=coding, split=split)
  there, wanted = set(found), set(masks)
  pairs = [
    (picture, mask if mask in there else None)
    for picture, mask in zip(pictures, masks, strict=True)
  ]
  pairs += [(None, mask) for mask in found if mask not in wanted]
  return Group(split, pairs, [mask for mask in masks if mask not in there])


def _raw_groups(root):
  """A group for each drive, and for each camera that has masks anywhere."""
  folder, groups = examples.Folder(root), []
  for side in ('l', 'r'):
    camera = splits.Example('', 0, side).camera
    masked = any(root.glob(f'*/*/semantic_{camera:02d}/data'))
    drives = sorted(
      {
        path.parents[1].relative_to(root).as_posix()
        for kind in ('image', 'semantic')
        for path in root.glob(f'*/*/{kind}_{camera:02d}/data')
      }
    )
    for drive in drives if masked or camera == 2 else ():
      example = splits.Example(drive, 0, side)
      pictures = folder.frames('image', example)
      masks = folder.frames('semantic', example)
      groups.append(
        Group(
          f'{drive} semantic_{camera:02d}',
          [
            (pictures.get(frame), masks.get(frame))
            for frame in sorted(pictures.keys() | masks.keys())
          ],
        )
      )
  return groups


def _format_classes(pixels):
  """The table of class shares, and the share without a label."""
  labelled, unlabelled = pixels[:-1].sum(), pixels[-1]
  lines = [f'{"class":<14}{"% of labelled pixels":>22}']
  for name, count in zip(cityscapes.NAMES, pixels[:-1], strict=True):
    share = f'{100 * count / labelled:.3f}' if count else 'absent'
    lines.append(f'{name:<14}{share:>22}')
  share = 100 * unlabelled / max(labelled + unlabelled, 1)
  return [*lines, f'unlabelled: {share:.2f} % of all pixels']
