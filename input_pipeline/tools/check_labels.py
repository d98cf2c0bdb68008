"""Looks at every mask of a folder: coverage, classes, and what is wrong.

A mask is decoded once, and all is read off the counts of its 256 values.
"""

import dataclasses
import os
import pathlib

from input_pipeline import cityscapes, examples, masks, splits
from input_pipeline.sources import stills

# Layout -> where its masks lie.
_LAYOUTS = {
  'KITTI raw': 'DATE/DRIVE/semantic_02/data/*.png beside image_02 (or 03)',
  'KITTI semantic': 'semantic/*.png beside image_2',
  'Cityscapes': 'gtFine/SPLIT/CITY/*_gtFine_labelIds.png (or _labelTrainIds) '
  'beside leftImg8bit',
}
_NAMED = 10  # Files of a problem that are named.
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
class Report:
  """What `check` found; its `str` is what the command prints.

  Attributes:
    root: the folder.
    layout: `KITTI raw`, `KITTI semantic` or `Cityscapes`.
    groups: list of `Group`.
    scan: the `masks.Scan` of all their masks.
  """

  root: str
  layout: str
  groups: list
  scan: masks.Scan

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
  reason = 'as given'
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
    masks.scan_masks(pairs, coding=coding, reason=reason),
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
