"""Trajectories of predicted camera motion and their errors, NumPy float64.

References:
  Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video
    (2017); Godard et al., Digging Into Self-Supervised Monocular Depth
    Estimation (2019).
  Umeyama, Least-Squares Estimation of Transformation Parameters Between Two
    Point Patterns (1991).
"""

import numpy as np

SNIPPET = 5  # Frames of the field's snippets.


def odometry_error(
  poses_true: np.ndarray, poses_predicted: np.ndarray, *, snippet: int = SNIPPET
) -> tuple[float, float]:
  """Computes the absolute trajectory error over snippets (Zhou et al.).

  Each run of `snippet` consecutive frames is expressed relative to its first
  frame, the predicted positions get one least-squares scale, and the error
  is sqrt(sum of squares) / snippet: the published figures divide by the
  length outside of the root. Only whole snippets count (Monodepth2's code
  differs, see `monodepth2_errors`).

  Args:
    poses_true: `[N, 4, 4]`, camera to world, metres.
    poses_predicted: `[N, 4, 4]`, camera to world, any scale.
    snippet: frames per snippet, at least 2.

  Returns:
    Mean and standard deviation of `snippet_errors`, metres.
  """
  errors = snippet_errors(poses_true, poses_predicted, snippet=snippet)
  return float(np.mean(errors)), float(np.std(errors))


def snippet_errors(
  poses_true: np.ndarray, poses_predicted: np.ndarray, *, snippet: int = SNIPPET
) -> np.ndarray:
  """Returns the errors `[N - snippet + 1]`, in metres, of all snippets.

  Raises:
    ValueError: if the numbers of poses differ, or a snippet needs more.
  """
  true, predicted = _as_float64(poses_true, poses_predicted)
  if len(true) != len(predicted) or len(true) < snippet:
    raise ValueError(
      f'{len(true)} true and {len(predicted)} predicted poses: use as many of'
      f' both, and at least a snippet of {snippet}.'
    )
  wanted = _snippet_positions(true, snippet)  # [M, snippet, 3]
  found = _snippet_positions(predicted, snippet)
  power = np.sum(found**2, axis=(1, 2))
  # A snippet predicted as standing still has no scale to fit.
  scale = np.divide(
    np.sum(wanted * found, axis=(1, 2)),
    power,
    out=np.zeros_like(power),
    where=power > 0,
  )
  residual = wanted - scale[:, None, None] * found
  return np.sqrt(np.sum(residual**2, axis=(1, 2))) / snippet


def monodepth2_errors(
  poses_true: np.ndarray, poses_predicted: np.ndarray
) -> np.ndarray:
  """Returns the errors that Monodepth2's code averages, for comparison.

  Its poses are those of `chain_backwards`, and the three shorter snippets at
  the end, of 4, 3 and 2 frames, count as much as whole ones. Takes the poses of
  `odometry_error`; returns `[N - 1]`, metres.
  """
  true, predicted = map(chain_backwards, (poses_true, poses_predicted))
  shorter = [
    snippet_errors(true, predicted, snippet=frames)[-1:]
    for frames in range(SNIPPET - 1, 1, -1)
  ]
  return np.concatenate([snippet_errors(true, predicted), *shorter])


def chain(motions: np.ndarray) -> np.ndarray:
  """Chains the motions between consecutive frames into camera poses.

  Args:
    motions: `[N - 1, 4, 4]`, of each frame t the transform T_t_(t+1), which
      maps points of the next frame's camera into its own.

  Returns:
    `[N, 4, 4]`, camera to world; the world is the first frame's camera.
  """
  poses = [np.eye(4)]
  for motion in np.asarray(motions, np.float64):
    poses.append(poses[-1] @ motion)
  return np.stack(poses)


def chain_backwards(poses: np.ndarray) -> np.ndarray:
  """Returns the poses `[N, 4, 4]` as Monodepth2's evaluation computes them.

  Its code chains the motions' inverses T_(t+1)_t in the order of the motions,
  for truth and prediction alike. Where the camera turns, the snippet errors of
  such poses are not those of the trajectory; the published figures are these.
  """
  poses = np.asarray(poses, np.float64)
  return chain(np.linalg.inv(poses[1:]) @ poses[:-1])


def align(
  poses_true: np.ndarray, poses_predicted: np.ndarray
) -> tuple[np.ndarray, float]:
  """Moves a trajectory onto the true one by the best similarity (Umeyama).

  Scale, rotation and translation are those that leave the least sum of squared
  distances between the positions of all frames.

  Args:
    poses_true: `[N, 4, 4]`, camera to world, metres.
    poses_predicted: `[N, 4, 4]`, camera to world, any scale and world.

  Returns:
    The predicted poses `[N, 4, 4]` in the true world, metres, and the scale; a
    prediction that stands still has scale 0.
  """
  true, predicted = _as_float64(poses_true, poses_predicted)
  wanted, found = true[:, :3, 3], predicted[:, :3, 3]
  wanted_mean, found_mean = wanted.mean(axis=0), found.mean(axis=0)
  wanted, found = wanted - wanted_mean, found - found_mean
  u, singular, vt = np.linalg.svd(wanted.T @ found)
  # A reflection is not allowed: flip the weakest direction instead.
  signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
  rotation = (u * signs) @ vt
  power = np.sum(found**2)
  scale = float(np.sum(singular * signs) / power) if power > 0 else 0.0
  aligned = predicted.copy()
  aligned[:, :3, :3] = rotation @ predicted[:, :3, :3]
  aligned[:, :3, 3] = wanted_mean + scale * found @ rotation.T
  return aligned, scale


def trajectory_error(
  poses_true: np.ndarray, poses_aligned: np.ndarray
) -> float:
  """Returns the RMS distance between the positions of all frames, in metres.

  Takes poses `[N, 4, 4]` in the same world, see `align`.
  """
  true, aligned = _as_float64(poses_true, poses_aligned)
  squares = np.sum((true - aligned)[:, :3, 3] ** 2, axis=1)
  return float(np.sqrt(np.mean(squares)))


def path_length(poses: np.ndarray) -> float:
  """Returns the length of the path through the positions of `[N, 4, 4]`."""
  steps = np.diff(np.asarray(poses, np.float64)[:, :3, 3], axis=0)
  return float(np.sum(np.linalg.norm(steps, axis=1)))


def _as_float64(*arrays):
  return [np.asarray(array, np.float64) for array in arrays]


def _snippet_positions(poses, snippet):
  starts = np.arange(len(poses) - snippet + 1)
  windows = poses[starts[:, None] + np.arange(snippet)]
  relative = np.linalg.inv(windows[:, :1]) @ windows
  return relative[..., :3, 3]
