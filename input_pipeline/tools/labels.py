"""Checks the label masks of a folder, or writes them in colour.

  python -m input_pipeline.tools.labels check ROOT
  python -m input_pipeline.tools.labels colour INPUT OUTPUT

`check` reports coverage, classes and problems of a folder in the layout of
KITTI raw, KITTI semantic or Cityscapes. `colour` writes masks as palette
pictures: their values are train ids, and viewers show Cityscapes' colours.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from input_pipeline import (
  cityscapes,
  command_line,
  files,
  images,
  masks,
  progress,
  splits,
)
from input_pipeline.sources import kitti, stills

# Layout -> the places of its masks.
_LAYOUTS = {
  'KITTI raw': 'DATE/DRIVE/semantic_02/data/*.png next to image_02 (or 03)',
  'KITTI semantic': 'semantic/*.png next to image_2',
  'Cityscapes': 'gtFine/SPLIT/CITY/*_gtFine_labelIds.png (or _labelTrainIds) '
  'next to leftImg8bit',
}
_NAMED = 10  # Files per problem that are named.
_PALETTE = np.zeros((256, 3), np.uint8)
_PALETTE[: cityscapes.NUM_CLASSES] = cityscapes.COLOURS


@dataclasses.dataclass(frozen=True)
class Group:
  """The pictures of a drive's camera or of a split, and their masks."""

  name: str
  # Paths (picture, mask); None for one that does not exist.
  pairs: list[tuple[str | None, str | None]]
  missing: list[str]  # required masks that do not exist

  def __str__(self):
    frames = sum(picture is not None for picture, _ in self.pairs)
    both = sum(None not in pair for pair in self.pairs)
    share = 100 * both / max(frames, 1)
    return f'{self.name}: {both} of {frames} frames have masks, {share:.1f} %'


@dataclasses.dataclass(frozen=True)
class Report:
  """The result of `check`; its `str` is what the command prints."""

  root: str
  layout: str
  groups: list[Group]
  scan: masks.Scan  # of all masks

  @property
  def problems(self) -> dict[str, list[str]]:
    """Kind of problem -> one line per occurrence."""
    pairs = [pair for group in self.groups for pair in group.pairs]
    found = {
      'masks without a picture': [
        mask for picture, mask in pairs if picture is None
      ],
      'missing masks': [
        mask for group in self.groups for mask in group.missing
      ],
      'a coding that the masks do not look like': [self.scan.misfit],
    }
    for what, lines in found.items():
      found[what] = [line for line in lines if line]
    found = self.scan.problems | found
    return {what: lines for what, lines in found.items() if lines}

  def __str__(self):
    scan = self.scan
    lines = [
      f'{self.root}: {self.layout}, coding {scan.coding} ({scan.reason})',
      *map(str, self.groups),
      *_format_classes(scan.pixels),
    ]
    for what, found in self.problems.items():
      lines.append(
        f'WRONG, {what}: {len(found)}{files.list_first(found, _NAMED)}'
      )
    if not self.problems:
      lines.append('nothing is wrong')
    return '\n'.join(lines)


def check(root: str | os.PathLike, *, coding: str | None = None) -> Report:
  """Reads every mask of a folder.

  Args:
    root: a folder in the layout of KITTI raw, KITTI semantic or Cityscapes.
    coding: `ids` or `train_ids`; None guesses.

  Raises:
    FileNotFoundError: if the folder holds no mask.
  """
  root, reason = pathlib.Path(root), 'as given'
  if (root / 'leftImg8bit').is_dir():
    layout = 'Cityscapes'
    if coding is None:
      named = (root / 'gtFine').glob(f'*/*/[!.]*{stills.ENDINGS["ids"]}')
      coding = 'ids' if any(named) else 'train_ids'
      reason = "guessed from the masks' names"
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
    places = [
      f'{name}: {place}'
      for name, place in _LAYOUTS.items()
      if name == layout or not pairs
    ]
    raise FileNotFoundError(
      f'there is no mask in {root}; looked for {"; ".join(places)}'
    )
  scan = masks.scan_masks(pairs, coding=coding, reason=reason)
  return Report(os.fspath(root), layout, groups, scan)


def _still_group(root, coding, split):
  """Returns the group of a split of stills; KITTI semantic takes any name."""
  pictures, wanted, found = stills.list_files(root, coding=coding, split=split)
  existing = set(found)
  pairs = [
    (picture, mask if mask in existing else None)
    for picture, mask in zip(pictures, wanted, strict=True)
  ]
  pairs += [(None, mask) for mask in sorted(existing.difference(wanted))]
  return Group(split, pairs, sorted(set(wanted) - existing))


