"""Training examples that cannot be read: errors, or replacements."""

import errno
import itertools
import logging
import os

import numpy as np
import pytest

import input_pipeline
from input_pipeline import images, sampling
from input_pipeline.tools import build_records
from tests.support import kitti_folder

DRIVE = kitti_folder.DRIVE
READERS = pytest.mark.parametrize('reader', ['memory', 'tf'])


@pytest.fixture(name='root')
def fixture_root(tmp_path):
  """Two drives of ten frames; frames 1 .. 8 of each are examples."""
  (tmp_path / 'splits').mkdir()
  lines = []
  for drive in (DRIVE, DRIVE.replace('0001', '0002')):
    kitti_folder.write_drive(tmp_path, drive=drive, frames=10)
    lines += [f'{drive} {frame} l' for frame in range(1, 9)]
  (tmp_path / 'splits/train.txt').write_text('\n'.join(lines))
  (tmp_path / 'splits/test.txt').write_text(lines[0])
  return tmp_path


def frame_path(root, frame):
  return root / DRIVE / f'image_02/data/{frame:010d}.png'


def take(root, reader='memory', unreadable='replace', steps=8, **overrides):
  config = kitti_folder.make_config(
    root, reader=reader, unreadable=unreadable, **overrides
  )
  data = input_pipeline.open_data(config, evaluation=False)
  batches = data.train_batches(seed=3, start_step=0, batch_size=4)
  return list(itertools.islice(batches, steps))


def by_index(batches, name):
  return {
    int(index): value
    for batch in batches
    for index, value in zip(batch['index'], batch[name], strict=True)
  }


def truncate(path):
  path.write_bytes(path.read_bytes()[:-200])


def resize(path):
  kitti_folder.save(np.zeros((12, 44, 3), np.uint8), path)


def remove(path):
  path.unlink()


@READERS
@pytest.mark.parametrize('damage', [truncate, resize, remove])
def test_nearest_example_is_the_replacement(root, reader, damage, caplog):
  whole = take(root)  # From memory: no graph keeps reading in the background.
  # Frame 9 is a neighbour of example 8 (index 7) alone.
  damage(frame_path(root, 9))
  with caplog.at_level(logging.WARNING):
    batches = take(root, reader)
  order = np.concatenate([batch['index'] for batch in whole])
  got = np.concatenate([batch['index'] for batch in batches])
  assert (order == 7).sum() == 2  # Two epochs.
  np.testing.assert_array_equal(got, np.where(order == 7, 6, order))
  expected = by_index(whole, 'frames')
  for index, frames in by_index(batches, 'frames').items():
    np.testing.assert_array_equal(frames, expected[index])
  warnings = [r.getMessage() for r in caplog.records if '.png' in r.message]
  assert len(warnings) == 1
  assert '0000000009.png' in warnings[0]
  assert 'example 6 replaces 7, 1 of 16 replaced' in warnings[0]


@READERS
def test_readers_agree_on_replacements(root, reader):
  # Examples 3, 4, 5 (indices 2, 3, 4) lack something; 4 has two as near.
  truncate(frame_path(root, 4))
  mask = root / DRIVE / 'semantic_02/data/0000000001.png'
  mask.write_bytes(mask.read_bytes()[:-200])
  batches = take(root, reader)
  got = np.concatenate([batch['index'] for batch in batches])
  order = np.concatenate([batch['index'] for batch in take_order()])
  swap = {0: 1, 2: 1, 3: 1, 4: 5}
  np.testing.assert_array_equal(got, [swap.get(i, i) for i in order])


def take_order():
  """Returns the order of 16 undamaged examples, from the sampler alone."""
  return [
    {
      'index': sampling.example_indices(
        step, seed=3, num_examples=16, batch_size=4
      )
    }
    for step in range(8)
  ]


@READERS
@pytest.mark.parametrize(
  'damage, message',
  [
    (truncate, 'cannot be read: '),
    (resize, 'is 44x12, but the other frames of its drive are 40x12'),
  ],
)
def test_stop_reports_file_and_reason(root, reader, damage, message):
  damage(frame_path(root, 9))
  with pytest.raises(ValueError, match=f'0000000009.png {message}'):
    take(root, reader, unreadable='stop')


def test_missing_neighbours_are_counted_before_training(root):
  config = kitti_folder.make_config(root, unreadable='replace')
  assert 'replaced' not in str(input_pipeline.open_data(config))
  frame_path(root, 5).unlink()
  summary = input_pipeline.open_data(config)
  assert summary.replaced == 3
  assert '3 training examples lack frames and are replaced' in str(summary)
  config.unreadable = 'stop'
  with pytest.raises(ValueError, match='lacks 1 file .*0000000005.png'):
    input_pipeline.open_data(config)


@READERS
def test_drive_without_a_readable_example_raises(root, reader):
  for frame in (1, 4, 7):
    truncate(frame_path(root, frame))
  with pytest.raises(ValueError, match='.png cannot be .*; nor can another'):
    take(root, reader)
  for frame in (1, 4, 7):
    frame_path(root, frame).unlink()
  config = kitti_folder.make_config(root, unreadable='replace')
  with pytest.raises(ValueError, match='lacks 3 files that'):
    input_pipeline.open_data(config)


def test_evaluation_and_calibration_always_stop(root):
  config = kitti_folder.make_config(root, unreadable='replace')
  truncate(frame_path(root, 1))
  with pytest.raises(ValueError, match='0000000001.png cannot be read'):
    input_pipeline.open_data(config).eval_batches(batch_size=1)
  path = root / '2011_09_26/calib_cam_to_cam.txt'
  path.write_text(path.read_text().replace('20 0 19.5', '20 zero 19.5'))
  with pytest.raises(ValueError, match='cam_to_cam.txt: P_rect_02 needs'):
    take(root)


