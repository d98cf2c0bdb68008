"""Trajectory error of predicted camera motion, in NumPy float64.

References:
  Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video
    (2017); Godard et al., Digging Into Self-Supervised Monocular Depth
    Estimation (2019).
"""

import numpy as np


def odometry_error(
  poses_true: np.ndarray, poses_predicted: np.ndarray, *, snippet: int = 5
) -> tuple[float, float]:
  """Absolute trajectory error over snippets, as Monodepth2 reports it.

  Each run of `snippet` consecutive frames is expressed relative to its first
  frame, the predicted positions get one least-squares scale, and the error
  is sqrt(sum of squares) / snippet: the published figures divide by the
  length outside of the root. Only whole snippets count (the original also
  takes the shorter ones at a sequence's end).

  Args:
    poses_true: `[N, 4, 4]`, camera to world, metres.
    poses_predicted: `[N, 4, 4]`, camera to world, any scale.
    snippet: frames per snippet, at least 2.

  Returns:
    Mean and standard deviation over the N - snippet + 1 snippets, metres.

  Raises:
    ValueError: the shapes differ or are not `[N, 4, 4]`, a pose is not
      finite, or there are fewer poses than a snippet needs.
  """
  true = np.asarray(poses_true, np.float64)
  predicted = np.asarray(poses_predicted, np.float64)
  if true.shape[1:] != (4, 4) or true.shape != predicted.shape:
    raise ValueError(
      'poses_true and poses_predicted must both be [N, 4, 4], got '
      f'{true.shape} and {predicted.shape}.'
    )
  if snippet < 2 or len(true) < snippet:
    raise ValueError(
      f'a snippet needs at least 2 frames and no more than there are poses; '
      f'got snippet={snippet} for {len(true)} poses.'
    )
  if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
    raise ValueError('poses_true or poses_predicted holds NaN or infinity.')
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
  errors = np.sqrt(np.sum(residual**2, axis=(1, 2))) / snippet
  return float(np.mean(errors)), float(np.std(errors))


def _snippet_positions(poses, snippet):
  starts = np.arange(len(poses) - snippet + 1)
  windows = poses[starts[:, None] + np.arange(snippet)]
  relative = np.linalg.inv(windows[:, :1]) @ windows
  return relative[..., :3, 3]
