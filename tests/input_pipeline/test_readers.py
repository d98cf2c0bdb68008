"""Tests of the batches: input_pipeline, examples and readers."""

import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import input_pipeline
from input_pipeline import images
from input_pipeline.sources import kitti
from tests.support import kitti_folder

DRIVE = kitti_folder.DRIVE
OTHER_DRIVE = '2011_09_28/2011_09_28_drive_0002_sync'


def take_train(config, count=1, **kwargs):
  kwargs = {'seed': 1, 'start_step': 0, 'batch_size': 2} | kwargs
  data = input_pipeline.open_data(config, evaluation=False)
  return list(itertools.islice(data.train_batches(**kwargs), count))


def make_eval(config, *, lines=None, offsets=(0,), **kwargs):
  if lines:
    path = pathlib.Path(config.root, 'lines.txt')
    path.write_text('\n'.join(lines))
    config = config.copy_and_resolve_references()
    config.eval_split = 'lines.txt'
  data = input_pipeline.open_data(config, train=False, eval_offsets=offsets)
  return data.eval_batches(**{'batch_size': 2} | kwargs)


def test_train_batch_holds_the_examples(root):
  config = kitti_folder.make_config(root)
  (batch,) = take_train(config, batch_size=4)
  assert {
    name: (field.shape, field.dtype.name) for name, field in batch.items()
  } == {
    'frames': ((4, 3, 8, 24, 3), 'uint8'),
    'intrinsics': ((4, 3, 3), 'float32'),
    'labels': ((4, 8, 24), 'uint8'),
    'index': ((4,), 'int32'),
  }
  assert sorted(batch['index']) == [0, 1, 2, 3]
  matrix = kitti.intrinsics(
    kitti.read_calibration(root / '2011_09_26'), camera=2, height=8, width=24
  )
  for row, index in enumerate(batch['index']):
    target = index + 1  # The split starts at frame 1.
    for column, frame in enumerate((target, target - 1, target + 1)):
      path = root / DRIVE / f'image_02/data/{frame:010d}.png'
      native = Image.open(path)
      np.testing.assert_array_equal(
        batch['frames'][row, column],
        np.array(native.resize((24, 8), Image.Resampling.LANCZOS)),
      )
    np.testing.assert_array_equal(batch['intrinsics'][row], matrix)
    # Frame 4 has no mask.
    assert (batch['labels'][row] == 255).all() == (target == 4)


def test_labels_are_resized_by_nearest_neighbour(root):
  config = kitti_folder.make_config(root, height=24, width=80)
  (batch,) = take_train(config, batch_size=4)
  mask = np.array(Image.open(root / DRIVE / 'semantic_02/data/0000000001.png'))
  row = batch['index'].tolist().index(0)
  np.testing.assert_array_equal(
    batch['labels'][row], mask.repeat(2, axis=0).repeat(2, axis=1)
  )


def test_right_camera_and_jpeg(root):
  kitti_folder.write_drive(root, camera=3, suffix='jpg')
  (root / 'right.txt').write_text(f'{DRIVE} 2 r\n')
  config = kitti_folder.make_config(root, train_split='right.txt')
  (batch,) = take_train(config, batch_size=1)
  np.testing.assert_array_equal(
    batch['frames'][0, 1],
    images.read_frame(
      root / DRIVE / 'image_03/data/0000000001.jpg', height=8, width=24
    ),
  )
  np.testing.assert_allclose(
    batch['intrinsics'][0, 0, 2], (18.5 + 0.5) * 24 / 40 - 0.5, rtol=1e-6
  )
  assert (batch['labels'] != 255).any()


def test_readers_agree_bit_for_bit(root):
  kitti_folder.write_drive(root, camera=3, suffix='jpg')
  (root / 'mixed.txt').write_text(f'{DRIVE} 1 l\n{DRIVE} 2 r\n{DRIVE} 3 l\n')
  config = kitti_folder.make_config(root, train_split='mixed.txt')
  batches = {}
  for reader in ('memory', 'tf'):
    config.reader = reader
    batches[reader] = take_train(config, 5)
    for start_step in (1, 3):
      kitti_folder.assert_batches_equal(
        take_train(config, 2, start_step=start_step),
        batches[reader][start_step : start_step + 2],
      )
  kitti_folder.assert_batches_equal(batches['memory'], batches['tf'])


