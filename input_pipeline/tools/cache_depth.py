"""Writes the ground truth of a split into one compressed file.

  python -m input_pipeline.tools.cache_depth --root=KITTI --split=LIST \
    --kind=lidar --output=FILE.npz

Evaluation reads it with `--config.data.ground_truth_file=FILE.npz` (and the
same `--config.data.ground_truth`); the figures equal those of depth maps that
are computed during the evaluation.
"""

import argparse
import os
import zipfile
from collections.abc import Sequence

import numpy as np

from input_pipeline import (
  command_line,
  files,
  progress,
  splits,
)
from input_pipeline.sources import kitti, truths


def write_truth(
  root: str | os.PathLike,
  split: str | os.PathLike,
  *,
  kind: str,
  output: str | os.PathLike,
  improved_root: str = '',
) -> int:
  """Writes the depth maps of a split.

  Args:
    root: a KITTI raw folder.
    split: path of a split list, as `splits.find_split` takes it.
    kind: one of `truths.KINDS`.
    output: path of the file, `.npz`.
    improved_root: see `truths.open_truth`.

  Returns:
    The number of depth maps written; 0 if the file already held them.

  Raises:
    FileNotFoundError, ValueError: if a file is absent or cannot be read, or
      the output exists and differs.
  """
  if os.path.isdir(output) or os.fspath(output).endswith('/'):
    raise ValueError(f'--output={output} is a folder; name a file')
  folder = kitti.Folder(root)
  lines = splits.read_split(splits.find_split(split, root))
  lines = list(dict.fromkeys(lines))
  truth = truths.open_truth(kind, folder, improved_root=improved_root)
  digest = folder.digest(path for line in lines for path in truth.sources(line))
  if os.path.exists(output):
    _check_same(output, kind, lines, digest)
    return 0
  missing = [path for line in lines for path in truth.missing(line)]
  if missing:
    hint = f'; {truths.IMPROVED_HINT}' if kind == 'improved' else ''
    raise ValueError(
      f'{files.count_of(len(missing), "file")} missing, beginning with '
      f'{", ".join(missing[:10])}{hint}'
    )
  with (
    files.whole_file(output) as partial,
    zipfile.ZipFile(partial, 'w', zipfile.ZIP_DEFLATED) as archive,
  ):
    _add(archive, 'kind', kind)
    _add(archive, 'digest', digest)
    _add(archive, 'examples', list(map(str, lines)))
    _add(archive, 'sizes', np.array(list(map(truth.size, lines)), np.int32))
    for row, line in enumerate(progress.bar(lines, 'writing depth maps')):
      _add(archive, truths.member(row), truth.read(line))
  return len(lines)


def _check_same(output, kind, lines, digest):
  """Raises ValueError if a file differs from the one asked for."""
  stored = truths.StoredTruth(output, kind)
  other = 'examples' if list(stored.examples) != list(map(str, lines)) else ''
  if not other and stored.digest != digest:
    other = 'files, or they have changed since'
  if other:
    raise ValueError(
      f'{output} was made from other {other}; remove it, or choose another '
      '--output'
    )


def _add(archive, name, value):
  with archive.open(f'{name}.npy', 'w', force_zip64=True) as file:
    np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parses the command line and writes the file."""
  parser = argparse.ArgumentParser(
    prog='python -m input_pipeline.tools.cache_depth',
    description='Write the ground truth of a split into one file.',
  )
  for name, text in (
    ('root', 'a KITTI raw folder'),
    ('split', 'a list of DRIVE FRAME SIDE lines'),
    ('output', 'the .npz file to write'),
  ):
    parser.add_argument(
      f'--{name}', required=True, type=command_line.local_path, help=text
    )
  parser.add_argument('--kind', required=True, choices=truths.KINDS)
  parser.add_argument(
    '--ground_truth_root',
    default='',
    dest='improved_root',
    type=command_line.local_path,
    help="folder of train/ and val/ of KITTI's annotated depth, else --root",
  )
  options = vars(parser.parse_args(arguments))
  with command_line.report_errors():
    count = write_truth(**options)
  done = f'{count} depth maps written' if count else 'already exists, unchanged'
  print(f'{options["output"]}: {done}')


if __name__ == '__main__':
  main()
