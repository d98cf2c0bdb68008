"""Writes small KITTI raw folders for tests."""

import pathlib

import ml_collections
import numpy as np
from PIL import Image

DRIVE = '2011_09_26/2011_09_26_drive_0001_sync'
REPOSITORY = pathlib.Path(__file__).parents[2]
REAL_ROOT = REPOSITORY.parent / 'shared' / 'kitti'
REAL_STILLS = REPOSITORY.parent / 'shared' / 'kitti_semantic'
REAL_DRIVE = REAL_ROOT / '2011_09_26' / '2011_09_26_drive_0009_sync'

# KITTI's own layout, for 40 x 12 images and a velodyne frame turned into the
# camera frame, 0.25 m behind the camera.
CAMERA_LINES = [
  'calib_time: 09-Jan-2012 13:57:47',
  'corner_dist: 9.950000e-02',
  'R_rect_00: 1 0 0 0 1 0 0 0 1',
  'S_rect_02: 4.0e+01 1.2e+01',
  'P_rect_02: 20 0 19.5 1.0 0 21 5.5 0.2 0 0 1 0.003',
  'S_rect_03: 4.0e+01 1.2e+01',
  'P_rect_03: 20 0 18.5 -9.0 0 21 5.5 0.2 0 0 1 0.003',
]
VELODYNE_LINES = ['R: 0 -1 0 0 0 -1 1 0 0', 'T: 0 0 -0.25']


def write_date(date_folder, *, height=12, width=40):
  """Writes the two calibration files of a date."""
  date_folder.mkdir(parents=True, exist_ok=True)
  size = f'{width:.1e} {height:.1e}'
  lines = [
    f'{line.split(":")[0]}: {size}' if line.startswith('S_') else line
    for line in CAMERA_LINES
  ]
  (date_folder / 'calib_cam_to_cam.txt').write_text('\n'.join(lines) + '\n')
  (date_folder / 'calib_velo_to_cam.txt').write_text(
    '\n'.join(VELODYNE_LINES) + '\n'
  )


def write_drive(
  root,
  *,
  drive=DRIVE,
  frames=6,
  height=12,
  width=40,
  camera=2,
  suffix='png',
  labelled=(0, 1, 2, 3),
):
  """Writes a drive of random frames, masks, dense depth and scans."""
  rng = np.random.default_rng(camera)
  write_date(root / pathlib.Path(drive).parent, height=height, width=width)
  for frame in range(frames):
    save(
      rng.integers(0, 256, (height, width, 3), np.uint8),
      root / drive / f'image_{camera:02d}/data/{frame:010d}.{suffix}',
    )
    depth = rng.uniform(0, 60 * 256, (height, width)).astype(np.uint16)
    save(depth, root / drive / f'depth_{camera:02d}/data/{frame:010d}.png')
    if frame in labelled:
      mask = rng.choice(np.r_[0:19, 255], (height, width)).astype(np.uint8)
      save(mask, root / drive / f'semantic_{camera:02d}/data/{frame:010d}.png')
    points = rng.uniform([-5, -8, -2, 0], [40, 8, 2, 1], (400, 4))
    path = root / drive / f'velodyne_points/data/{frame:010d}.bin'
    path.parent.mkdir(parents=True, exist_ok=True)
    points.astype('<f4').tofile(path)


def save(array, path):
  """Saves a picture, making its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def write_still(
  root, name, picture, mask, *, layout, split='train', ending='labelIds'
):
  """Writes a picture and its mask in KITTI semantic's or Cityscapes' layout."""
  if layout == 'kitti':
    paths = f'image_2/{name}_10.png', f'semantic/{name}_10.png'
  else:
    paths = (
      f'leftImg8bit/{split}/city/{name}_leftImg8bit.png',
      f'gtFine/{split}/city/{name}_gtFine_{ending}.png',
    )
  for array, path in zip((picture, mask), paths, strict=True):
    save(array, root / path)
  return root


def write_splits(root, *, drive=DRIVE):
  """Writes splits/train.txt (frames 1 .. 4) and splits/test.txt (0, 3, 5)."""
  (root / 'splits').mkdir(parents=True)
  for name, frames in (('train', (1, 2, 3, 4)), ('test', (0, 3, 5))):
    lines = [f'{drive} {frame} l\n' for frame in frames]
    (root / 'splits' / f'{name}.txt').write_text(''.join(lines))


def make_config(folder, **overrides):
  """The `config.data` of a folder, with overrides."""
  return ml_collections.ConfigDict(
    {
      'source': 'kitti',
      'root': str(folder),
      'reader': 'memory',
      'unreadable': 'stop',
      'train_split': 'splits/train.txt',
      'eval_split': 'splits/test.txt',
      'height': 8,
      'width': 24,
      'frame_offsets': (0, -1, 1),
      'labels': 'train_ids',
      'ground_truth': 'lidar',
      'ground_truth_root': '',
      'ground_truth_file': '',
      'semantic_root': '',
      'semantic_labels': 'ids',
      'semantic_share': 0.5,
    }
    | overrides
  )


def assert_batches_equal(first, second):
  """Asserts that two lists of batches agree bit for bit."""
  assert len(first) == len(second)
  for left, right in zip(first, second, strict=True):
    assert left.keys() == right.keys()
    for name in left:
      assert left[name].dtype == right[name].dtype, name
      np.testing.assert_array_equal(left[name], right[name], err_msg=name)
