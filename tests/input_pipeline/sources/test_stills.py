"""Labelled stills: both layouts, and their order next to the video."""

import itertools
import math
import pathlib

import numpy as np
import pytest

import input_pipeline
from input_pipeline.sources import stills
from tests.support import kitti_folder

_COUNT = 5


def _write_stills(root, layout):
  """Writes five pictures of one grey each, whose masks hold one id each."""
  for number in range(_COUNT):
    picture = np.full((20, 50, 3), 10 * number, np.uint8)
    mask = np.full((20, 50), 7 + number, np.uint8)  # Ids from road on.
    kitti_folder.write_still(
      root, f'{number:06d}', picture, mask, layout=layout
    )
  for path in list(root.rglob('*.png')):  # As macOS creates on other disks.
    path.with_name(f'._{path.name}').write_bytes(b'no picture')
  return root


@pytest.fixture(name='config', params=['kitti', 'cityscapes'])
def fixture_config(root, tmp_path, request):
  return kitti_folder.make_config(
    root,
    height=32,
    width=64,
    semantic_root=str(_write_stills(tmp_path / 'stills', request.param)),
  )


def _batches(config, count, *, batch_size=4, start_step=0, **shard):
  batches = input_pipeline.open_data(config, evaluation=False).train_batches(
    seed=0, start_step=start_step, batch_size=batch_size, **shard
  )
  return list(itertools.islice(batches, count))


def test_batches_contain_their_share_of_stills(config):
  plain = config.copy_and_resolve_references()
  plain.semantic_root = ''
  for batch, alone in zip(_batches(config, 3), _batches(plain, 3), strict=True):
    images, labels = batch.pop('semantic_images'), batch.pop('semantic_labels')
    assert images.shape == (2, 32, 64, 3) and images.dtype == np.uint8
    assert labels.shape == (2, 32, 64) and labels.dtype == np.uint8
    # Ids 7 .. 11 are train ids 0, 1, none, none, 2.
    for image, label in zip(images, labels, strict=True):
      wanted = (0, 1, 255, 255, 2)[image[0, 0, 0] // 10]
      np.testing.assert_array_equal(label, wanted)
    # The video does not notice them.
    assert batch.keys() == alone.keys()
    for name, array in batch.items():
      np.testing.assert_array_equal(array, alone[name])


def test_order_is_stateless_and_covers_every_still(config):
  seen = [batch['semantic_images'][:, 0, 0, 0] for batch in _batches(config, 5)]
  assert sorted(np.concatenate(seen)[:_COUNT]) == [0, 10, 20, 30, 40]
  resumed = _batches(config, 2, start_step=3)
  np.testing.assert_array_equal(
    resumed[0]['semantic_images'][:, 0, 0, 0], seen[3]
  )
  halves = [
    _batches(config, 2, process_index=p, process_count=2)[1] for p in (0, 1)
  ]
  both = [half['semantic_images'][:, 0, 0, 0] for half in halves]
  np.testing.assert_array_equal(np.concatenate(both), seen[1])


def test_both_readers_agree(config):
  config.reader = 'tf'
  read = _batches(config, 2)
  config.reader = 'memory'
  for ours, theirs in zip(read, _batches(config, 2), strict=True):
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
      np.testing.assert_array_equal(array, theirs[name])


def test_stills_are_counted(config):
  summary = input_pipeline.open_data(config)
  assert summary.stills == _COUNT
  assert '5 labelled stills' in str(summary)


@pytest.mark.parametrize('share', [0.3, 0.0, -1.0, math.inf, math.nan])
def test_fractional_number_of_stills_raises(config, share):
  config.semantic_share = share
  with pytest.raises(ValueError, match='semantic_share'):
    _batches(config, 1)


def _open(root, *, coding='ids', split='train'):
  return stills.open_table(root, coding=coding, split=split, size=(32, 64))


def test_missing_masks_are_counted_and_named(tmp_path):
  root = _write_stills(tmp_path, 'kitti')
  for number in (1, 3):
    (root / 'semantic' / f'{number:06d}_10.png').unlink()
  with pytest.raises(ValueError, match='lacks 2 masks, .*000001_10.png'):
    _open(root)


def test_cityscapes_splits_are_separate(tmp_path):
  grey = np.zeros((4, 8), np.uint8)
  for split, ending in (('train', 'labelIds'), ('val', 'labelTrainIds')):
    kitti_folder.write_still(
      tmp_path,
      split,
      grey,
      grey,
      layout='cityscapes',
      split=split,
      ending=ending,
    )
  for split, coding in (('train', 'ids'), ('val', 'train_ids')):
    table = _open(tmp_path, coding=coding, split=split)
    (picture,), (mask,) = table.frame_files, table.label_files
    assert f'/{split}/city/{split}_' in picture
    assert f'/{split}/city/{split}_' in mask
    other = {'ids': 'train_ids', 'train_ids': 'ids'}[coding]
    with pytest.raises(ValueError, match='1 picture and lacks 1 mask'):
      _open(tmp_path, coding=other, split=split)


def test_folders_without_stills_raise(tmp_path):
  with pytest.raises(FileNotFoundError, match='leftImg8bit.*image_2'):
    _open(tmp_path / 'nowhere')
  (tmp_path / 'image_2').mkdir()
  with pytest.raises(ValueError, match='has 0 pictures'):
    _open(tmp_path)


def test_value_outside_the_coding_raises_with_file_and_value(config, tmp_path):
  config.semantic_labels = 'ids'
  path = next((tmp_path / 'stills').rglob('000002*label*Ids.png'), None)
  path = path or tmp_path / 'stills/semantic/000002_10.png'
  kitti_folder.save(np.full((20, 50), 99, np.uint8), path)
  with pytest.raises(ValueError, match=f'{path}.*99'):
    _batches(config, 1)


def test_mask_and_picture_of_different_shapes_raise(config):
  assert input_pipeline.open_data(config).stills == _COUNT
  masks = pathlib.Path(config.semantic_root).rglob('[!.]*')
  mask = next(
    path
    for path in sorted(masks)
    if 'labelIds' in path.name
    or (path.parent.name == 'semantic' and path.is_file())
  )
  kitti_folder.save(np.full((10, 25), 7, np.uint8), mask)  # Half: the same.
  data = input_pipeline.open_data(config)
  assert data.stills == _COUNT
  kitti_folder.save(np.full((20, 25), 7, np.uint8), mask)
  with pytest.raises(ValueError, match=f'{mask.name} is 25x20, .* is 50x20'):
    input_pipeline.open_data(config)
  # Opening scans some of many masks, reading checks each.
  with pytest.raises(ValueError, match=f'{mask.name} is 25x20 .*frame 50x20'):
    next(data.train_batches(seed=0, start_step=0, batch_size=10))
