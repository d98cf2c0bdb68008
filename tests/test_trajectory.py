"""Trajectory error by hand, and what it forgives."""

import numpy as np
import pytest

from sgde_jax import metrics


def _poses(count=12, seed=0):
  """[count, 4, 4] random rigid camera-to-world poses."""
  rng = np.random.default_rng(seed)
  rotations, _ = np.linalg.qr(rng.standard_normal((count, 3, 3)))
  poses = np.tile(np.eye(4), (count, 1, 1))
  poses[:, :3, :3] = rotations * np.linalg.det(rotations)[:, None, None]
  poses[:, :3, 3] = np.cumsum(rng.standard_normal((count, 3)), axis=0)
  return poses


@pytest.mark.parametrize('scale', [1.0, 0.01, 30.0])
def test_odometry_error_forgives_scale_and_world_frame(scale):
  true = _poses()
  predicted = true.copy()
  predicted[:, :3, 3] *= scale
  mean, deviation = metrics.odometry_error(true, _poses(1, 5) @ predicted)
  assert mean == pytest.approx(0.0, abs=1e-9)
  assert deviation == pytest.approx(0.0, abs=1e-9)


def test_odometry_error_by_hand():
  true = np.tile(np.eye(4), (3, 1, 1))
  predicted = true.copy()
  true[:, 0, 3] = [0.0, 1.0, 2.0]
  predicted[:, 1, 3] = [0.0, 1.0, 2.0]
  # Orthogonal tracks: the best scale is 0, the error sqrt(1 + 4) / 3.
  mean, deviation = metrics.odometry_error(true, predicted, snippet=3)
  assert (mean, deviation) == (pytest.approx(np.sqrt(5) / 3), 0.0)
  still = np.tile(np.eye(4), (3, 1, 1))
  mean, _ = metrics.odometry_error(true, still, snippet=3)
  assert mean == pytest.approx(np.sqrt(5) / 3)


def test_odometry_error_sees_rotation_and_counts_snippets():
  true, predicted = _poses(9), _poses(9, seed=3)
  mean, deviation = metrics.odometry_error(true, predicted)
  windows = [
    metrics.odometry_error(true[i : i + 5], predicted[i : i + 5])[0]
    for i in range(5)
  ]
  assert mean == pytest.approx(np.mean(windows))
  assert deviation == pytest.approx(np.std(windows))


def test_odometry_error_refuses():
  poses = _poses(4)
  with pytest.raises(ValueError, match='snippet=5 for 4 poses'):
    metrics.odometry_error(poses, poses)
  with pytest.raises(ValueError, match=r'\(4, 4, 4\) and \(3, 4, 4\)'):
    metrics.odometry_error(poses, poses[1:], snippet=3)
  with pytest.raises(ValueError, match='NaN'):
    metrics.odometry_error(poses, poses * np.nan, snippet=3)
