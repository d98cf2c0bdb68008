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
from collections.abc import Iterable, Mapping, Sequence

_CAMERAS = {'l': 2, 'r': 3}
_LINE = re.compile(r'(?!/)(\S+?)/*\s+([0-9]{1,10})\s+([lr])')


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
  def camera(self) -> int:
    """Number of the KITTI camera: 2 (left colour) or 3 (right colour)."""
    return _CAMERAS[self.side]

  def __str__(self):
    return f'{self.drive} {self.frame} {self.side}'


def find_split(split: str, root: str) -> str:
  """Path of a split list: as given, or else below the root."""
  below = os.path.join(root, split)
  for path in (split, below):
    if os.path.isfile(path):
      return path
  places = split if os.path.isabs(split) else f'{split} nor at {below}'
  raise FileNotFoundError(
    f'no split list at {places}; pass lists of DRIVE FRAME SIDE lines as '
    'train_split and eval_split'
  )


def read_split(path: str | os.PathLike[str]) -> list[Example]:
  """Reads a split list; see `parse_lines`."""
  # Bytes that are not UTF-8 become marks, which do not parse.
  with open(path, encoding='utf-8-sig', errors='replace') as file:
    return parse_lines(file.read().split('\n'), source=path)


def parse_lines(lines: Iterable[str], *, source: object) -> list[Example]:
  """Parses the lines of a split list; returns at least one example.

  Args:
    lines: the lines.
    source: the name of the list in messages, usually its path.
  """
  examples = []
  for number, line in enumerate(lines, start=1):
    text = line.strip()
    if text and not text.startswith('#'):
      match = _LINE.fullmatch(text)
      if not match or '..' in match[1].split('/') or '\0' in match[1]:
        raise ValueError(
          f'{source}, line {number}: expected `DRIVE FRAME SIDE`, a folder '
          'below the root, a number of at most ten digits and l or r, found '
          f'{text[:80]!r}'
        )
      examples.append(Example(match[1], int(match[2]), match[3]))
  if not examples:
    raise ValueError(
      f'{source} has no example: it needs at least one line `DRIVE FRAME SIDE`'
    )
  return examples


def split_by_drive(
  sizes: Mapping[str, int], *, share: float, seed: int
) -> set[str]:
  """Chooses the drives to validate on.

  In an order that the seed decides, takes every drive that does not exceed the
  share, then the smallest one left if that comes nearer.

  Args:
    sizes: drive -> number of its frames, > 0; two drives or more.
    share: share of the frames to choose, in (0, 1).
    seed: integer.

  Returns:
    The chosen drives; neither none nor all.
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


def split_by_time(
  examples: Sequence[Example], *, share: float, frame_offsets: Sequence[int]
) -> tuple[list[Example], list[Example]]:
  """Splits a single drive: its end validates.

  A gap lies between the parts, so that no frame is the target or a neighbour of
  both.

  Args:
    examples: examples of one drive.
    share: share of its moments to validate on, in (0, 1).
    frame_offsets: offsets of the neighbours.

  Returns:
    Training and validation examples; no training examples if there are too few.
  """
  moments = sorted({example.frame for example in examples})
  first = moments[-max(round(share * len(moments)), 1)]
  end = first + min(0, *frame_offsets) - max(0, *frame_offsets)
  return (
    [example for example in examples if example.frame < end],
    [example for example in examples if example.frame >= first],
  )
