"""Errors at semantic borders and per class; sharpness at depth edges."""

import numpy as np
import pytest

from input_pipeline import cityscapes
from sgde_jax import metrics


def _box_depth(near=5.0, far=10.0):
  depth = np.full((12, 14), far)
  depth[4:8, 5:10] = near
  return depth


def test_boundary_f1_is_one_for_the_truth_at_any_scale():
  depth = _box_depth()
  assert metrics.borders.boundary_f1(depth, depth) == pytest.approx(1.0)
  assert metrics.borders.boundary_f1(depth, 40 * depth) == pytest.approx(1.0)
  assert metrics.borders.boundary_f1(depth, np.full_like(depth, 3.0)) == 0.0
  assert metrics.borders.boundary_f1(depth, np.roll(depth, 2, (0, 1))) < 0.5


def test_boundary_f1_weights_thresholds():
  # A step of 1.15 is an edge under the first five thresholds alone.
  thresholds = np.linspace(1.05, 1.25, 10)
  weak = _box_depth(near=10.0 / 1.15)
  share = thresholds[thresholds < 1.15].sum() / thresholds.sum()
  assert metrics.borders.boundary_f1(_box_depth(), weak) == pytest.approx(share)


def test_boundary_f1_leaves_out_pairs_without_truth():
  depth = _box_depth()
  truth = np.where(np.arange(14) < 12, depth, 0.0)
  prediction = depth.copy()
  prediction[:, 12:] = np.nan
  score = metrics.borders.boundary_f1(truth, prediction, valid=truth > 0)
  assert score == pytest.approx(1.0)
  with pytest.raises(ValueError, match='must be finite'):
    metrics.borders.boundary_f1(truth, depth)


def test_boundary_recall_needs_the_object_in_front_and_sharp():
  depth = _box_depth()
  mask = depth < 7
  assert metrics.borders.boundary_recall(depth, mask) == pytest.approx(1.0)
  assert metrics.borders.boundary_recall(1 / depth, mask) == 0.0
  # A ramp over four pixels steps on the contour, but hardest elsewhere.
  blurred = np.full((3, 12), 10.0)
  blurred[:, :8] = [3.0, 3.0, 3.0, 3.0, 3.9, 5.2, 7.4, 10.0]
  mask = np.zeros((3, 12), bool)
  mask[:, :5] = True
  sharp = np.where(mask, 3.0, 10.0)
  assert metrics.borders.boundary_recall(blurred, mask) == 0.0
  assert metrics.borders.boundary_recall(sharp, mask) == pytest.approx(0.25)


def test_boundary_totals_count_only_images_with_boundaries():
  labels = np.zeros((12, 14), np.uint8)
  depth = _box_depth()
  nothing = metrics.borders.boundary_totals(depth, labels)
  assert set(nothing.pairs.values()) == {(0.0, 0)}
  labels[depth < 7] = cityscapes.NAMES.index('car')
  found = metrics.borders.boundary_totals(
    depth, labels, dense_truth=depth
  ).finalize()
  assert found == {
    'boundary_recall/objects': pytest.approx(1.0),
    'boundary_f1': pytest.approx(1.0),
  }


