"""Evaluation of depth: every image counts once, as configured."""

import shutil
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import input_pipeline
from sgde_jax import metrics
from sgde_jax.evaluation import depth
from sgde_jax.inference import steps
from tests.support import kitti_folder, runs

_SIZE = (32, 64)
_GREY_PER_METRE = 3


@pytest.fixture(name='coded_root', scope='module')
def fixture_coded_root(tmp_path_factory):
  """A folder whose grey frames encode their depth: 3 grey levels a metre."""
  root = tmp_path_factory.mktemp('coded') / 'kitti'
  kitti_folder.write_drive(root, height=_SIZE[0], width=_SIZE[1])
  kitti_folder.write_splits(root)
  rng = np.random.default_rng(0)
  drive = root / kitti_folder.DRIVE
  for frame in range(6):
    depth = rng.integers(1, 80, _SIZE)
    grey = (_GREY_PER_METRE * depth).astype(np.uint8)
    name = f'data/{frame:010d}.png'
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(
      drive / 'image_02' / name
    )
    measured = rng.random(_SIZE) < 0.5
    Image.fromarray((256 * depth * measured).astype(np.uint16)).save(
      drive / 'depth_02' / name
    )
  return root


def _read_depth(variables, frames, *, model, flip):
  """Stands in for `steps.predict_step`: reads the depth off the frame."""
  del model
  disparity = variables['scale'] * _GREY_PER_METRE / frames[..., 0]
  if flip:
    disparity = jnp.stack([disparity, disparity], axis=1)
  labels = jnp.full(frames.shape[:3], 2, jnp.uint8)  # building
  return steps.BatchPrediction(disparity, labels)


def _make_evaluator(config, mesh=None):
  return depth.Evaluator(
    config,
    input_pipeline.open_data(config.data, train=False),
    model=None,
    mesh=mesh or runs.one_device_mesh(),
  )


def _evaluate_perfect(root, monkeypatch, *, scale=1.0, **overrides):
  """Evaluates a prediction that is correct up to a factor of its disparity."""
  monkeypatch.setattr(steps, 'predict_step', _read_depth)
  config = runs.make_config(root, data__ground_truth='dense', **overrides)
  evaluator = _make_evaluator(config)
  evaluation = evaluator.run({'scale': jnp.asarray(scale)}, step=7)
  assert evaluation.made == {'step': 7, **depth.describe(config)}
  return evaluation.summary, evaluation.images


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('batch_size', [1, 2, 3, 4])
def test_perfect_prediction_has_no_error(
  coded_root, monkeypatch, flip, batch_size
):
  summary, rows = _evaluate_perfect(
    coded_root, monkeypatch, eval__flip=flip, eval__batch_size=batch_size
  )
  # Four rows in two batches of two: the padding does not count.
  assert summary['images'] == 3
  assert [row['index'] for row in rows] == [0, 1, 2]
  for row in rows:
    for name in ('abs_rel', 'sq_rel', 'rmse', 'rmse_log'):
      assert row[name] == pytest.approx(0, abs=1e-5)
    assert row['a1'] == row['a2'] == row['a3'] == 1
    assert row['ratio'] == pytest.approx(1, rel=1e-5)
  for name in ('abs_rel/border_1', 'rmse/border_5', 'abs_rel/thin'):
    assert summary[name] == pytest.approx(0, abs=1e-5)
  assert summary['boundary_f1'] == pytest.approx(1, abs=1e-3)


def test_confusion_counts_every_labelled_pixel(coded_root, monkeypatch):
  monkeypatch.setattr(steps, 'predict_step', _read_depth)
  config = runs.make_config(coded_root, data__ground_truth='dense')
  evaluation = _make_evaluator(config).run({'scale': jnp.ones(())}, step=0)
  masks = (coded_root / kitti_folder.DRIVE).glob('semantic_02/data/*.png')
  evaluated = [0, 3, 5]
  labelled = sum(
    np.count_nonzero(np.asarray(Image.open(path)) != 255)
    for path in masks
    if int(path.stem) in evaluated
  )
  assert evaluation.confusion.sum() == labelled
  assert evaluation.confusion[:, 2].sum() == labelled  # All are building.


