"""Segmentation on labelled stills: the IoU counts, and early messages."""

import json
import os

import jax
import numpy as np
import pytest

from input_pipeline import cityscapes, images
from sgde_jax import parallel
from sgde_jax.evaluation import run, segmentation, tables
from sgde_jax.weights import initial
from tests.support import kitti_folder, runs

_SIZE = (32, 64)
_ROAD, _CAR, _SKY, _NONE = 7, 26, 23, 0  # Ids.


def _halves(left, right, size=_SIZE):
  mask = np.full(size, left, np.uint8)
  mask[:, size[1] // 2 :] = right
  return mask


def _predicting(train_id, size=_SIZE):
  """Returns a picture whose grey is ten times its predicted class."""
  return np.full((*size, 3), 10 * train_id, np.uint8)


@pytest.fixture(name='stills', params=['kitti', 'cityscapes'])
def fixture_stills(tmp_path, request):
  """Three stills; see `test_known_confusion`."""
  for name, picture, mask in (
    ('a', _predicting(0), _halves(_ROAD, _CAR)),
    ('b', _predicting(13), _halves(_CAR, _NONE)),
    # Of another size and shape than the network's.
    ('c', _predicting(0, (20, 100)), _halves(_SKY, _ROAD, (20, 100))),
  ):
    kitti_folder.write_still(
      tmp_path / 'stills',
      name,
      picture,
      mask,
      layout=request.param,
      split='val',
    )
  return tmp_path / 'stills'


def _read_class(frames):
  """Stands in for the network: reads the class off the frame."""
  return frames[..., 0] // 10


def _config(stills, **overrides):
  return runs.make_config(
    'unused', eval__semantic_root=str(stills), **overrides
  )


@pytest.mark.parametrize('batch_size', [1, 2, 3, 8])
def test_known_confusion(stills, batch_size):
  table = segmentation.open_stills(_config(stills))
  figures = segmentation.measure(table, _read_class, batch_size)
  half, small = 32 * 32, 20 * 50
  assert figures == {
    'images': 3,
    # Hits: half of a, half of c; a car and sky are taken for it, too.
    'iou/road': pytest.approx((half + small) / (2 * half + 2 * small)),
    'iou/car': pytest.approx(0.5),  # b's half is found, a's is not.
    'iou/sky': 0,
    'miou': pytest.approx(1 / 3),
  }


def test_processes_add_up(stills, monkeypatch):
  table = segmentation.open_stills(_config(stills))
  alone = segmentation.measure(table, _read_class, 2)
  parts = []
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(
    parallel, 'gather_rows', lambda rows: parts.append(rows) or rows
  )
  for process in (0, 1):
    monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
    segmentation.measure(table, _read_class, 2)
  assert [len(part) for part in parts] == [1, 1]
  assert all(part.any() for part in parts)
  whole = np.concatenate(parts)
  monkeypatch.setattr(parallel, 'gather_rows', lambda rows: whole)
  assert segmentation.measure(table, _read_class, 2) == alone


def test_splits_and_codings(tmp_path):
  for split, ending, value in (
    ('val', 'labelIds', _SKY),
    ('train', 'labelTrainIds', 10),
  ):
    kitti_folder.write_still(
      tmp_path,
      'a',
      _predicting(10),
      np.full(_SIZE, value, np.uint8),
      layout='cityscapes',
      split=split,
      ending=ending,
    )
  for options in ({}, {'split': 'train', 'labels': 'train_ids'}):
    config = _config(
      tmp_path,
      **{f'eval__semantic_{name}': value for name, value in options.items()},
    )
    table = segmentation.open_stills(config)
    figures = segmentation.measure(table, _read_class, 2)
    assert figures['iou/sky'] == figures['miou'] == 1
    folder = f'{tmp_path}/leftImg8bit/{options.get("split", "val")}/city/'
    assert table.frame_files[0].startswith(folder)


def test_table_has_a_row_for_every_class(stills):
  table = segmentation.open_stills(_config(stills))
  text = tables.format_stills(
    segmentation.measure(table, _read_class, 2), 'PLACE'
  )
  head, *rows, last = text.splitlines()
  assert head.split() == ['iou']
  assert last == '3 stills of PLACE'
  figures = dict(row.rsplit(maxsplit=1) for row in rows)
  assert list(figures) == [*cityscapes.NAMES, 'mean']
  assert figures['car'] == '0.5000' and figures['mean'] == '0.3333'
  assert figures['bus'] == '-'


def test_no_figures_without_labels(tmp_path):
  kitti_folder.write_still(
    tmp_path, 'a', _predicting(1), _halves(_NONE, _NONE), layout='kitti'
  )
  table = segmentation.open_stills(_config(tmp_path))
  figures = segmentation.measure(table, _read_class, 1)
  assert figures == {'images': 1}
  *_, mean, _ = tables.format_stills(figures, 'PLACE').splitlines()
  assert mean.split() == ['mean', '-']


def test_train_ids_read_as_ids_log_a_warning(tmp_path, caplog):
  kitti_folder.write_still(
    tmp_path, 'a', _predicting(1), _halves(0, 13), layout='kitti'
  )
  segmentation.open_stills(_config(tmp_path))
  assert 'config.eval.semantic_labels = ids: 0 of 1 masks' in caplog.text
  caplog.clear()
  options = {'eval__semantic_labels': 'train_ids'}
  segmentation.open_stills(_config(tmp_path, **options))
  assert not caplog.text


def test_stills_are_measured_only_on_demand():
  assert segmentation.open_stills(_config('')) is None


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ('nowhere', 'no labelled stills in .*nowhere'),
    ('empty', 'has 0 pictures'),
    ('value', 'outside the coding: 1, the first: .*a_.*: value 99'),
    ('size', 'another size than their picture: 1, .*a_.* is 10x5'),
    ('broken', 'cannot be read: 1, .*a_'),
    ('missing', 'lacks 1 mask, .*a_'),
  ],
)
def test_problems_raise_before_compilation(
  stills, change, message, one_device, monkeypatch
):
  mask = next(
    path
    for path in stills.rglob('a_*')
    if 'eman' in str(path) or 'gtFine' in str(path)
  )
  root = stills
  if change == 'nowhere':
    root = stills / 'nowhere'
  elif change == 'empty':
    for path in (*stills.rglob('*_10.png'), *stills.rglob('*_leftImg8bit.png')):
      path.unlink()
  elif change == 'value':
    kitti_folder.save(_halves(_ROAD, 99), mask)
  elif change == 'size':
    kitti_folder.save(_halves(_ROAD, _CAR, (5, 10)), mask)
  elif change == 'broken':
    mask.write_bytes(mask.read_bytes()[:60])
  else:
    mask.unlink()
  no_model = (None, None)
  monkeypatch.setattr(initial, 'load_trained', lambda *args: no_model)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    run.evaluate(_config(root), stills / 'no_run')


