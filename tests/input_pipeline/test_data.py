"""Tests of input_pipeline.data: opening and checking."""

import itertools
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import input_pipeline
from input_pipeline import street
from input_pipeline.sources import kitti
from tests.support import kitti_folder

DRIVE = kitti_folder.DRIVE
OTHER_DRIVE = '2011_09_28/2011_09_28_drive_0002_sync'


def take_train(config):
  data = input_pipeline.open_data(config, evaluation=False)
  return next(data.train_batches(seed=1, start_step=0, batch_size=2))


def make_eval(config):
  data = input_pipeline.open_data(config, train=False)
  return data.eval_batches(batch_size=2)


def test_open_data_summary(root):
  kitti_folder.write_drive(root, drive=OTHER_DRIVE, height=10, width=44)
  test = root / 'splits/test.txt'
  test.write_text(test.read_text() + f'{OTHER_DRIVE} 0 l\n')
  data = input_pipeline.open_data(kitti_folder.make_config(root))
  assert (data.train_examples, len(data.eval_lines)) == (4, 4)
  assert str(data.eval_lines[3]) == f'{OTHER_DRIVE} 0 l'
  assert data.sizes == ((10, 44), (12, 40))
  assert data.train_labelled == 3
  assert str(data) == (
    'train: 4 examples from 1 drive, 3 with labels; eval: 4 examples from 2 '
    'drives, 3 with labels; images 44x10, 40x12, resized to 24x8; 1 drive in '
    'both splits'
  )


def test_parts_can_be_opened_alone(root):
  config = kitti_folder.make_config(root)
  whole = input_pipeline.open_data(config)
  (root / 'splits/train.txt').unlink()
  data = input_pipeline.open_data(config, train=False)
  assert (data.train_examples, data.stills) == (0, 0)
  assert data.eval_lines == whole.eval_lines
  assert str(data).startswith('eval: 3 examples')
  config.ground_truth = 'none'
  config.train_split = config.eval_split
  config.eval_split = 'gone.txt'
  config.frame_offsets = (0,)
  assert input_pipeline.open_data(config).eval_lines == ()


def test_digest_depends_only_on_the_lists(root):
  config = kitti_folder.make_config(root)
  digest = input_pipeline.open_data(config).digest
  assert input_pipeline.open_data(config).digest == digest
  path = root / 'splits/train.txt'
  path.write_text('\n'.join(reversed(path.read_text().splitlines())))
  assert input_pipeline.open_data(config).digest != digest


def test_describe_step_names_examples_and_stills(root):
  config = kitti_folder.make_config(root)
  order = {'seed': 1, 'batch_size': 2}
  data = input_pipeline.open_data(config)
  *_, batch = itertools.islice(data.train_batches(start_step=0, **order), 3)
  assert data.describe_step(3, **order) == (
    f'its examples are numbers {batch["index"].tolist()} (from 0) of '
    'splits/train.txt'
  )
  grey = np.full((12, 40), 7, np.uint8)
  kitti_folder.write_still(root / 'stills', '0', grey, grey, layout='kitti')
  config.semantic_root = str(root / 'stills')
  text = input_pipeline.open_data(config).describe_step(3, **order)
  assert f', its stills numbers [0] (from 0, by name) of {root}/stills' in text


def test_check_paths_finds_missing_paths(root, street_config):
  check = input_pipeline.check_paths
  config = kitti_folder.make_config(root)
  check(config)
  (root / 'splits/test.txt').unlink()
  check(config, evaluation=False)
  with pytest.raises(FileNotFoundError, match='no split list at splits/test'):
    check(config)
  config = kitti_folder.make_config(root, semantic_root=str(root / 'no'))
  with pytest.raises(FileNotFoundError, match='no labelled stills in'):
    check(config, evaluation=False)
  check(street_config)  # It will be rendered.


def test_check_paths_does_not_import_frameworks(root):
  code = f"""
import sys
from tests.support import kitti_folder
import input_pipeline
input_pipeline.check_paths(kitti_folder.make_config({str(root)!r}))
assert not {{'jax', 'tensorflow', 'tensorflow_datasets'}} & set(sys.modules)
"""
  subprocess.run(
    [sys.executable, '-c', code], check=True, cwd=kitti_folder.REPOSITORY
  )


def test_opening_counts_and_names_missing_files(root):
  frames = range(1, 50)
  (root / 'splits/train.txt').write_text(
    ''.join(f'{DRIVE} {frame} l\n' for frame in frames)
  )
  shutil.rmtree(root / DRIVE / 'velodyne_points')
  config = kitti_folder.make_config(root)
  with pytest.raises(ValueError) as raised:
    input_pipeline.open_data(config)
  message = str(raised.value)
  # Frames 6 .. 50 and the scans of three frames.
  assert message.startswith(f'{root} lacks 48 files')
  assert message.count('image_02/data/') == 10
  assert f'{DRIVE}/image_02/data/0000000006.png' in message
  with pytest.raises(ValueError, match='45 files'):
    take_train(config)
  with pytest.raises(ValueError, match='3 files .*0000000000.bin'):
    make_eval(config)