@READERS
@pytest.mark.parametrize(
  'failure, message',
  [
    (OSError(errno.EIO, 'Input/output error'), 'Input/output error'),
    (OSError(errno.EMFILE, 'Too many open files'), 'Too many open files'),
    (MemoryError(), 'MemoryError'),
  ],
)
def test_machine_errors_are_not_replaced(
  root, reader, failure, message, monkeypatch
):
  open_image = images.Image.open

  def fail(path):
    # A neighbour: read during training, after the checks.
    if str(path) == str(frame_path(root, 3)) and checked:
      raise failure
    return open_image(path)

  checked = []
  monkeypatch.setattr(images.Image, 'open', fail)
  input_pipeline.open_data(kitti_folder.make_config(root))
  checked.append(True)
  with pytest.raises(
    (OSError, ValueError, MemoryError),
    match=f'0000000003.png cannot be read: .*{message}',
  ):
    take(root, reader)


@READERS
def test_out_of_memory_between_files_raises(root, reader, monkeypatch):
  def fail(*args, **kwargs):
    raise MemoryError

  monkeypatch.setattr(images, 'resize_frame', fail)
  with pytest.raises((MemoryError, ValueError)) as raised:
    take(root, reader)
  assert 'MemoryError' in repr(raised.value)


def test_broken_links_matter_only_if_listed(root):
  folder = frame_path(root, 3).parent
  for name, target in (('0000000098', 'gone'), ('0000000099', '0000000099')):
    (folder / f'{name}.png').symlink_to(folder / f'{target}.png')
  config = kitti_folder.make_config(root)
  input_pipeline.open_data(config)
  frame_path(root, 5).unlink()
  frame_path(root, 5).symlink_to(folder / '0000000099.png')
  with pytest.raises(ValueError, match='lacks 1 file .*0000000005.png'):
    input_pipeline.open_data(config)


def test_checks_list_folders_and_not_single_frames(root, monkeypatch):
  asked = []
  stat = os.stat
  monkeypatch.setattr(
    os,
    'stat',
    lambda path, **kwargs: asked.append(str(path)) or stat(path, **kwargs),
  )
  frame_path(root, 5).unlink()
  input_pipeline.open_data(kitti_folder.make_config(root, unreadable='replace'))
  assert asked
  assert [path for path in asked if path.endswith('.png')] == []


def test_value_of_the_option_is_checked(root):
  with pytest.raises(ValueError, match="unreadable is 'skip'; choose one of"):
    take(root, unreadable='skip')


@READERS
@pytest.mark.parametrize('odd', [(1,), (2, 3)])
def test_usual_size_is_not_that_of_the_first_frame(root, reader, odd):
  for frame in odd:
    resize(frame_path(root, frame))
  with pytest.raises(ValueError, match=f'{odd[0]}.png is 44x12, .* are 40x12'):
    take(root, reader, unreadable='stop', steps=4, labels='none')
  got = np.concatenate([batch['index'] for batch in take(root, reader)])
  lost = {frame - 1 + offset for frame in odd for offset in (-1, 0, 1)}
  assert not set(got) & lost
  assert set(got) == set(range(16)) - lost


@pytest.mark.parametrize('damage', [truncate, remove])
def test_bad_first_frame_passes_the_check(root, damage):
  damage(frame_path(root, 1))
  config = kitti_folder.make_config(root, unreadable='replace')
  (root / 'splits/test.txt').write_text(f'{DRIVE} 4 l')
  summary = input_pipeline.open_data(config)
  assert summary.sizes == ((12, 40),)
  assert summary.replaced == (2 if damage is remove else 0)


@READERS
def test_wrong_coding_is_not_replaced(root, reader):
  kitti_folder.save(
    np.full((12, 40), 26, np.uint8),
    root / DRIVE / 'semantic_02/data/0000000001.png',
  )
  with pytest.raises(ValueError, match='value 26 is outside the coding'):
    take(root, reader)


def test_records_are_not_replaced(root):
  config = kitti_folder.make_config(root, source='tfds', unreadable='replace')
  with pytest.raises(ValueError, match='hold only what could be read'):
    input_pipeline.open_data(config)


def test_records_build_lists_all_damaged_files(root, tmp_path):
  for frame in (2, 7):
    truncate(frame_path(root, frame))
  config = build_records.RecordsConfig(
    name='kitti',
    root=str(root),
    height=8,
    width=16,
    labels='ids',
    ground_truth='none',
  )
  output = tmp_path / 'records'
  with pytest.raises(ValueError, match='nothing was built: 2 pict') as raised:
    build_records.build(config, output)
  for frame in (2, 7):
    assert f'{frame_path(root, frame)} cannot be read: ' in str(raised.value)
  assert [path for path in output.rglob('*') if path.is_file()] == []


def test_iterations_leave_no_threads(root):
  config = kitti_folder.make_config(root, reader='tf', ground_truth='dense')
  lines = ''.join(f'{DRIVE} {frame} l\n' for frame in range(4))
  (root / 'splits/test.txt').write_text(lines)
  batches = input_pipeline.open_data(config).eval_batches(batch_size=2)
  list(batches)
  before = len(os.listdir('/proc/self/task'))
  for _ in range(12):
    list(batches)
  assert len(os.listdir('/proc/self/task')) < before + 12
