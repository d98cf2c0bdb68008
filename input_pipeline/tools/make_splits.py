"""Makes training and validation lists from a KITTI raw folder.

  python -m input_pipeline.tools.make_splits --root=KITTI --output=DIR

Takes every frame whose neighbours exist and in which the car moves, from every
drive below the root (ROOT/DATE/DRIVE/image_02/data and image_03/data), and
splits them by drive: both cameras of a drive go to the same list. A single
drive is split by time. With --ground_truth=KIND, frames without it are left out
of the validation list. DIR then holds train.txt and val.txt, in the format of
`splits`, and summary.json. The same folder and arguments give the same bytes.
"""

import argparse
import collections
import dataclasses
import hashlib
import inspect
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from input_pipeline import (
  command_line,
  files,
  progress,
  splits,
)
from input_pipeline.sources import kitti, truths
from input_pipeline.tools import motion

# The drives of Eigen et al.'s 697 test frames.
_EIGEN_NUMBERS = {
  '2011_09_26': '2 9 13 20 23 27 29 36 46 48 52 56 59 64 84 86 93 96 101 106 '
  '117',
  '2011_09_28': '2',
  '2011_09_29': '71',
  '2011_09_30': '16 18 27',
  '2011_10_03': '27 47',
}
EIGEN_TEST = tuple(
  f'{date}_drive_{int(number):04d}'
  for date, numbers in _EIGEN_NUMBERS.items()
  for number in numbers.split()
)
# Sequences 09 and 10 of KITTI odometry, on which its publications test.
ODOMETRY_TEST = ('2011_09_30_drive_0033', '2011_09_30_drive_0034')
EXCLUSIONS = {
  'eigen_test': ('Eigen test drive', EIGEN_TEST),
  'odometry_test': ('odometry test drive', ODOMETRY_TEST),
  'none': ('', ()),
}
_FRAMES_PER_HOUR = 36000  # KITTI's 10 Hz


@dataclasses.dataclass
class _Drive:
  """A drive, while its frames are chosen."""

  name: str  # DATE/DRIVE
  kept: list[splits.Example] = dataclasses.field(default_factory=list)
  lacking: list[str] = dataclasses.field(default_factory=list)  # sides
  # Reason -> frames dropped, both cameras counted.
  dropped: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  # Method -> moments judged; see `motion.find_standing`.
  judged_by: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )


