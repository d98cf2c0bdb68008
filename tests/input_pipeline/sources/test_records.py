"""Tests of the records: input_pipeline.tools.build_records and records."""

import dataclasses
import itertools
import pathlib
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

import input_pipeline
from input_pipeline import data, images
from input_pipeline.sources import records
from input_pipeline.tools import build_records
from tests.support import kitti_folder

DRIVE = kitti_folder.DRIVE
# Of another size: its truth is padded at the bottom and right.
OTHER_DRIVE = '2011_09_28/2011_09_28_drive_0002_sync'
TRUTHS = ('lidar', 'lidar_z', 'dense')


def make_builder_config(root, **overrides):
  return build_records.RecordsConfig(
    **{
      'name': '24x8',
      'root': str(root),
      'height': 8,
      'width': 24,
      'labels': 'train_ids',
    }
    | overrides
  )


@pytest.fixture(scope='module', name='root')
def fixture_root(tmp_path_factory):
  """Two drives, both cameras, PNG and JPEG, with and without masks."""
  root = tmp_path_factory.mktemp('data') / 'kitti'
  kitti_folder.write_drive(root, frames=18)
  kitti_folder.write_drive(root, frames=18, camera=3, suffix='jpg')
  kitti_folder.write_drive(root, drive=OTHER_DRIVE, height=10, width=44)
  kitti_folder.write_splits(root)
  train = [f'{DRIVE} {frame} {"lr"[frame % 2]}' for frame in range(1, 17)]
  test = [f'{DRIVE} 0 l', f'{OTHER_DRIVE} 3 l', f'{DRIVE} 5 r']
  (root / 'splits/train.txt').write_text('\n'.join(train))
  (root / 'splits/test.txt').write_text('\n'.join(test))
  return root


@pytest.fixture(scope='module', name='built')
def fixture_built(root, tmp_path_factory):
  """A folder per ground truth with one dataset in each."""
  outputs = {}
  for truth in TRUTHS:
    outputs[truth] = tmp_path_factory.mktemp(truth)
    config = make_builder_config(root, ground_truth=truth)
    assert build_records.build(config, outputs[truth])[1]
  return outputs


def make_config(output, **overrides):
  return kitti_folder.make_config(output, source='tfds', **overrides)


def take_train(config, count=3, **kwargs):
  kwargs = {'seed': 1, 'start_step': 0, 'batch_size': 8} | kwargs
  data = input_pipeline.open_data(config, evaluation=False)
  return list(itertools.islice(data.train_batches(**kwargs), count))


def make_eval(config):
  data = input_pipeline.open_data(config, train=False)
  return list(data.eval_batches(batch_size=2))


@pytest.mark.parametrize('reader', ['memory', 'tf'])
@pytest.mark.parametrize('truth', TRUTHS)
def test_batches_equal_those_of_the_folder(root, built, truth, reader):
  fields = {'ground_truth': truth, 'reader': reader}
  folder = kitti_folder.make_config(root, **fields)
  config = make_config(built[truth], **fields)
  kitti_folder.assert_batches_equal(take_train(config), take_train(folder))
  batches = make_eval(config)
  kitti_folder.assert_batches_equal(batches, make_eval(folder))
  assert batches[0]['depth'].any() and (batches[0]['labels'] != 255).any()


@pytest.mark.parametrize(
  'overrides',
  [
    {'labels': 'none'},
    {'frame_offsets': (0, 1)},
    {'frame_offsets': (0, 1, -1)},
  ],
)
def test_subset_of_the_stored_data_can_be_read(root, built, overrides):
  folder = kitti_folder.make_config(root, **overrides)
  config = make_config(built['lidar'], **overrides)
  kitti_folder.assert_batches_equal(take_train(config), take_train(folder))
  kitti_folder.assert_batches_equal(make_eval(config), make_eval(folder))


def test_ids_are_stored_as_train_ids(root, tmp_path):
  build_records.build(make_builder_config(root, labels='ids'), tmp_path)
  folder = kitti_folder.make_config(root, labels='ids')
  for coding in ('ids', 'train_ids'):
    config = make_config(tmp_path, labels=coding)
    kitti_folder.assert_batches_equal(take_train(config), take_train(folder))