@pytest.mark.parametrize('reader', ['memory', 'tf'])
def test_processes_share_the_batch(root, reader):
  config = kitti_folder.make_config(root, reader=reader)
  whole = take_train(config, 2, batch_size=6)
  parts = [
    take_train(config, 2, batch_size=6, process_index=p, process_count=3)
    for p in range(3)
  ]
  joined = [
    {name: np.concatenate([part[name] for part in step]) for name in step[0]}
    for step in zip(*parts, strict=True)
  ]
  kitti_folder.assert_batches_equal(joined, whole)


@pytest.mark.parametrize('ground_truth', ['lidar', 'lidar_z', 'dense'])
def test_eval_batches_of_both_readers(root, ground_truth):
  # A date of another size: its truth is padded at the bottom and right.
  kitti_folder.write_drive(root, drive=OTHER_DRIVE, height=10, width=44)
  lines = [f'{DRIVE} 0 l', f'{OTHER_DRIVE} 3 l', f'{DRIVE} 5 l']
  config = kitti_folder.make_config(root, ground_truth=ground_truth)
  evaluation = make_eval(config, lines=lines)
  assert len(evaluation) == 2
  batches = list(evaluation)
  kitti_folder.assert_batches_equal(batches, list(evaluation))
  config.reader = 'tf'
  kitti_folder.assert_batches_equal(
    batches, list(make_eval(config, lines=lines))
  )

  fields = {
    name: np.concatenate([batch[name] for batch in batches])
    for name in batches[0]
  }
  assert fields['frames'].shape == (4, 1, 8, 24, 3)
  assert fields['depth'].shape == (4, 12, 44)
  assert fields['depth'].dtype == np.float32
  assert fields['native_labels'].shape == (4, 12, 44)
  assert fields['mask'].tolist() == [True, True, True, False]
  assert fields['index'].tolist() == [0, 1, 2, 2]
  assert fields['native_size'].tolist() == [
    [12, 40],
    [10, 44],
    [12, 40],
    [12, 40],
  ]
  if ground_truth == 'dense':
    expected = images.read_depth(
      root / OTHER_DRIVE / 'depth_02/data/0000000003.png'
    )
  else:
    scan = root / OTHER_DRIVE / 'velodyne_points/data/0000000003.bin'
    expected = kitti.scan_depth(
      kitti.read_scan(scan),
      kitti.read_calibration((root / OTHER_DRIVE).parent),
      forward_distance=ground_truth == 'lidar',
    )
  np.testing.assert_array_equal(fields['depth'][1, :10], expected)
  assert not fields['depth'][1, 10:].any()
  assert not fields['depth'][0, :, 40:].any()
  mask = np.array(
    Image.open(root / OTHER_DRIVE / 'semantic_02/data/0000000003.png')
  )
  np.testing.assert_array_equal(fields['native_labels'][1, :10], mask)
  assert (fields['native_labels'][1, 10:] == 255).all()
  assert (fields['native_labels'][2] == 255).all()


def test_eval_without_labels_and_with_neighbours(root):
  config = kitti_folder.make_config(root, labels='none')
  (batch,) = make_eval(
    config, lines=[f'{DRIVE} 3 l'], batch_size=1, offsets=(0, -1)
  )
  assert 'native_labels' not in batch
  assert (batch['labels'] == 255).all()
  assert batch['frames'].shape == (1, 2, 8, 24, 3)


def test_processes_yield_equally_many_eval_batches(root):
  config = kitti_folder.make_config(root)
  parts = [
    list(make_eval(config, batch_size=4, process_index=p, process_count=4))
    for p in range(4)
  ]
  assert [len(part) for part in parts] == [1, 1, 1, 1]
  assert [part[0]['mask'].item() for part in parts] == [True] * 3 + [False]
  assert [part[0]['index'].item() for part in parts] == [0, 1, 2, 2]


def test_indivisible_batch_size_raises(root):
  config = kitti_folder.make_config(root)
  with pytest.raises(ValueError, match='3 is not a multiple of the 2'):
    take_train(config, batch_size=3, process_count=2)
  with pytest.raises(ValueError, match='3 is not a multiple of the 2'):
    make_eval(config, batch_size=3, process_count=2)


