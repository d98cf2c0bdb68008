"""Metrics against golden values, tiny cases by hand, and properties."""

import pathlib

import numpy as np
import pytest

from sgde_jax import metrics

_GOLDEN = pathlib.Path(__file__).parents[1] / 'data' / 'metrics.npz'


def _scene(seed=0, shape=(60, 90)):
  """A truth with holes and a prediction of it."""
  rng = np.random.default_rng(seed)
  truth = rng.uniform(2, 60, shape) * (rng.random(shape) < 0.5)
  return truth, np.where(truth > 0, truth, 9.0) * rng.uniform(0.7, 1.4, shape)


def test_depth_errors_match_golden_values():
  # Source: an independent NumPy run of Monodepth2's evaluation (Garg crop,
  # 80 m, median scaling) on seeded sparse truth.
  with np.load(_GOLDEN) as golden:
    golden = dict(golden)
  truth = np.zeros(golden['shape'])
  prediction = np.zeros(golden['shape'])
  truth.flat[golden['gt_index']] = golden['gt_value']
  prediction.flat[golden['gt_index']] = golden['pred_at_gt']
  images = [
    metrics.depth_errors(*pair) for pair in zip(truth, prediction, strict=True)
  ]
  names = golden['names'].tolist()
  assert names == list(metrics.depth.DEPTH_ERRORS)
  found = [[image[name] for name in names] for image in images]
  np.testing.assert_allclose(found, golden['per_image'], rtol=1e-6)
  ratios = [image['ratio'] for image in images]
  np.testing.assert_allclose(ratios, golden['ratios'], rtol=1e-6)
  summary = metrics.depth.summarize(images)
  mean = [summary[name] for name in names]
  np.testing.assert_allclose(mean, golden['mean'], rtol=1e-6)
  assert summary['ratio'] == pytest.approx(np.median(golden['ratios']))


def test_depth_errors_by_hand():
  truth = np.array([[2.0, 4.0, 0.0]])
  prediction = np.array([[3.0, 4.0, np.nan]])
  errors = metrics.depth_errors(
    truth, prediction, crop='none', median_scaling=False
  )
  assert errors['abs_rel'] == pytest.approx(0.25)
  assert errors['sq_rel'] == pytest.approx(0.25)
  assert errors['rmse'] == pytest.approx(np.sqrt(0.5))
  assert errors['rmse_log'] == pytest.approx(np.log(1.5) / np.sqrt(2))
  assert (errors['a1'], errors['a2'], errors['a3']) == (0.5, 1.0, 1.0)
  assert errors['ratio'] == 1.0


@pytest.mark.parametrize('crop', ['garg', 'eigen', 'none'])
@pytest.mark.parametrize('scale', [1.0, 0.03, 250.0])
def test_perfect_prediction_has_no_error_at_any_scale(crop, scale):
  truth, _ = _scene()
  prediction = np.where(truth > 0, truth, 1.0) / scale
  errors = metrics.depth_errors(truth, prediction, crop=crop)
  for name in ('abs_rel', 'sq_rel', 'rmse', 'rmse_log'):
    assert errors[name] == pytest.approx(0.0, abs=1e-12)
  assert errors['a1'] == errors['a2'] == errors['a3'] == 1.0
  assert errors['ratio'] == pytest.approx(scale)


def test_only_median_scaling_ignores_the_scale():
  truth, prediction = _scene()
  plain = metrics.depth_errors(truth, prediction)
  scaled = metrics.depth_errors(truth, prediction * 7)
  for name in metrics.depth.DEPTH_ERRORS:
    assert scaled[name] == pytest.approx(plain[name], rel=1e-9)
  metric = metrics.depth_errors(truth, prediction * 7, median_scaling=False)
  assert metric['abs_rel'] > 2 * plain['abs_rel']


def test_crops_match_the_published_boxes():
  truth = np.ones((375, 1242))
  boxes = {'garg': (153, 371, 44, 1197), 'eigen': (124, 342, 44, 1197)}
  for crop, (top, bottom, left, right) in boxes.items():
    valid = metrics.depth.align_depth(truth, truth, crop=crop).valid
    rows, columns = np.nonzero(valid)
    assert (rows.min(), rows.max() + 1) == (top, bottom)
    assert (columns.min(), columns.max() + 1) == (left, right)
    assert valid.sum() == (bottom - top) * (right - left)