def test_chosen_examples_come_in_their_order(coded_root, monkeypatch):
  monkeypatch.setattr(steps, 'predict_step', _read_depth)
  config = runs.make_config(coded_root, data__ground_truth='dense')
  data = input_pipeline.open_data(config.data, train=False)
  mesh = runs.one_device_mesh()
  evaluator = depth.Evaluator(
    config, data, model=None, mesh=mesh, indices=[2, 0, 1]
  )
  examples = evaluator.examples({'scale': jnp.ones(())})
  assert [int(example['index']) for example, _ in examples] == [2, 0, 1]


def test_median_scaling_removes_a_factor(coded_root, monkeypatch):
  # Twice the disparity is half the depth.
  scaled, _ = _evaluate_perfect(coded_root, monkeypatch, scale=2.0)
  assert scaled['abs_rel'] == pytest.approx(0, abs=1e-5)
  assert scaled['ratio'] == pytest.approx(2, rel=1e-5)
  assert scaled['ratio_std'] == pytest.approx(0, abs=1e-5)
  plain, _ = _evaluate_perfect(
    coded_root, monkeypatch, scale=2.0, eval__median_scaling=False
  )
  assert plain['abs_rel'] == pytest.approx(0.5, rel=1e-5)
  assert plain['a1'] == 0


def test_image_without_usable_truth_is_named(tmp_path, coded_root, monkeypatch):
  root = tmp_path / 'kitti'
  shutil.copytree(coded_root, root)
  lines = (root / 'splits' / 'test.txt').read_text().splitlines()
  frame = int(lines[1].split()[1])
  picture = Image.fromarray(np.zeros(_SIZE, np.uint16))
  picture.save(root / kitti_folder.DRIVE / f'depth_02/data/{frame:010d}.png')
  with pytest.raises(ValueError, match=f'{lines[1]} of .*: no pixel'):
    _evaluate_perfect(root, monkeypatch)


@pytest.mark.parametrize(
  ('overrides', 'expected'),
  [
    ({'eval__crop': 'eigen'}, {'crop': 'eigen'}),
    ({'eval__min_depth': 2.0}, {'min_depth': 2.0}),
    ({'eval__max_depth': 50.0}, {'max_depth': 50.0}),
    ({'eval__median_scaling': False}, {'median_scaling': False}),
    ({'data__ground_truth': 'lidar_z'}, {'cap_truth': True}),
    ({'data__ground_truth': 'improved'}, {'cap_truth': False}),
  ],
)
def test_depth_is_aligned_as_configured(
  coded_root, monkeypatch, overrides, expected
):
  monkeypatch.setattr(
    input_pipeline, 'open_data', mock.create_autospec(input_pipeline.open_data)
  )
  evaluator = _make_evaluator(runs.make_config(coded_root, **overrides))
  usual = {
    'crop': 'none',
    'min_depth': 1e-3,
    'max_depth': 80.0,
    'median_scaling': True,
    'cap_truth': True,
  }
  assert evaluator.alignment() == usual | expected


def test_second_inverse_depth_is_that_of_the_mirrored_frame(coded_root):
  config = runs.make_config(coded_root, eval__flip=True)
  evaluator = _make_evaluator(config)
  disparity = np.random.default_rng(0).uniform(0.1, 1, (2, *_SIZE))
  depth, reverse = (
    metrics.depth.native_depth(metrics.depth.flip_post_process(*pair), _SIZE)
    for pair in (disparity, disparity[::-1])
  )
  found = evaluator.native_depth(
    {'native_size': _SIZE}, steps.BatchPrediction(disparity)
  )
  np.testing.assert_array_equal(found, depth)
  assert (found != reverse).any()


def test_protocol_names_the_settings(coded_root):
  config = runs.make_config(coded_root, eval__flip=True, eval__crop='eigen')
  protocol = depth.describe(config)['protocol']
  for part in ('lidar', 'crop eigen,', '80 m', 'median', 'flip'):
    assert part in protocol


@pytest.mark.parametrize(
  ('crop', 'text'),
  [('garg', 'crop garg (usual with this truth: none)'), ('none', 'crop none,')],
)
def test_protocol_of_improved_truth(coded_root, crop, text):
  config = runs.make_config(
    coded_root, data__ground_truth='improved', eval__crop=crop
  )
  protocol = depth.describe(config)['protocol']
  assert text in protocol
  assert 'truth at any depth' in protocol