def _scene(seed=0, shape=(60, 90)):
  """A truth with holes, a prediction and labels in blocks."""
  rng = np.random.default_rng(seed)
  truth = rng.uniform(2, 60, shape) * (rng.random(shape) < 0.5)
  prediction = np.where(truth > 0, truth, 9.0) * rng.uniform(0.7, 1.4, shape)
  blocks = rng.integers(0, 19, (shape[0] // 10, shape[1] // 10))
  labels = np.kron(blocks, np.ones((10, 10), int)).astype(np.uint8)
  labels[:5] = 255
  return truth, prediction, labels


def test_border_distance_by_hand():
  labels = np.array([[1, 1, 1, 2, 2, 2, 2]], np.uint8)
  np.testing.assert_array_equal(
    metrics.borders.border_distance(labels, limit=2), [[3, 2, 1, 1, 2, 3, 3]]
  )
  diagonal = np.full((3, 3), 4, np.uint8)
  diagonal[0, 0] = 5
  np.testing.assert_array_equal(
    metrics.borders.border_distance(diagonal), [[1, 1, 2], [1, 2, 3], [2, 3, 4]]
  )


def test_unlabelled_pixels_create_no_border():
  labels = np.array([[1, 1, 255, 2, 2]], np.uint8)
  assert (metrics.borders.border_distance(labels) == 6).all()
  assert (
    metrics.borders.border_distance(np.full((3, 4), 255, np.uint8)) == 6
  ).all()


def test_border_errors_by_hand():
  labels = np.array([[1] * 8 + [2] * 8 + [255]], np.uint8)
  truth = np.full(labels.shape, 10.0)
  prediction = truth.copy()
  prediction[0, 7:9] = 15.0  # On both sides of the border.
  prediction[0, -1] = 99.0
  valid = np.ones(labels.shape, bool)
  found = metrics.borders.border_errors(truth, prediction, valid, labels)
  assert found.pairs['abs_rel/border_1'] == (pytest.approx(1.0), 2)
  assert found.pairs['abs_rel/border_3'] == (pytest.approx(1.0), 6)
  assert found.pairs['abs_rel/border_5'] == (pytest.approx(1.0), 10)
  assert found.pairs['abs_rel/away'] == (0.0, 6)
  assert found.finalize()['rmse/border_1'] == pytest.approx(5.0)


def test_class_errors_by_hand():
  labels = np.array([[0, 5, 5, 11, 255]], np.uint8)
  truth = np.full(labels.shape, 10.0)
  prediction = truth + [[0.0, 1.0, 2.0, 3.0, 50.0]]
  valid = np.array([[True, True, False, True, True]])
  found = metrics.borders.class_errors(
    truth, prediction, valid, labels
  ).finalize()
  assert found == {
    'abs_rel/road': 0.0,
    'rmse/road': 0.0,
    'abs_rel/pole': pytest.approx(0.1),
    'rmse/pole': pytest.approx(1.0),
    'abs_rel/person': pytest.approx(0.3),
    'rmse/person': pytest.approx(3.0),
    'abs_rel/thin': pytest.approx(0.2),
    'rmse/thin': pytest.approx(np.sqrt(5.0)),
  }


def test_merged_totals_equal_those_of_the_whole():
  scenes = [_scene(seed) for seed in range(4)]

  def totals(chosen):
    merged = metrics.totals.Totals()
    for truth, prediction, labels in chosen:
      valid = truth > 0
      confusion = metrics.segmentation.confusion_matrix(
        labels, np.roll(np.where(labels == 255, 0, labels), 3)
      )
      for part in (
        metrics.borders.border_errors(truth, prediction, valid, labels),
        metrics.borders.class_errors(truth, prediction, valid, labels),
        metrics.segmentation.iou_totals(confusion),
        metrics.borders.boundary_totals(prediction, labels, dense_truth=truth),
      ):
        merged = merged.merge(part)
    return merged

  whole = totals(scenes)
  halves = totals(scenes[2:]).merge(totals(scenes[:2]))
  assert list(whole.pairs) == list(halves.pairs)
  np.testing.assert_allclose(
    list(halves.pairs.values()), list(whole.pairs.values()), rtol=1e-12
  )
  assert halves.finalize() == pytest.approx(whole.finalize())
  # One image more adds to the same names, so hosts can add plain arrays.
  assert totals(scenes[:1]).pairs.keys() == whole.pairs.keys()


def test_class_errors_do_not_depend_on_the_order_of_pixels():
  truth, prediction, labels = _scene()
  order = np.random.default_rng(1).permutation(truth.size)
  mixed = [
    array.ravel()[order].reshape(array.shape)
    for array in (truth, prediction, truth > 0, labels)
  ]
  assert metrics.borders.class_errors(*mixed).finalize() == pytest.approx(
    metrics.borders.class_errors(
      truth, prediction, truth > 0, labels
    ).finalize()
  )