def _raw_groups(root):
  """Returns a group per drive, for each camera that has masks anywhere."""
  folder, groups = kitti.Folder(root), []
  for side in ('l', 'r'):
    camera = splits.Example('', 0, side).camera
    masked = any(root.glob(f'*/*/semantic_{camera:02d}/data'))
    drives = {
      path.parents[1].relative_to(root).as_posix()
      for kind in ('image', 'semantic')
      for path in root.glob(f'*/*/{kind}_{camera:02d}/data')
    }
    for drive in sorted(drives) if masked or camera == 2 else ():
      example = splits.Example(drive, 0, side)
      pictures = folder.frames('image', example)
      found = folder.frames('semantic', example)
      pairs = [
        (pictures.get(frame), found.get(frame))
        for frame in sorted(pictures.keys() | found.keys())
      ]
      groups.append(Group(f'{drive} semantic_{camera:02d}', pairs, []))
  return groups


def _format_classes(pixels):
  """Formats the share of each class, and the share without a label."""
  labelled, unlabelled = pixels[:-1].sum(), pixels[-1]
  lines = [f'{"class":<14}{"% of labelled pixels":>22}']
  for name, count in zip(cityscapes.NAMES, pixels[:-1], strict=True):
    share = f'{100 * count / labelled:.3f}' if count else 'absent'
    lines.append(f'{name:<14}{share:>22}')
  share = 100 * unlabelled / max(labelled + unlabelled, 1)
  return [*lines, f'unlabelled: {share:.2f} % of all pixels']


def colour(
  source: str | os.PathLike,
  output: str | os.PathLike,
  *,
  coding: str | None = None,
) -> str:
  """Writes masks as 8-bit palette PNGs of train ids in Cityscapes' colours.

  `images.read_mask` reads them like any mask of train ids; unlabelled pixels
  are black. All masks are checked before the first is written, and no file is
  overwritten.

  Args:
    source: a mask, or a folder whose `*.png` are masks.
    output: for a mask the file to write; for a folder the folder.
    coding: `ids` or `train_ids`; None guesses.

  Returns:
    A one-line summary.

  Raises:
    FileNotFoundError: if there is no mask.
    ValueError: if a mask cannot be read or holds a value outside the coding, or
      a file would be overwritten.
  """
  source, output = pathlib.Path(source), pathlib.Path(output)
  sources, targets = [source], [output]
  if source.is_dir():
    found = files.list_stems(source, ('.png',))
    sources = [pathlib.Path(path) for path in found.values()]
    targets = [output / f'{stem}.png' for stem in found]
  if not sources or not sources[0].is_file():
    raise FileNotFoundError(f'there is no mask {source} or {source}/*.png')
  existing = [path for path in targets if path.exists()]
  if existing:
    raise ValueError(
      f'{existing[0]} already exists: move it away, or use another output'
    )
  scan = masks.scan_masks([(None, path) for path in sources], coding=coding)
  scan.check('--coding')

  def write(number):
    train_ids = images.read_mask(sources[number], coding=scan.coding)
    image = Image.fromarray(train_ids)
    image.putpalette(_PALETTE.tobytes())
    with files.whole_file(targets[number]) as partial:
      image.save(partial, format='PNG')

  progress.for_each(write, len(sources), 'writing pictures')
  return (
    f'{output}: {len(sources)} pictures of train ids, from masks coded as '
    f'{scan.coding} ({scan.reason})'
  )


def main(arguments: Sequence[str] | None = None) -> None:
  """Parses the command line and runs the command.

  Exits with 1 if a check finds a problem or the command fails.
  """
  parser = argparse.ArgumentParser(
    prog='python -m input_pipeline.tools.labels', description='Label masks.'
  )
  commands = parser.add_subparsers(dest='command', required=True)
  for name, text, paths in (
    ('check', 'report coverage, classes and problems', ('root',)),
    ('colour', 'write as palette pictures of train ids', ('input', 'output')),
  ):
    command = commands.add_parser(name, help=text, description=text)
    for path in paths:
      command.add_argument(path, type=command_line.local_path)
    command.add_argument(
      '--coding',
      choices=cityscapes.CODINGS,
      help='coding of the values of the masks; guessed if not given',
    )
  options = parser.parse_args(arguments)
  with command_line.report_errors():
    if options.command == 'colour':
      print(colour(options.input, options.output, coding=options.coding))
      return
    report = check(options.root, coding=options.coding)
    print(report)
    sys.exit(1 if report.problems else 0)


if __name__ == '__main__':
  main()