def test_each_frame_is_stored_once(built):
  config = make_config(built['lidar'])
  table = input_pipeline.open_data(config).train
  assert table.frame_rows.shape == (16, 3)
  # Left 1 .. 17, right 0 .. 16; of the three for evaluation training reads one.
  assert len(np.unique(table.frame_rows)) == 17 + 17
  assert len(table.frames) == 17 + 17 + 2


def test_summary_is_that_of_the_folder(root, built):
  for overrides in ({}, {'labels': 'none'}):
    folder = input_pipeline.open_data(
      kitti_folder.make_config(root, **overrides)
    )
    stored = input_pipeline.open_data(make_config(built['lidar'], **overrides))
    assert str(stored) == str(folder)
    assert stored.digest == folder.digest


def test_lists_and_names_of_splits(root, built, tmp_path):
  output = built['lidar']
  batches = take_train(make_config(output))
  named = make_config(output, train_split='train', eval_split='eval')
  kitti_folder.assert_batches_equal(take_train(named), batches)
  same = make_config(output, train_split=str(root / 'splits/train.txt'))
  kitti_folder.assert_batches_equal(take_train(same), batches)
  lines = (root / 'splits/test.txt').read_text().split('\n')
  data = input_pipeline.open_data(named)
  assert len(list(data.eval_batches(batch_size=2))) == 2
  assert list(map(str, data.eval_lines)) == lines
  other = tmp_path / 'other.txt'
  other.write_text(f'{DRIVE} 1 l\n')
  with pytest.raises(
    ValueError,
    match='other.txt.*but the train split .*train_split=train to',
  ):
    take_train(make_config(output, train_split=str(other)))


@pytest.mark.parametrize(
  'overrides, error, message',
  [
    ({'height': 16}, ValueError, 'height is 16, stored is 8'),
    ({'width': 32}, ValueError, 'width is 32, stored is 24'),
    ({'ground_truth': 'dense'}, ValueError, "'dense', stored is 'lidar'"),
    (
      {'frame_offsets': (0, -2)},
      ValueError,
      r'frame_offsets are \(0, -2\), stored are \(0, -1, 1\)',
    ),
    ({'train_split': 'trian'}, ValueError, 'built from .*train_split=train to'),
    ({'eval_split': 'train'}, ValueError, 'built from .*eval_split=eval to'),
    ({'root': '/no/such'}, FileNotFoundError, "no folder '/no/such'"),
    (
      {'root': 'gs://bucket/x'},
      ValueError,
      'gs://bucket/x is a URL: .* mounted disks',
    ),
    ({'root': ''}, FileNotFoundError, "no folder ''"),
  ],
)
def test_settings_that_are_not_stored_raise(built, overrides, error, message):
  config = make_config(built['lidar'], **overrides)
  with pytest.raises(error, match=message) as raised:
    input_pipeline.open_data(config)
  assert '\n' not in str(raised.value)


def test_records_without_labels_and_truth(root, tmp_path):
  build_records.build(
    make_builder_config(root, labels='none', ground_truth='none'), tmp_path
  )
  config = make_config(tmp_path, labels='none')
  folder = kitti_folder.make_config(root, labels='none')
  kitti_folder.assert_batches_equal(take_train(config), take_train(folder))
  with pytest.raises(ValueError, match="'lidar', stored is 'none'"):
    input_pipeline.open_data(config)
  config = make_config(tmp_path, labels='none', ground_truth='none')
  assert input_pipeline.open_data(config).eval_lines == ()
  with pytest.raises(ValueError, match="labels is 'ids', stored is 'none'"):
    take_train(make_config(tmp_path, labels='ids'))


