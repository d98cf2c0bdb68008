"""Writes moving and standing drives for tests of lists; reads lists back."""

import numpy as np

from input_pipeline import splits
from tests.support import kitti_folder

DATE = '2011_09_27'  # Without an Eigen test drive.


def drive_name(number, date=DATE):
  return f'{date}/{date}_drive_{number:04d}_sync'


DRIVE = drive_name(1)


def write_oxts(root, drive, speeds):
  """Writes packets of these (forward, leftward) velocities, in m/s."""
  for frame, (forward, leftward) in enumerate(speeds):
    values = [
      '49.0',
      '8.4',
      '114.5',
      '0',
      '0',
      '1',
      '99',
      '99',
      str(forward),
      str(leftward),
      *['7'] * 20,
    ]
    path = root / drive / f'oxts/data/{frame:010d}.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(' '.join(values) + '\n')


def write_pictures(root, drive, greys, *, camera=2, suffix='png'):
  """Writes frames of one grey each; neighbours of equal grey stand still."""
  kitti_folder.write_date((root / drive).parent)
  for frame, grey in enumerate(greys):
    kitti_folder.save(
      np.full((12, 40, 3), grey, np.uint8),
      root / drive / f'image_{camera:02d}/data/{frame:010d}.{suffix}',
    )


def write_moving(root, *sizes):
  """Writes drives 1, 2, .. of these numbers of frames, all moving."""
  for number, frames in enumerate(sizes, start=1):
    write_pictures(root, drive_name(number), np.arange(frames) * 5)


def read(output):
  """Reads both lists."""
  return [splits.read_split(output / name) for name in ('train.txt', 'val.txt')]


def read_frames(output, side='l'):
  """Returns a camera's frame numbers in both lists together, in order."""
  return [
    line.frame for lines in read(output) for line in lines if line.side == side
  ]