def test_broken_link_to_a_frame_is_a_missing_file(root):
  path = root / DRIVE / 'image_02/data/0000000003.png'
  path.unlink()
  path.symlink_to(root / 'gone.png')
  with pytest.raises(ValueError, match='lacks 1 file that .*0000000003.png'):
    input_pipeline.open_data(kitti_folder.make_config(root))


def test_broken_link_to_a_mask_raises(root):
  path = root / DRIVE / 'semantic_02/data/0000000003.png'
  path.unlink()
  path.symlink_to(root / 'gone.png')
  with pytest.raises(ValueError, match='semantic_02.*03.png cannot be read'):
    take_train(kitti_folder.make_config(root))


@pytest.mark.parametrize(
  'shape, fits',
  [
    ((12, 40), True),  # The frame's.
    ((24, 80), True),  # The frame was resized.
    ((12, 36), False),
    ((40, 12), False),
  ],
)
def test_depth_map_and_frame_of_different_shapes_raise(root, shape, fits):
  for frame in (0, 3, 5):
    depth = np.full(shape if frame == 3 else (12, 40), 2560, np.uint16)
    kitti_folder.save(depth, root / DRIVE / f'depth_02/data/{frame:010d}.png')
  config = kitti_folder.make_config(root, ground_truth='dense')
  if fits:
    assert len(input_pipeline.open_data(config).eval_lines) == 3
    return
  size = f'{shape[1]}x{shape[0]}'
  with pytest.raises(ValueError, match=f'{DRIVE} 3 l is {size} .* 40x12'):
    input_pipeline.open_data(config)


def test_missing_neighbour_calibration_and_drive(root):
  config = kitti_folder.make_config(root)
  (root / 'splits/train.txt').write_text(f'{DRIVE} 0 l\nno/drive 3 r\n')
  (root / '2011_09_26' / kitti.VELODYNE_FILE).unlink()
  with pytest.raises(ValueError, match='6 files') as raised:
    input_pipeline.open_data(config)
  for name in (
    f'{DRIVE}/image_02/data/-000000001.png',
    'no/calib_cam_to_cam.txt',
    'no/drive/image_03/data/0000000004',
    '2011_09_26/calib_velo_to_cam.txt',
  ):
    assert name in str(raised.value)


@pytest.mark.parametrize(
  'overrides, error, message',
  [
    ({'root': ''}, FileNotFoundError, "no folder ''; pass --config.data.ro"),
    (
      {'root': '/no/such'},
      FileNotFoundError,
      "'/no/such'; pass --config.data.ro",
    ),
    (
      {'train_split': 'no.txt'},
      FileNotFoundError,
      'no split list at no.txt nor',
    ),
    (
      {'source': 'web'},
      ValueError,
      "source is 'web'; choose one of street, ki",
    ),
    ({'reader': 'torch'}, ValueError, "reader is 'torch'"),
    ({'labels': 'colours'}, ValueError, "labels is 'colours'"),
    ({'ground_truth': 'odd'}, ValueError, "ground_truth is 'odd'"),
    ({'frame_offsets': (-1, 0, 1)}, ValueError, 'must start with 0'),
    ({'frame_offsets': (0, 1, 1)}, ValueError, 'each offset once'),
  ],
)
def test_bad_config_raises(root, overrides, error, message):
  config = kitti_folder.make_config(root, **overrides)
  with pytest.raises(error, match=message):
    input_pipeline.check_paths(config)
  with pytest.raises(error, match=message):
    input_pipeline.open_data(config)


