"""Split lists: which frames a training or an evaluation uses.

The published format, one example a line: `DRIVE FRAME SIDE`, as in
`2011_09_26/2011_09_26_drive_0022_sync 473 r`. DRIVE is a folder below the root,
FRAME the number of the target frame, SIDE `l` for the left colour camera
(image_02) or `r` for the right one (image_03). Blank lines and lines that start
with `#` are skipped.
"""

import dataclasses
import hashlib
import os
import re

_CAMERAS = {'l': 2, 'r': 3}
_FRAME = re.compile(r'[0-9]{1,10}')


@dataclasses.dataclass(frozen=True)
class Example:
  """One line of a split list.

  Attributes:
    drive: the drive's folder below the root, with forward slashes.
    frame: number of the target frame, from 0.
    side: `l` or `r`.
  """

  drive: str
  frame: int
  side: str

  @property
  def camera(self):
    """Number of the KITTI camera: 2 (left colour) or 3 (right colour)."""
    return _CAMERAS[self.side]

  def __str__(self):
    return f'{self.drive} {self.frame} {self.side}'


def find_split(split, root):
  """Where a split list lies.

  Args:
    split: path of the list: absolute, relative to the working directory, or
      else below the root.
    root: the data folder.

  Returns:
    The path of an existing file.

  Raises:
    FileNotFoundError: there is no such file in either place.
  """
  below = os.path.join(root, split)
  for path in (split, below):
    if os.path.isfile(path):
      return path
  places = split if os.path.isabs(split) else f'{split} nor at {below}'
  raise FileNotFoundError(
    f'no split list at {places}; pass lists of DRIVE FRAME SIDE lines as '
    'train_split and eval_split'
  )


def read_split(path):
  """Reads a split list.

  Args:
    path: the text file.

  Returns:
    A non-empty list of `Example`, in the order of the file.

  Raises:
    ValueError: a line does not parse (the message names file and line) or the
      list is empty.
  """
  # Bytes that are no UTF-8 become marks that fail below, with their line.
  with open(path, encoding='utf-8-sig', errors='replace') as file:
    return parse_lines(file.read().split('\n'), source=path)


def parse_lines(lines, *, source):
  """Parses the lines of a split list.

  Args:
    lines: iterable of strings.
    source: what to call the list in messages, its path as a rule.

  Returns:
    A non-empty list of `Example`.

  Raises:
    ValueError: a line does not parse, or there is no example at all.
  """
  examples = []
  for number, line in enumerate(lines, start=1):
    text = line.strip()
    if text and not text.startswith('#'):
      examples.append(_parse_line(text, where=f'{source}, line {number}'))
  if not examples:
    raise ValueError(
      f'{source} names no example: it needs at least one line '
      '`DRIVE FRAME SIDE`'
    )
  return examples


def split_by_drive(sizes, *, share, seed):
  """Chooses the drives to validate on.

  In an order that the seed decides, takes every drive that does not exceed the
  share, then the smallest one left if that comes nearer.

  Args:
    sizes: drive -> number of its frames, > 0; two drives or more.
    share: share of the frames to choose, in (0, 1).
    seed: integer.

  Returns:
    The chosen drives, a set; neither empty nor all.
  """
  # A hash, so that the order of the others stays when a drive is added.
  order = sorted(
    sizes, key=lambda drive: hashlib.sha256(f'{seed} {drive}'.encode()).digest()
  )
  missing = share * sum(sizes.values())
  chosen = set()
  for drive in order:
    if sizes[drive] <= missing and len(chosen) + 1 < len(order):
      chosen.add(drive)
      missing -= sizes[drive]
  left = [drive for drive in order if drive not in chosen]
  smallest = min(left, key=sizes.get)
  nearer = sizes[smallest] - missing < missing
  if len(left) > 1 and (not chosen or nearer):
    chosen.add(smallest)
  return chosen


def split_by_time(examples, *, share, frame_offsets):
  """Splits a single drive: its end validates.

  Between the parts lies a gap, so that no frame is the target or a neighbour
  of both.

  Args:
    examples: `Example` of one drive.
    share: share of its moments to validate on, in (0, 1).
    frame_offsets: offsets of the neighbours.

  Returns:
    Training and validation examples; the former are none where there are too
    few.
  """
  moments = sorted({example.frame for example in examples})
  first = moments[-max(round(share * len(moments)), 1)]
  end = first + min(0, *frame_offsets) - max(0, *frame_offsets)
  return (
    [example for example in examples if example.frame < end],
    [example for example in examples if example.frame >= first],
  )


def _parse_line(text, *, where):
  fields = text.split()
  if len(fields) != 3:
    raise ValueError(
      f'{where}: expected the three fields `DRIVE FRAME SIDE`, '
      f'found {len(fields)}: {text[:80]!r}'
    )
  drive, frame, side = fields
  if not _FRAME.fullmatch(frame):
    raise ValueError(
      f'{where}: the frame must be a number of at most ten '
      f'digits, found {frame[:80]!r}'
    )
  if side not in _CAMERAS:
    raise ValueError(f'{where}: the side must be l or r, found {side[:80]!r}')
  folders = drive.split('/')
  if os.path.isabs(drive) or '..' in folders or '\0' in drive:
    raise ValueError(
      f'{where}: the drive must be a folder below the root, '
      f'found {drive[:80]!r}'
    )
  return Example(drive=drive.rstrip('/'), frame=int(frame), side=side)