def test_several_datasets_and_damaged_ones(root, tmp_path):
  names = ('first', 'second')
  first, second = (
    build_records.build(make_builder_config(root, name=name), tmp_path)[0]
    for name in names
  )
  with pytest.raises(ValueError, match='several datasets.*first.* or .*second'):
    take_train(make_config(tmp_path))
  assert take_train(make_config(first.parent))
  (shard,) = second.glob('*-frames.*')
  shard.write_bytes(shard.read_bytes()[: -shard.stat().st_size // 2])
  for reader in ('memory', 'tf'):
    with pytest.raises(ValueError, match='of frames in .*second.* cannot be'):
      take_train(make_config(second, reader=reader))
  shard.unlink()
  with pytest.raises(FileNotFoundError, match='1 files of records .*frames'):
    take_train(make_config(second))


class _CountedRecords:
  """Wraps the files of a split and notes the bytes of each record."""

  def __init__(self, files, sizes):
    self._files, self._sizes = files, sizes

  def __getitem__(self, key):
    record = self._files[key]
    self._sizes.append(len(record))
    return record


def test_processes_read_only_their_own_rows(built, monkeypatch):
  # Two epochs of 16 examples; finite, so that nothing is read ahead of them.
  monkeypatch.setattr(data, 'sys', types.SimpleNamespace(maxsize=4))
  open_tables, sizes = records.open_tables, []

  def open_counted(*args, **kwargs):
    tables, shapes = open_tables(*args, **kwargs)
    for source in (tables['train'].frames, tables['train'].examples):
      source.data_source = _CountedRecords(source.data_source, sizes)
    return tables, shapes

  monkeypatch.setattr(records, 'open_tables', open_counted)
  config = make_config(built['lidar'], reader='tf')
  whole = take_train(config, None)
  total = sum(sizes)
  parts, shares = [], []
  for process in range(4):
    sizes.clear()
    parts.append(
      take_train(config, None, process_index=process, process_count=4)
    )
    shares.append(sum(sizes) / total)
  joined = [
    {name: np.concatenate([part[name] for part in step]) for name in step[0]}
    for step in zip(*parts, strict=True)
  ]
  kitti_folder.assert_batches_equal(joined, whole)
  index = np.concatenate([batch['index'] for batch in joined])
  assert sorted(index) == sorted([*range(16)] * 2)
  assert sum(shares) == pytest.approx(1)
  assert all(0.24 < share < 0.26 for share in shares)


def test_order_survives_the_buckets_on_disk(root, built, tmp_path, monkeypatch):
  from tensorflow_datasets.core import shuffle

  monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 0)
  buckets = set()
  number = shuffle.get_bucket_number
  monkeypatch.setattr(
    shuffle,
    'get_bucket_number',
    lambda **kwargs: buckets.add(number(**kwargs)) or number(**kwargs),
  )
  build_records.build(make_builder_config(root), tmp_path)
  # As many as there are frames: none holds more than its share in memory.
  assert len(buckets) >= 18
  kitti_folder.assert_batches_equal(
    take_train(make_config(tmp_path)), take_train(make_config(built['lidar']))
  )


def _fail_at(monkeypatch, call, failure):
  """Makes the n-th frame that is read fail."""
  calls = itertools.count(1)
  read_frame = images.read_frame

  def read(path, **kwargs):
    if next(calls) == call:
      raise failure
    return read_frame(path, **kwargs)

  monkeypatch.setattr(images, 'read_frame', read)


@pytest.mark.parametrize('failure', [KeyboardInterrupt, ValueError('x.png')])
def test_interrupted_build_leaves_nothing(root, tmp_path, monkeypatch, failure):
  with monkeypatch.context() as patch:
    _fail_at(patch, 5, failure)
    with pytest.raises((KeyboardInterrupt, ValueError)):
      build_records.build(make_builder_config(root), tmp_path)
  assert not [path for path in tmp_path.rglob('*') if path.is_file()]
  assert not list(tmp_path.rglob(f'{records.INCOMPLETE_PREFIX}*'))
  build_records.build(make_builder_config(root), tmp_path)
  assert take_train(make_config(tmp_path))


def test_killed_build_is_not_a_dataset(root, tmp_path):
  code = f"""
import os, signal
from input_pipeline import images
from input_pipeline.tools import build_records
from tests.input_pipeline.sources import test_records
images.read_frame = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
build_records.build(
  test_records.make_builder_config({str(root)!r}), {str(tmp_path)!r})
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    check=False,
    capture_output=True,
    cwd=kitti_folder.REPOSITORY,
  )
  assert done.returncode == -9
  assert list(tmp_path.rglob(f'{records.INCOMPLETE_PREFIX}*'))
  with pytest.raises(FileNotFoundError, match='there is no dataset in'):
    take_train(make_config(tmp_path))
  build_records.build(make_builder_config(root), tmp_path)
  assert take_train(make_config(tmp_path))


def test_terminated_build_leaves_nothing(root, tmp_path):
  code = f"""
import os, runpy, signal, sys
from input_pipeline import images
images.read_frame = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM)
sys.argv = ['', '--root={root}', '--output={tmp_path}', '--height=8',
            '--width=24']
