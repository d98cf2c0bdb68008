"""Makes training and validation lists from a KITTI raw folder.

  python -m input_pipeline.tools.make_splits --root=KITTI --output=DIR

Takes every frame whose neighbours exist and in which the car moves, from every
drive below the root (ROOT/DATE/DRIVE/image_02/data and image_03/data), and
splits them by drive: both cameras of a drive go to the same list. A single
drive is split by time. With --ground_truth=KIND, frames without it do not
validate. DIR then holds train.txt and val.txt, in the format of
`splits`, and summary.json. The same folder and arguments give the same bytes.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib

from input_pipeline import (
  command_line,
  examples,
  files,
  progress,
  splits,
  truths,
)
from input_pipeline.tools import split_summary, standing

# The drives of Eigen et al.'s 697 test frames.
EIGEN_TEST = tuple(
  f'{date}_drive_{number:04d}'
  for date, numbers in (
    (
      '2011_09_26',
      (
        2,
        9,
        13,
        20,
        23,
        27,
        29,
        36,
        46,
        48,
        52,
        56,
        59,
        64,
        84,
        86,
        93,
        96,
        101,
        106,
        117,
      ),
    ),
    ('2011_09_28', (2,)),
    ('2011_09_29', (71,)),
    ('2011_09_30', (16, 18, 27)),
    ('2011_10_03', (27, 47)),
  )
  for number in numbers
)
# Sequences 09 and 10 of KITTI odometry, which its publications test on.
ODOMETRY_TEST = ('2011_09_30_drive_0033', '2011_09_30_drive_0034')
EXCLUSIONS = {
  'eigen_test': ('Eigen test drive', EIGEN_TEST),
  'odometry_test': ('odometry test drive', ODOMETRY_TEST),
  'none': ('', ()),
}
SIDES = ('l', 'r')


@dataclasses.dataclass
class Drive:
  """A drive, while its frames are chosen.

  Attributes:
    name: `DATE/DRIVE`.
    kept: list of `splits.Example`.
    lacking: sides without a frame.
    dropped: reason -> frames dropped, both cameras counted.
    judged_by: method -> moments judged; see `standing.find_standing`.
  """

  name: str
  kept: list
  lacking: list
  dropped: collections.Counter
  judged_by: collections.Counter


def make_splits(
  root,
  output,
  *,
  validation_share=0.1,
  seed=0,
  cameras=SIDES,
  min_speed=0.5,
  exclude=('eigen_test',),
  frame_offsets=(-1, 1),
  ground_truth='none',
  ground_truth_root='',
):
  """Writes train.txt, val.txt and summary.json.

  Args:
    root: the KITTI raw folder.
    output: the folder to make; absent or empty.
    validation_share: share of the frames to validate on, in (0, 1).
    seed: decides which drives validate.
    cameras: sides to list, of `SIDES`.
    min_speed: metres per second below which the car stands; 0 keeps all.
    exclude: names of `EXCLUSIONS`.
    frame_offsets: offsets of the neighbours that a frame must have; 0 is the
      frame itself.
    ground_truth: kind that every validation frame must have, see `truths`.
    ground_truth_root: the folder of `improved`; '' is the root.

  Returns:
    The summary, as summary.json holds it.

  Raises:
    FileNotFoundError: there is no such root, no drive in it, or a date has no
      calibration.
    ValueError: an argument or a file is wrong, or no frame is left.
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
  output = pathlib.Path(output).absolute()
  if output.exists() and not (output.is_dir() and not any(output.iterdir())):
    raise ValueError(
      f'{output} exists and is not empty: give another --output or remove it'
    )
  names = find_drives(root)
  # Made first, so that a folder which cannot be is refused before the work.
  with files.whole_folder(output) as made:
    summary, *lists = _make_lists(root, names, arguments, ground_truth_root)
    for name, lines in zip(('train.txt', 'val.txt'), lists, strict=True):
      (made / name).write_text(
        ''.join(f'{line}\n' for line in lines), encoding='utf-8'
      )
    (made / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
  return summary


def _make_lists(root, names, arguments, ground_truth_root):
  """Returns the summary and the lines of both lists."""
  excluded = {
    name: reason
    for name in names
    if (reason := _exclusion(name, arguments['exclude']))
  }
  folder = examples.Folder(os.fspath(root))
  truth = truths.open_truth(
    arguments['ground_truth'], folder, improved_root=ground_truth_root
  )
  drives = [
    _list_drive(folder, name, arguments)
    for name in names
    if name not in excluded
  ]
  _drop_standing(folder, drives, arguments)
  excluded |= {
    drive.name: _why_empty(drive) for drive in drives if not drive.kept
  }
  train, validation = _split(
    [drive for drive in drives if drive.kept], root, excluded, arguments
  )
  if truth is not None:
    validation = _drop_without_truth(truth, drives, validation, arguments)
  summary = split_summary.summarize(
    drives, excluded, train, validation, arguments
  )
  return summary, train, validation


def find_drives(root):
  """Finds the drives below a KITTI raw folder.

  Args:
    root: the folder.

  Returns:
    Sorted list of `DATE/DRIVE` that hold image_02/data or image_03/data.

  Raises:
    FileNotFoundError: there is no such folder, or no drive in it.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise FileNotFoundError(
      f'there is no folder {root}; pass --root=FOLDER, the folder that holds '
      '2011_09_26 and the other dates'
    )
  drives = sorted(
    {
      path.parents[1].relative_to(root).as_posix()
      for path in root.glob('*/*/image_0[23]/data')
      if path.is_dir()
    }
  )
  if not drives:
    raise FileNotFoundError(
      f'no drive below {root}: it must hold DATE/DRIVE/image_02/data or '
      'DATE/DRIVE/image_03/data'
    )
  return drives


def _check_arguments(arguments):
  share, speed = arguments['validation_share'], arguments['min_speed']
  if not 0 < share < 1:
    raise ValueError(
      f'--validation_share is {share}: give a share between 0 and 1, as in 0.1'
    )
  if not 0 <= speed < float('inf'):
    raise ValueError(
      f'--min_speed is {speed}: give metres per second, 0 to '
      'keep standing frames'
    )
  cameras = arguments['cameras']
  if (
    not cameras or len(set(cameras)) < len(cameras) or set(cameras) - set(SIDES)
  ):
    raise ValueError(f'--cameras is {",".join(cameras)}: give l, r or l,r')
  if not set(arguments['exclude']) <= set(EXCLUSIONS):
    raise ValueError(
      f'--exclude is {",".join(arguments["exclude"])}: choose '
      f'from {", ".join(EXCLUSIONS)}'
    )
  if not arguments['frame_offsets']:
    raise ValueError(
      '--frame_offsets names no neighbour: give offsets other '
      'than 0, as in -1,1'
    )
  kinds = 'none', *truths.KINDS
  if arguments['ground_truth'] not in kinds:
    raise ValueError(
      f'--ground_truth is {arguments["ground_truth"]}: choose '
      f'from {", ".join(kinds)}'
    )


def _exclusion(drive, exclude):
  """Why a drive is not even looked at; None where it is."""
  name = drive.rpartition('/')[2]
  if name.endswith('_extract'):
    return 'not rectified (_extract; take the _sync drive)'
  for reason, drives in map(EXCLUSIONS.get, exclude):
    if name.removesuffix('_sync') in drives:
      return reason
  return None


def _list_drive(folder, name, arguments):
  """Lists the frames that have their neighbours."""
  drive = Drive(
    name,
    kept=[],
    lacking=[],
    dropped=collections.Counter(),
    judged_by=collections.Counter(),
  )
  for side in arguments['cameras']:
    frames = folder.frames('image', splits.Example(name, 0, side))
    if not frames:
      drive.lacking.append(side)
      continue
    last = splits.Example(name, max(frames), side)
    _check_nameable(last, frames[last.frame])
    folder.calibration(last).check_camera(last.camera)
    for frame in sorted(frames):
      if all(frame + offset in frames for offset in arguments['frame_offsets']):
        drive.kept.append(splits.Example(name, frame, side))
      else:
        drive.dropped['no neighbour'] += 1
  return drive


def _check_nameable(example, path):
  """Refuses a drive or a frame that the format of the lists cannot hold."""
  try:
    str(example).encode()
    same = splits.parse_lines([str(example)], source='') == [example]
  except ValueError:
    same = False
  if not same:
    raise ValueError(
      f'{path!r} cannot be named in a list: folders need names without spaces '
      'and frames numbers of at most ten digits'
    )


def _drop_standing(folder, drives, arguments):
  if not arguments['min_speed']:
    return
  moments = [
    list({line.frame: line for line in reversed(drive.kept)}.values())
    for drive in drives
  ]
  # -1 rather than 1: the previous frame, where both are asked for.
  neighbour = min(arguments['frame_offsets'], key=lambda n: (abs(n), n))
  pairs = list(zip(drives, moments, strict=True))
  for drive, frames in progress.bar(pairs, 'judging the speed of drives'):
    still, drive.judged_by = standing.find_standing(
      folder, frames, neighbour=neighbour, min_speed=arguments['min_speed']
    )
    kept = [line for line in drive.kept if line.frame not in still]
    drive.dropped['standing'] += len(drive.kept) - len(kept)
    drive.kept = kept


def _why_empty(drive):
  dropped = split_summary.list_counts(+drive.dropped)
  return f'no frame left: {dropped or "the cameras have none"}'


def _split(drives, root, excluded, arguments):
  """Training and validation lines; takes the gap of a single drive away."""
  share = arguments['validation_share']
  if not drives:
    reasons = collections.Counter(excluded.values()).most_common(10)
    raise ValueError(
      f'nothing is left of {root}: '
      + '; '.join(
        f'{files.count_of(count, "drive")}: {reason}'
        for reason, count in reasons
      )
      + '. See --exclude, --cameras, --min_speed and --frame_offsets'
    )
  if len(drives) > 1:
    chosen = splits.split_by_drive(
      {drive.name: len(drive.kept) for drive in drives},
      share=share,
      seed=arguments['seed'],
    )
    parts = [
      [
        line
        for drive in drives
        for line in drive.kept
        if (drive.name in chosen) == validates
      ]
      for validates in (False, True)
    ]
    return tuple(parts)
  drive = drives[0]
  train, validation = splits.split_by_time(
    drive.kept, share=share, frame_offsets=arguments['frame_offsets']
  )
  if not train:
    frames = files.count_of(len(drive.kept), 'frame')
    raise ValueError(
      f'{drive.name} is the only drive left of {root} and its {frames} are too '
      'few to split in two with a gap between: add drives or give a smaller '
      '--validation_share'
    )
  drive.dropped['in the gap'] = len(drive.kept) - len(train) - len(validation)
  return train, validation


def _drop_without_truth(truth, drives, validation, arguments):
  kept = [line for line in validation if not truth.missing(line)]
  lost = collections.Counter(line.drive for line in set(validation) - set(kept))
  for drive in drives:
    drive.dropped['no ground truth'] += lost[drive.name]
  if not kept:
    frames = files.count_of(len(validation), 'validation frame')
    raise ValueError(
      f'none of the {frames} has the ground truth '
      f'{arguments["ground_truth"]!r}, the first lacks '
      f'{truth.missing(validation[0])[0]}: give another --ground_truth, '
      '--ground_truth_root or --seed'
    )
  return kept


def main(arguments=None):
  """Parses the command line and makes the lists."""
  parser = argparse.ArgumentParser(
    prog='python -m input_pipeline.tools.make_splits',
    description='Make training and validation lists from a KITTI raw folder.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  for name, text in (
    ('root', 'the KITTI raw folder'),
    ('output', 'the folder to make'),
  ):
    parser.add_argument(
      f'--{name}', required=True, help=text, type=command_line.local_path
    )
  for name, kind, default, text in (
    ('validation_share', float, 0.1, 'share of the frames to validate on'),
    ('seed', int, 0, 'decides which drives validate'),
    ('cameras', _words, 'l,r', 'l for image_02, r for image_03'),
    (
      'min_speed',
      float,
      0.5,
      'm/s below which the car stands, by oxts; 0 '
      'keeps standing frames; without oxts pictures are compared',
    ),
    (
      'exclude',
      _words,
      'eigen_test',
      'eigen_test, odometry_test (sequences '
      '09 and 10), both with a comma between, or none',
    ),
    ('frame_offsets', _numbers, '-1,1', 'neighbours a frame must have'),
    (
      'ground_truth',
      str,
      'none',
      'frames without it do not validate: lidar, lidar_z, improved or dense',
    ),
    (
      'ground_truth_root',
      command_line.local_path,
      '',
      'folder of train/ and val/ of improved; the root where empty',
    ),
  ):
    parser.add_argument(f'--{name}', type=kind, default=default, help=text)
  options = vars(parser.parse_args(arguments))
  output = options['output']
  with command_line.report_errors():
    summary = make_splits(**options)
  print('\n'.join(split_summary.describe(summary)))
  print(f'{output}: train.txt, val.txt, summary.json')


def _words(text):
  return [word.strip() for word in text.split(',')]


def _numbers(text):
  try:
    return [int(word) for word in text.split(',')]
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{text!r}: give whole numbers, as in -1,1'
    ) from None


if __name__ == '__main__':
  main()