def make_splits(
  root: str | os.PathLike,
  output: str | os.PathLike,
  *,
  validation_share: float = 0.1,
  seed: int = 0,
  cameras: Sequence[str] = ('l', 'r'),
  min_speed: float = 0.5,
  exclude: Sequence[str] = ('eigen_test',),
  frame_offsets: Sequence[int] = (-1, 1),
  ground_truth: str = 'none',
  ground_truth_root: str = '',
) -> dict[str, Any]:
  """Writes train.txt, val.txt and summary.json.

  Args:
    root: the KITTI raw folder.
    output: the folder to make; absent or empty.
    validation_share: share of the frames to validate on, in (0, 1).
    seed: decides which drives validate.
    cameras: sides to list, `l`, `r` or both.
    min_speed: metres per second below which the car stands; 0 keeps all.
    exclude: names of `EXCLUSIONS`.
    frame_offsets: offsets of the neighbours that a frame must have; 0 is the
      frame itself.
    ground_truth: kind that every validation frame must have, see `truths`.
    ground_truth_root: the folder of `improved`; '' is the root.

  Returns:
    The content of summary.json.

  Raises:
    FileNotFoundError: if no drive is found, or a date has no calibration.
    ValueError: if an argument or a file is wrong, or no frame is left.
  """
  arguments = {
    'validation_share': validation_share,
    'seed': seed,
    'cameras': list(cameras),
    'min_speed': min_speed,
    'exclude': list(exclude),
    'frame_offsets': sorted(set(frame_offsets) - {0}),
    'ground_truth': ground_truth,
  }
  _check_arguments(arguments)
  root, output = pathlib.Path(root), pathlib.Path(output).absolute()
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    raise ValueError(
      f'{output} exists and is not empty: give another --output or remove it'
    )
  with files.whole_folder(output) as made:
    folder = kitti.Folder(os.fspath(root))
    truth = truths.open_truth(
      ground_truth, folder, improved_root=ground_truth_root
    )
    drives, excluded = _list_drives(root, folder, arguments)
    train, validation = _split(drives, root, excluded, arguments)
    if truth is not None:
      validation = _drop_without_truth(truth, drives, validation, ground_truth)
    for name, lines in (('train', train), ('val', validation)):
      text = ''.join(f'{line}\n' for line in lines)
      (made / f'{name}.txt').write_text(text, encoding='utf-8')
    summary = _summarize(drives, excluded, train, validation, arguments)
    (made / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
  return summary


def _check_arguments(arguments):
  share, cameras = arguments['validation_share'], arguments['cameras']
  exclude, kind = arguments['exclude'], arguments['ground_truth']
  kinds = 'none', *truths.KINDS
  for correct, message in (
    (
      0 < share < 1,
      f'--validation_share is {share}: give a share between 0 and 1, as in 0.1',
    ),
    (
      sorted(cameras) in (['l'], ['r'], ['l', 'r']),
      f'--cameras is {",".join(cameras)}: give l, r or l,r',
    ),
    (
      set(exclude) <= set(EXCLUSIONS),
      f'--exclude is {",".join(exclude)}: choose from {", ".join(EXCLUSIONS)}',
    ),
    (
      arguments['frame_offsets'],
      '--frame_offsets names no neighbour: give offsets other than 0',
    ),
    (
      kind in kinds,
      f'--ground_truth is {kind}: choose from {", ".join(kinds)}',
    ),
  ):
    if not correct:
      raise ValueError(message)


def _list_drives(root, folder, arguments):
  """Returns the drives with their frames, and name -> why it is excluded."""
  names = sorted(
    {
      path.parents[1].relative_to(root).as_posix()
      for path in root.glob('*/*/image_0[23]/data')
      if path.is_dir()
    }
  )
  if not names:
    raise FileNotFoundError(
      f'no drive below {root}: pass --root=FOLDER, the folder that holds '
      'DATE/DRIVE/image_02/data or DATE/DRIVE/image_03/data'
    )
  excluded, drives = {}, []
  for name in names:
    reason = _exclusion(name, arguments['exclude'])
    if reason:
      excluded[name] = reason
    else:
      drives.append(_list_drive(folder, name, arguments))
  if arguments['min_speed'] > 0:
    for drive in progress.bar(drives, 'judging the speed of drives'):
      _drop_standing(folder, drive, arguments)
  for drive in drives:
    if not drive.kept:
      dropped = _format_counts(+drive.dropped) or 'the cameras have none'
      excluded[drive.name] = f'no frame left: {dropped}'
  return drives, excluded


def _exclusion(drive, exclude):
  """Returns why a drive is left out, or None."""
  name = drive.rpartition('/')[2]
  if name.endswith('_extract'):
    return 'not rectified (_extract; take the _sync drive)'
  for reason, drives in map(EXCLUSIONS.get, exclude):
    if name.removesuffix('_sync') in drives:
      return reason
  return None


def _list_drive(folder, name, arguments):
  """Lists the frames that have their neighbours."""
  drive = _Drive(name)
  for side in arguments['cameras']:
    frames = folder.frames('image', splits.Example(name, 0, side))
    if not frames:
      drive.lacking.append(side)
      continue
    last = splits.Example(name, max(frames), side)
    # Raises if the name has a space or the number more than ten digits.
    splits.parse_lines([str(last)], source=f'a list with {frames[last.frame]}')
    # Raises if the calibration lacks the camera.
    calibration = folder.calibration(last)
    kitti.intrinsics(calibration, camera=last.camera, height=1, width=1)
    for frame in sorted(frames):
      if all(frame + offset in frames for offset in arguments['frame_offsets']):
        drive.kept.append(splits.Example(name, frame, side))
      else:
        drive.dropped['no neighbour'] += 1
  return drive


def _drop_standing(folder, drive, arguments):
  still, drive.judged_by = motion.find_standing(
    folder,
    list({line.frame: line for line in reversed(drive.kept)}.values()),
    # -1 rather than 1: the previous frame, if both are asked for.
    neighbour=min(arguments['frame_offsets'], key=lambda n: (abs(n), n)),
    min_speed=arguments['min_speed'],
  )
  kept = [line for line in drive.kept if line.frame not in still]
  drive.dropped['standing'] += len(drive.kept) - len(kept)
  drive.kept = kept


def _split(drives, root, excluded, arguments):
  """Returns training and validation lines; a single drive gets a gap."""
  share, drives = arguments['validation_share'], [d for d in drives if d.kept]
  if not drives:
    reasons = collections.Counter(excluded.values()).most_common(10)
    reasons = [
      f'{files.count_of(count, "drive")}: {reason}' for reason, count in reasons
    ]
    raise ValueError(
      f'nothing is left of {root}: {"; ".join(reasons)}. See --exclude, '
      '--cameras, --min_speed and --frame_offsets'
    )
  if len(drives) > 1:
    sizes = {drive.name: len(drive.kept) for drive in drives}
    chosen = split_by_drive(sizes, share=share, seed=arguments['seed'])
    lists = [], []
    for drive in drives:
      lists[drive.name in chosen].extend(drive.kept)
    return lists
  drive = drives[0]
  train, validation = split_by_time(
    drive.kept, share=share, frame_offsets=arguments['frame_offsets']
  )
  if not train:
    raise ValueError(
      f'{drive.name} is the only drive left of {root} and its '
      f'{files.count_of(len(drive.kept), "frame")} are too few to split in two '
      'with a gap between: add drives or give a smaller --validation_share'
    )
  drive.dropped['in the gap'] = len(drive.kept) - len(train) - len(validation)
  return train, validation


def _drop_without_truth(truth, drives, validation, kind):
  kept = [line for line in validation if not truth.missing(line)]
  lost = collections.Counter(line.drive for line in set(validation) - set(kept))
  for drive in drives:
    drive.dropped['no ground truth'] += lost[drive.name]
  if not kept:
    raise ValueError(
      f'none of the {files.count_of(len(validation), "validation frame")} has '
      f'the ground truth {kind!r}, the first lacks '
      f'{truth.missing(validation[0])[0]}: give another --ground_truth, '
      '--ground_truth_root or --seed'
    )
  return kept


def _summarize(drives, excluded, train, validation, arguments):
  """Counts kept and dropped frames, for summary.json."""
  parts = {'train': train, 'validation': validation}
  frames, totals = {}, {}
  for part, lines in parts.items():
    frames[part] = collections.Counter(line.drive for line in lines)
    moments = {(line.drive, line.frame) for line in lines}
    totals[part] = {
      'drives': len(frames[part]),
      'frames': len(lines),
      'hours': round(len(moments) / _FRAMES_PER_HOUR, 4),
    }
  shared = frames['train'].keys() & frames['validation'].keys()
  dropped = sum((drive.dropped for drive in drives), collections.Counter())
  lacking = collections.Counter(side for d in drives for side in d.lacking)
  return {
    'arguments': arguments,
    'split_by': 'time' if shared else 'drive',
    **totals,
    'dropped': dict(dropped),
    'excluded': excluded,
    'lacks_cameras': dict(lacking),
    'drives': {
      drive.name: {
        **{part: frames[part][drive.name] for part in parts},
        'dropped': dict(+drive.dropped),
        'judged_by': dict(drive.judged_by),
        'lacks_cameras': drive.lacking,
      }
      for drive in drives
    },
  }


def describe(summary: Mapping[str, Any]) -> list[str]:
  """Formats a summary: the drives, the exclusions, the totals."""
  lines = []
  for name, drive in summary['drives'].items():
    parts = {part: drive[part] for part in ('train', 'validation')}
    text = f'{name}: {_format_counts(+collections.Counter(parts))}'
    if not any(parts.values()):
      text = f'{name}: nothing kept'
    if drive['dropped']:
      text += f'; dropped {_format_counts(drive["dropped"])}'
    methods = {f'by {way}': count for way, count in drive['judged_by'].items()}
    lines.append(f'{text}; standing judged: {_format_counts(methods) or "no"}')
  for name, reason in summary['excluded'].items():
    lines.append(f'{name}: excluded, {reason}')
  if summary['split_by'] == 'time':
    lines.append(
      'a single drive is left, so it is split by time: its last part '
      'validates, after a gap'
    )
  for part in ('train', 'validation'):
    total = summary[part]
    frames = files.count_of(total['frames'], 'frame')
    drives = files.count_of(total['drives'], 'drive')
    lines.append(f'{part}: {frames} from {drives}, {total["hours"]} hours')
  dropped = _format_counts(summary['dropped']) or 'none'
  lines.append(f'dropped frames: {dropped}')
  for side, count in summary['lacks_cameras'].items():
    lines.append(f'{files.count_of(count, "drive")} without camera {side}')
  return lines


def _format_counts(counts):
  """Formats {standing: 3, no neighbour: 2} as `3 standing, 2 no neighbour`."""
  return ', '.join(f'{count} {what}' for what, count in counts.items())


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
  examples: Sequence[splits.Example],
  *,
  share: float,
  frame_offsets: Sequence[int],
) -> tuple[list[splits.Example], list[splits.Example]]:
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