def test_memory_reader_does_not_need_tensorflow(root, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  config = kitti_folder.make_config(root)
  assert take_train(config) and list(make_eval(config))
  config.reader = 'tf'
  with pytest.raises(ValueError, match='reader=memory'):
    take_train(config)


def test_memory_reader_decodes_each_frame_once(root, monkeypatch):
  paths = []
  read_frame = images.read_frame

  def record(path, **kwargs):
    paths.append(path)
    return read_frame(path, **kwargs)

  monkeypatch.setattr(images, 'read_frame', record)
  take_train(kitti_folder.make_config(root), 5)
  assert len(paths) == len(set(paths)) == 6


@pytest.mark.parametrize('reader', ['memory', 'tf'])
@pytest.mark.parametrize(
  'name, content, message',
  [
    ('image_02/data/0000000002.png', 'half', 'cannot be read'),
    ('image_02/data/0000000002.png', b'', 'cannot identify image'),
    ('semantic_02/data/0000000002.png', 'half', 'cannot be read'),
    ('semantic_02/data/0000000002.png', 77, 'value 77 is outside'),
  ],
)
def test_bad_picture_is_named(root, reader, name, content, message):
  path = root / DRIVE / name
  if content == 'half':
    path.write_bytes(path.read_bytes()[:-200])
  elif isinstance(content, int):
    kitti_folder.save(np.full((12, 40), content, np.uint8), path)
  else:
    path.write_bytes(content)
  config = kitti_folder.make_config(root, reader=reader)
  with pytest.raises(ValueError, match=f'{name}.*{message}') as raised:
    take_train(config, 2)
  assert '\n' not in str(raised.value)
  assert 'Traceback' not in str(raised.value)


@pytest.mark.parametrize('reader', ['memory', 'tf'])
def test_truncated_scan_is_named(root, reader):
  path = root / DRIVE / 'velodyne_points/data/0000000003.bin'
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(ValueError, match='0000000003.bin is truncated'):
    list(make_eval(kitti_folder.make_config(root, reader=reader)))


def test_failure_keeps_the_previous_batches(root):
  config = kitti_folder.make_config(root, reader='tf')
  (root / DRIVE / 'image_02/data/0000000005.png').write_bytes(b'')
  batches = iter(make_eval(config, batch_size=1))
  assert [next(batches)['index'].item() for _ in range(2)] == [0, 1]
  with pytest.raises(ValueError, match='0000000005.png'):
    next(batches)


@pytest.mark.slow
def test_endless_graph_does_not_block_exit(root):
  code = f"""
from tests.support import kitti_folder
import input_pipeline
config = kitti_folder.make_config({str(root)!r}, reader='tf')
batches = input_pipeline.open_data(config).train_batches(
  seed=0, start_step=0, batch_size=2)
print(next(batches)['frames'].shape)
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
    cwd=kitti_folder.REPOSITORY,
  )
  assert done.returncode == 0, done.stderr
  assert '(2, 3, 8, 24, 3)' in done.stdout
  assert 'Error' not in done.stderr


@pytest.mark.skipif(
  not kitti_folder.REAL_DRIVE.is_dir(),
  reason='no real drive at ../shared/kitti',
)
def test_real_drive(tmp_path):
  drive = '2011_09_26/2011_09_26_drive_0009_sync'
  split = tmp_path / 'list.txt'
  split.write_text(f'{drive} 0 l\n{drive} 2 l\n')
  config = kitti_folder.make_config(
    kitti_folder.REAL_ROOT,
    height=96,
    width=320,
    reader='tf',
    eval_split=str(split),
  )
  (batch,) = make_eval(config)
  assert batch['frames'].shape == (2, 1, 96, 320, 3)
  assert batch['depth'].shape == (2, 375, 1242)
  assert batch['native_size'].tolist() == [[375, 1242]] * 2
  # A street: the median of the scan lies some 15 m ahead, nothing beyond
  # the scanner's reach.
  depth = batch['depth'][0]
  assert 5 < np.median(depth[depth > 0]) < 25 and depth.max() < 125
  assert len(np.unique(batch['native_labels'][0])) > 5
