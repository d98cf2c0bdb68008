"""Depth Pro's boundary scores on small scenes."""

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
  assert metrics.boundary_f1(depth, depth) == pytest.approx(1.0)
  assert metrics.boundary_f1(depth, 40 * depth) == pytest.approx(1.0)
  assert metrics.boundary_f1(depth, np.full_like(depth, 3.0)) == 0.0
  assert metrics.boundary_f1(depth, np.roll(depth, 2, (0, 1))) < 0.5


def test_boundary_f1_weighs_thresholds():
  # A step of 1.15 is an edge under the first five thresholds alone.
  thresholds = np.linspace(1.05, 1.25, 10)
  weak = _box_depth(near=10.0 / 1.15)
  share = thresholds[thresholds < 1.15].sum() / thresholds.sum()
  assert metrics.boundary_f1(_box_depth(), weak) == pytest.approx(share)


def test_boundary_f1_leaves_out_pairs_without_truth():
  depth = _box_depth()
  truth = np.where(np.arange(14) < 12, depth, 0.0)
  prediction = depth.copy()
  prediction[:, 12:] = np.nan
  score = metrics.boundary_f1(truth, prediction, valid=truth > 0)
  assert score == pytest.approx(1.0)
  with pytest.raises(ValueError, match='ground_truth must be finite'):
    metrics.boundary_f1(truth, depth)


def test_boundary_recall_wants_the_object_in_front_and_sharp():
  depth = _box_depth()
  mask = depth < 7
  assert metrics.boundary_recall(depth, mask) == pytest.approx(1.0)
  assert metrics.boundary_recall(1 / depth, mask) == 0.0
  # A ramp over four pixels steps on the contour, but hardest elsewhere.
  blurred = np.full((3, 12), 10.0)
  blurred[:, :8] = [3.0, 3.0, 3.0, 3.0, 3.9, 5.2, 7.4, 10.0]
  mask = np.zeros((3, 12), bool)
  mask[:, :5] = True
  sharp = np.where(mask, 3.0, 10.0)
  assert metrics.boundary_recall(blurred, mask) == 0.0
  assert metrics.boundary_recall(sharp, mask) == pytest.approx(0.25)


def test_boundary_totals_count_only_images_with_something_to_find():
  labels = np.zeros((12, 14), np.uint8)
  depth = _box_depth()
  nothing = metrics.boundary_totals(depth, labels)
  assert set(nothing.pairs.values()) == {(0.0, 0)}
  labels[depth < 7] = cityscapes.NAMES.index('car')
  found = metrics.boundary_totals(depth, labels, dense_truth=depth).finalize()
  assert found == {
    'boundary_recall/objects': pytest.approx(1.0),
    'boundary_f1': pytest.approx(1.0),
  }