@pytest.mark.slow
@pytest.mark.parametrize('stills', ['kitti'], indirect=True)
@pytest.mark.parametrize('depth', [True, False])
def test_mode_evaluate_measures_the_stills(trained, stills, tmp_path, depth):
  for name in ('checkpoints', 'config.json'):
    os.symlink(trained / name, tmp_path / name)
  output, _ = runs.run_main(
    '--mode=evaluate',
    f'--workdir={tmp_path}',
    f'--config.eval.semantic_root={stills}',
    *(() if depth else ('--config.data.ground_truth=none',)),
  )
  *_, last = output.splitlines()
  assert last.startswith(f'3 stills of {stills}')
  printed = dict(
    line.rsplit(maxsplit=1) for line in output.splitlines()[-21:-1]
  )
  assert list(printed) == [*cityscapes.NAMES, 'mean']
  measured = tmp_path / 'evaluation/metrics.json'
  assert measured.is_file() == depth
  results = json.loads((tmp_path / 'evaluation/stills.json').read_text())
  assert results['images'] == 3 and results['step'] == 20
  for name, figure in printed.items():
    key = 'miou' if name == 'mean' else f'iou/{name}'
    if figure == '-':
      assert key not in results
    else:
      assert float(figure) == pytest.approx(results[key], abs=5e-5)
  # Classes that occur in the truth have a figure for any prediction.
  assert {'-'} & {printed[name] for name in ('road', 'car', 'sky')} == set()


@pytest.mark.slow
@pytest.mark.parametrize('stills', ['kitti'], indirect=True)
def test_damaged_still_keeps_the_depth_results(trained, stills, tmp_path):
  for name in ('checkpoints', 'config.json'):
    os.symlink(trained / name, tmp_path / name)
  picture = next(stills.rglob('image_2/b_*'))
  picture.write_bytes(picture.read_bytes()[:50])  # Past its header.
  output, errors = runs.run_main(
    '--mode=evaluate',
    f'--workdir={tmp_path}',
    f'--config.eval.semantic_root={stills}',
    fails=True,
  )
  assert f'{picture} cannot be read' in errors
  results = json.loads((tmp_path / 'evaluation/metrics.json').read_text())
  assert results['images'] == 3 and 'abs_rel' in results
  assert f'{results["abs_rel"]:.4f}' in output


@pytest.mark.skipif(
  not kitti_folder.REAL_STILLS.is_dir(), reason='the labelled frames are absent'
)
def test_real_stills_against_their_own_labels():
  config = _config(kitti_folder.REAL_STILLS)
  table = segmentation.open_stills(config)
  masks = iter(table.label_files)

  def predict(frames):
    assert frames.shape == (1, 32, 64, 3) and frames.std() > 0
    labels = images.read_mask(next(masks), coding='ids')
    return np.where(labels == 255, 0, labels)[None]

  figures = segmentation.measure(table, predict, 1)
  assert figures['images'] == 5
  # All 19 classes occur, and all is right.
  assert [figures[f'iou/{name}'] for name in cityscapes.NAMES] == ([1.0] * 19)
