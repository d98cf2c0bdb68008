"""Trajectory errors by hand, their invariances, and the alignment."""

import numpy as np
import pytest

from sgde_jax import metrics
from sgde_jax.metrics import trajectories


def _poses(count=12, seed=0):
  """[count, 4, 4] random rigid camera-to-world poses."""
  rng = np.random.default_rng(seed)
  rotations, _ = np.linalg.qr(rng.standard_normal((count, 3, 3)))
  poses = np.tile(np.eye(4), (count, 1, 1))
  poses[:, :3, :3] = rotations * np.linalg.det(rotations)[:, None, None]
  poses[:, :3, 3] = np.cumsum(rng.standard_normal((count, 3)), axis=0)
  return poses


@pytest.mark.parametrize('scale', [1.0, 0.01, 30.0])
def test_odometry_error_ignores_scale_and_world_frame(scale):
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


def test_odometry_error_measures_rotation_and_counts_snippets():
  true, predicted = _poses(9), _poses(9, seed=3)
  mean, deviation = metrics.odometry_error(true, predicted)
  windows = [
    metrics.odometry_error(true[i : i + 5], predicted[i : i + 5])[0]
    for i in range(5)
  ]
  assert mean == pytest.approx(np.mean(windows))
  assert deviation == pytest.approx(np.std(windows))


def test_odometry_error_raises_without_enough_poses():
  poses = _poses(4)
  with pytest.raises(ValueError, match='a snippet of 5'):
    metrics.odometry_error(poses, poses)
  with pytest.raises(ValueError, match='4 true and 3 predicted'):
    metrics.odometry_error(poses, poses[1:], snippet=3)


def test_chain_goes_through_the_poses():
  poses = _poses()
  motions = np.linalg.inv(poses[:-1]) @ poses[1:]
  expected = np.linalg.inv(poses[0]) @ poses
  np.testing.assert_allclose(trajectories.chain(motions), expected, atol=1e-9)


def test_chain_backwards_matches_monodepth2():
  poses = _poses(5)
  transforms = [
    np.linalg.inv(np.linalg.inv(poses[i]) @ poses[i + 1]) for i in range(4)
  ]
  sums = [np.eye(4)]
  for transform in transforms:
    sums.append(sums[-1] @ transform)
  np.testing.assert_allclose(
    trajectories.chain_backwards(poses), sums, atol=1e-9
  )
  # Without rotation it is the trajectory, mirrored: the same errors.
  straight, other = _poses(9), _poses(9, seed=3)
  straight[:, :3, :3] = other[:, :3, :3] = np.eye(3)
  backwards = map(trajectories.chain_backwards, (straight, other))
  assert metrics.odometry_error(*backwards) == pytest.approx(
    metrics.odometry_error(straight, other)
  )


def test_monodepth2_errors_match_its_loop():
  true, predicted = _poses(8), _poses(8, seed=3)
  transforms = [
    [np.linalg.inv(np.linalg.inv(p[i]) @ p[i + 1]) for i in range(7)]
    for p in (true, predicted)
  ]
  errors = []
  for start in range(7):  # A snippet begins at every frame but the last.
    tracks = []
    for motions in transforms:
      poses = [np.eye(4)]
      for motion in motions[start : start + 4]:
        poses.append(poses[-1] @ motion)
      tracks.append(np.stack(poses)[:, :3, 3])
    wanted, found = tracks
    scale = np.sum(wanted * found) / np.sum(found**2)
    residual = wanted - scale * found
    errors.append(np.sqrt(np.sum(residual**2)) / len(wanted))
  np.testing.assert_allclose(
    trajectories.monodepth2_errors(true, predicted), errors, rtol=1e-9
  )
  with pytest.raises(ValueError, match='a snippet of 5'):
    trajectories.monodepth2_errors(true[:4], predicted[:4])


@pytest.mark.parametrize('scale', [1.0, 0.02, 40.0])
@pytest.mark.parametrize('flat', [False, True])
def test_align_finds_a_known_similarity(scale, flat):
  true = _poses(20)
  if flat:  # As a drive is: any mirrored world fits the positions as well.
    true[:, 1, 3] = 0
  world = _poses(1, seed=5)[0]
  moved = true.copy()
  moved[:, :3, 3] /= scale
  aligned, found = trajectories.align(true, world @ moved)
  assert found == pytest.approx(scale)
  np.testing.assert_allclose(aligned, true, atol=1e-9 * scale + 1e-9)
  assert trajectories.trajectory_error(true, aligned) < 1e-8


def test_align_minimizes_the_error():
  true, predicted = _poses(15), _poses(15, seed=2)
  aligned, scale = trajectories.align(true, predicted)
  least = trajectories.trajectory_error(true, aligned)
  assert scale > 0 and least > 0.1
  rng = np.random.default_rng(0)
  for _ in range(20):
    change = _poses(1, seed=int(rng.integers(1e6)))[0]
    # A small turn, shift and stretch of the best answer.
    turn, _ = np.linalg.qr(np.eye(3) + 0.05 * (change[:3, :3] - np.eye(3)))
    turn *= np.sign(np.diag(turn))
    worse = aligned.copy()
    worse[:, :3, 3] = (
      aligned[:, :3, 3] @ turn.T * rng.uniform(0.95, 1.05)
      + 0.05 * change[:3, 3]
    )
    assert trajectories.trajectory_error(true, worse) >= least


def test_align_straight_and_standing_drives():
  true = np.tile(np.eye(4), (6, 1, 1))
  true[:, 2, 3] = np.arange(6)
  aligned, scale = trajectories.align(true, _poses(1, seed=4) @ true)
  assert scale == pytest.approx(1)
  np.testing.assert_allclose(aligned[:, :3, 3], true[:, :3, 3], atol=1e-9)
  aligned, scale = trajectories.align(true, np.tile(np.eye(4), (6, 1, 1)))
  assert scale == 0 and np.isfinite(aligned).all()
  error = trajectories.trajectory_error(true, aligned)
  assert error == pytest.approx(np.std(np.arange(6)))


def test_path_length_by_hand():
  poses = np.tile(np.eye(4), (3, 1, 1))
  poses[1, :3, 3] = [3, 0, 4]
  poses[2, :3, 3] = [3, 2, 4]
  assert trajectories.path_length(poses) == pytest.approx(7)