def test_tf_reader_without_tensorflow_raises(root, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  input_pipeline.open_data(kitti_folder.make_config(root))
  config = kitti_folder.make_config(root, reader='tf')
  with pytest.raises(ValueError, match="reader='tf' needs TensorFlow: inst"):
    input_pipeline.check_paths(config)


@pytest.fixture(name='street_config')
def fixture_street_config(tmp_path):
  sizes = {
    'drives': 2,
    'frames': 6,
    'test_drives': 1,
    'seed': 0,
    'height': 32,
    'width': 64,
  }
  return kitti_folder.make_config(
    tmp_path / 'street', source='street', street=sizes
  )


def test_missing_street_is_rendered(street_config, monkeypatch):
  def render_street(output, **arguments):
    assert arguments.pop('workers') >= 1
    assert arguments == street_config.street.to_dict()
    root = pathlib.Path(output)
    if not root.exists():
      kitti_folder.write_drive(root)
      kitti_folder.write_splits(root)

  monkeypatch.setattr(street, 'render_street', render_street)
  assert input_pipeline.open_data(street_config).train_examples == 4
  assert take_train(street_config)


def test_street_that_cannot_be_rendered_raises(street_config):
  street_config.street.height = 33
  with pytest.raises(ValueError, match='height is 33'):
    input_pipeline.open_data(street_config)


def test_bad_split_lines_are_named(root):
  config = kitti_folder.make_config(root)
  (root / 'splits/test.txt').write_text(f'{DRIVE} 1\n')
  with pytest.raises(ValueError, match='test.txt, line 1: expected'):
    input_pipeline.open_data(config)


def test_lists_of_numbered_drives_get_a_hint(root):
  (root / 'splits/train.txt').write_text('1 471 l\n')
  with pytest.raises(ValueError, match='not of KITTI odometry'):
    input_pipeline.open_data(kitti_folder.make_config(root))


def test_frames_are_compared_with_their_calibration(root, caplog):
  def change(columns, rows):
    kitti_folder.write_date(
      root / pathlib.Path(DRIVE).parent, height=rows, width=columns
    )
    return input_pipeline.open_data(kitti_folder.make_config(root))

  change(80, 24)  # Frames of half the rectified size.
  assert not caplog.records
  change(40, 16)
  assert 'frames of 40x12, but S_rect_02 of ' in caplog.text
  assert 'calib_cam_to_cam.txt is 40x16: correct if they' in caplog.text
  with pytest.raises(ValueError, match='40x12, .* is 40x10: use rectified'):
    change(40, 10)


@pytest.mark.parametrize('size, fits', [((24, 80), True), ((30, 30), False)])
def test_masks_are_compared_with_their_frames(root, size, fits):
  config = kitti_folder.make_config(root)
  data = input_pipeline.open_data(config)
  for path in (root / DRIVE / 'semantic_02/data').iterdir():
    kitti_folder.save(np.zeros(size, np.uint8), path)

  def train(data):
    next(data.train_batches(seed=1, start_step=0, batch_size=2))

  def evaluate(data):
    list(data.eval_batches(batch_size=2))

  for read in (train, evaluate):  # Opening scans only some of many masks.
    if fits:
      read(data)
      continue
    with pytest.raises(ValueError, match='semantic_02.*30x30 .* frame 40x12'):
      read(data)
  if fits:
    input_pipeline.open_data(config)
  else:
    with pytest.raises(ValueError, match='is 30x30, .* is 40x12'):
      input_pipeline.open_data(config)


def test_calibration_without_the_camera_raises(root):
  (root / 'splits/train.txt').write_text(f'{DRIVE} 1 r\n')
  kitti_folder.write_drive(root, camera=3)
  path = root / '2011_09_26' / kitti.CAMERA_FILE
  path.write_text('\n'.join(kitti_folder.CAMERA_LINES[:5]))
  with pytest.raises(ValueError, match=f'{kitti.CAMERA_FILE} needs P_rect_03'):
    input_pipeline.open_data(kitti_folder.make_config(root))


def test_unlikely_coding_is_logged(root, caplog):
  config = kitti_folder.make_config(root)
  input_pipeline.open_data(config)
  assert 'check config' not in caplog.text
  config.labels = 'ids'
  input_pipeline.open_data(config)
  assert 'check config.data.labels = ids: 0 of' in caplog.text


def test_values_outside_the_coding_raise_on_opening(root):
  mask = next((root / DRIVE / 'semantic_02' / 'data').glob('*.png'))
  kitti_folder.save(np.full((12, 40), 33, np.uint8), mask)
  with pytest.raises(ValueError, match="config.data.labels is 'train") as error:
    input_pipeline.open_data(kitti_folder.make_config(root))
  assert f'{mask}' in str(error.value) and '33' in str(error.value)


@pytest.mark.parametrize('reader', ['memory', 'tf'])
@pytest.mark.parametrize(
  'mask, message',
  [
    (np.zeros((12, 40, 3), np.uint8), 'cannot be read: 1, the first: .*{name}'),
    (np.zeros((12, 20), np.uint8), '{name} is 20x12, .* is 40x12'),
  ],
)
def test_unusable_masks_raise_on_opening(root, mask, message, reader):
  path = sorted((root / DRIVE / 'semantic_02' / 'data').glob('*.png'))[1]
  kitti_folder.save(mask, path)
  config = kitti_folder.make_config(root, reader=reader)
  message = message.format(name=path.name)
  with pytest.raises(ValueError, match=f'config.data.labels is .*{message}'):
    input_pipeline.open_data(config)
  config.unreadable = 'replace'
  data = input_pipeline.open_data(config)
  assert data.train_labelled == 3
  batches = data.train_batches(seed=1, start_step=0, batch_size=4)
  assert set(next(batches)['index']) == {1, 2, 3}  # All but the mask's.


def test_root_that_is_not_a_street_suggests_the_kitti_config(
  root, street_config
):
  street_config.root = str(root)
  with pytest.raises(ValueError, match='not a rendered street .*kitti_r18.py'):
    input_pipeline.open_data(street_config)
