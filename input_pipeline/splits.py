"""Split lists: which frames a training or an evaluation uses.

The published format, one example a line: `DRIVE FRAME SIDE`, as in
`2011_09_26/2011_09_26_drive_0022_sync 473 r`. DRIVE is a folder below the root,
FRAME the number of the target frame, SIDE `l` for the left colour camera
(image_02) or `r` for the right one (image_03). Blank lines and lines that start
with `#` are skipped.
"""

import dataclasses
import os
import re
from collections.abc import Iterable

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
  """Returns the path of a split list: as given, or below the root."""
  paths = dict.fromkeys((split, os.path.join(root, split)))
  for path in paths:
    if os.path.isfile(path):
      return path
  raise FileNotFoundError(
    f'no split list at {" nor at ".join(paths)}; pass lists of DRIVE FRAME '
    'SIDE lines as train_split and eval_split'
  )


def read_split(path: str | os.PathLike[str]) -> list[Example]:
  """Reads a split list; see `parse_lines`."""
  # Bytes that are not UTF-8 are replaced by characters that do not parse.
  with open(path, encoding='utf-8-sig', errors='replace') as file:
    return parse_lines(file.read().split('\n'), source=path)


def parse_lines(lines: Iterable[str], *, source: object) -> list[Example]:
  """Parses the lines of a split list; returns at least one example.

  `source` names the list in messages.
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