def main(arguments: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the lists."""
  parser = argparse.ArgumentParser(
    prog='python -m input_pipeline.tools.make_splits',
    description='Make training and validation lists from a KITTI raw folder.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  path, words = command_line.local_path, command_line.words
  for name, text in (
    ('root', 'the KITTI raw folder'),
    ('output', 'new folder'),
  ):
    parser.add_argument(f'--{name}', required=True, type=path, help=text)
  parameters = inspect.signature(make_splits).parameters
  for name, kind, text in (
    ('validation_share', float, 'share of the frames to validate on'),
    ('seed', int, 'decides which drives validate'),
    ('cameras', words, 'l for image_02, r for image_03'),
    (
      'min_speed',
      float,
      'm/s below which the car stands, by oxts (without oxts pictures are '
      'compared); 0 keeps standing frames',
    ),
    (
      'exclude',
      words,
      'eigen_test, odometry_test (sequences 09 and 10), both with a comma '
      'between, or none',
    ),
    ('frame_offsets', command_line.whole_numbers, 'neighbours of a frame'),
    (
      'ground_truth',
      str,
      'frames without it do not validate: lidar, lidar_z, improved or dense',
    ),
    ('ground_truth_root', path, 'of improved, with train/ and val/; else root'),
  ):
    default = parameters[name].default
    if isinstance(default, tuple):
      default = ','.join(map(str, default))
    parser.add_argument(f'--{name}', type=kind, default=default, help=text)
  options = vars(parser.parse_args(arguments))
  with command_line.report_errors():
    summary = make_splits(**options)
  print('\n'.join(describe(summary)))
  print(f'{options["output"]}: train.txt, val.txt, summary.json')


if __name__ == '__main__':
  main()