def test_range_masks_the_truth_and_clips_the_prediction():
  truth = np.array([[1e-3, 10.0, 80.0, 85.0, 0.0]])
  prediction = np.array([[1.0, 500.0, 1.0, 500.0, 1.0]])
  options = {'crop': 'none', 'median_scaling': False}
  aligned = metrics.depth.align_depth(truth, prediction, **options)
  np.testing.assert_array_equal(aligned.valid, [[0, 1, 0, 0, 0]])
  assert aligned.prediction.max() == 80.0
  # The improved ground truth counts every measurement.
  aligned = metrics.depth.align_depth(
    truth, prediction, cap_truth=False, **options
  )
  np.testing.assert_array_equal(aligned.valid, [[1, 1, 1, 1, 0]])
  assert aligned.prediction.max() == 80.0


@pytest.mark.parametrize('value', [np.nan, np.inf, 0.0, -1.0])
def test_impossible_prediction_raises_only_where_it_counts(value):
  truth = np.array([[5.0, 0.0]])
  with pytest.raises(ValueError, match='1 of 1 evaluated pixels'):
    metrics.depth_errors(truth, np.array([[value, 1.0]]), crop='none')
  errors = metrics.depth_errors(truth, np.array([[5.0, value]]), crop='none')
  assert errors['abs_rel'] == 0.0


def test_truth_without_measurements_raises():
  ones = np.ones((4, 6))
  with pytest.raises(ValueError, match='no pixel'):
    metrics.depth_errors(0 * ones, ones)
  with pytest.raises(ValueError, match='no pixel'):
    metrics.depth_errors(ones * np.nan, ones)


def test_resize_is_half_pixel_and_clamped():
  np.testing.assert_allclose(
    metrics.depth.resize_bilinear(np.array([[0.0, 1.0]]), (1, 4)),
    [[0.0, 0.25, 0.75, 1.0]],
  )
  # Without antialiasing, shrinking by 4 reads the two middle pixels alone.
  np.testing.assert_allclose(
    metrics.depth.resize_bilinear(np.array([[8.0, 1.0, 3.0, 8.0]]), (1, 1)),
    [[2.0]],
  )
  # A ramp stays a ramp: f(x) = x goes to (i + 0.5) h / H - 0.5.
  ramp = np.tile(np.arange(20.0), (3, 1))
  inner = metrics.depth.resize_bilinear(ramp, (7, 33))[:, 2:-2]
  wanted = (np.arange(33) + 0.5) * 20 / 33 - 0.5
  np.testing.assert_allclose(inner, np.tile(wanted[2:-2], (7, 1)))


def test_native_depth_resizes_the_inverse_depth_not_the_depth():
  depth = metrics.depth.native_depth(np.array([[1.0, 0.5]]), (1, 4))
  np.testing.assert_allclose(depth, 1 / np.array([[1.0, 0.875, 0.625, 0.5]]))


def test_flip_post_process_blends_by_side():
  disparity = np.full((2, 3, 101), 1.0)
  mirrored = np.full((2, 3, 101), 3.0)
  blended = metrics.depth.flip_post_process(disparity, mirrored)
  # The left border is hidden from the plain prediction, so the other wins.
  np.testing.assert_allclose(blended[..., :6], 3.0)
  np.testing.assert_allclose(blended[..., 10:91], 2.0)
  np.testing.assert_allclose(blended[..., 95:], 1.0)
  same = metrics.depth.flip_post_process(disparity, disparity)
  np.testing.assert_allclose(same, disparity)


def test_summary():
  names = metrics.depth.DEPTH_ERRORS
  images = [
    {**dict.fromkeys(names, value), 'ratio': ratio}
    for value, ratio in ((0.1, 1.0), (0.2, 2.0), (0.6, 4.0))
  ]
  summary = metrics.depth.summarize(images)
  assert summary['abs_rel'] == pytest.approx(0.3)
  assert summary['ratio'] == 2.0
  assert summary['ratio_std'] == pytest.approx(np.std([0.5, 1.0, 2.0]))
  assert summary['images'] == 3