runpy.run_module('input_pipeline.tools.build_records', run_name='__main__')
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    check=False,
    text=True,
    capture_output=True,
    cwd=kitti_folder.REPOSITORY,
  )
  assert done.returncode == 128 + signal.SIGTERM
  assert 'Traceback' not in done.stderr
  assert not list(tmp_path.rglob(f'{records.INCOMPLETE_PREFIX}*'))


def test_equal_build_changes_nothing_and_different_build_raises(root, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(root, copy)
  output = tmp_path / 'records'
  config = make_builder_config(root)
  folder, built = build_records.build(config, output)
  assert built
  times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
  # The same content elsewhere is equal.
  assert build_records.build(make_builder_config(copy), output) == (
    folder,
    False,
  )
  for overrides, message in (
    ({'height': 16}, r'height 8 \(asked for: 16\)'),
    ({'labels': 'none'}, r'labels train_ids \(asked for: none\)'),
    ({'frame_offsets': (0, 1)}, 'other frame offsets'),
    ({'eval_split': 'splits/train.txt'}, 'other lists'),
  ):
    with pytest.raises(ValueError, match=message):
      build_records.build(dataclasses.replace(config, **overrides), output)
  kitti_folder.save(
    np.zeros((12, 40, 3), np.uint8),
    copy / DRIVE / 'image_02/data/0000000002.png',
  )
  with pytest.raises(ValueError, match='other files .*give another --name'):
    build_records.build(make_builder_config(copy), output)
  assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize(
  'overrides, output, message',
  [
    ({}, 's3://bucket/x', 's3://bucket/x is a URL: .* mounted disks'),
    ({'root': 'gs://bucket'}, None, 'gs://bucket is a URL'),
    ({'root': '/no/such'}, None, "there is no folder '/no/such'"),
    ({'labels': 'colours'}, None, "labels is 'colours'"),
    ({'ground_truth': 'radar'}, None, "ground_truth is 'radar'"),
    ({'frame_offsets': (1, 0)}, None, 'must start with 0'),
    ({'train_split': 'no.txt'}, None, 'no split list at no.txt'),
    ({'train_split': 'splits/test.txt'}, None, 'lacks 1 file that'),
  ],
)
def test_wrong_arguments_raise(root, tmp_path, overrides, output, message):
  output = output or tmp_path / 'records'
  config = dataclasses.replace(make_builder_config(root), **overrides)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    build_records.build(config, output)
  assert not pathlib.Path(output).exists()


def test_labels_without_a_mask_raise(root, tmp_path):
  copy = tmp_path / 'kitti'
  shutil.copytree(root, copy)
  for folder in list(copy.rglob('semantic_0[23]')):
    shutil.rmtree(folder)
  with pytest.raises(ValueError, match='no listed frame .* has a mask'):
    build_records.build(make_builder_config(copy), tmp_path / 'records')
  assert not (tmp_path / 'records').exists()
  config = make_builder_config(copy, labels='none')
  assert build_records.build(config, tmp_path / 'records')[1]


def run_command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'input_pipeline.tools.build_records', *arguments],
    cwd=kitti_folder.REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
  )


def test_command(root, tmp_path):
  arguments = [
    f'--root={root}',
    f'--output={tmp_path}',
    '--height=8',
    '--width=24',
    '--labels=train_ids',
    '--frame_offsets=0,-1,1',
  ]
  done = run_command(*arguments)
  assert done.returncode == 0, done.stderr
  assert 'kitti_records/24x8/1.1.0: ' in done.stdout
  assert 'Generating frames' in done.stderr
  assert take_train(make_config(tmp_path))
  done = run_command(*arguments)
  assert done.returncode == 0 and 'already exists, unchanged' in done.stdout
  done = run_command(*arguments, '--labels=ids')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert 'ValueError: ' in done.stderr and 'another --name' in done.stderr


def test_reading_does_not_import_tensorflow(built):
  code = f"""
import sys
from tests.support import kitti_folder
import input_pipeline
config = kitti_folder.make_config({str(built['lidar'])!r}, source='tfds')
next(input_pipeline.open_data(config).train_batches(
  seed=0, start_step=0, batch_size=2))
print('tensorflow' in sys.modules, 'tensorflow_datasets' in sys.modules)
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    check=False,
    capture_output=True,
    text=True,
    cwd=kitti_folder.REPOSITORY,
  )
  assert done.stdout.strip() == 'False True', done.stderr
