"""Tests of `analysis.edge_points`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis import edge_points
from sgde_jax.models import depth_model
from sgde_jax.ops import geometry

_SIZE = 32, 64
_FOCAL = 20.0


def _to_logit(depth):
  farthest, nearest = 1 / 100.0, 1 / 0.1
  disparity = (1 / depth - farthest) / (nearest - farthest)
  return jnp.log(disparity / (1 - disparity))[None, ..., None]


def _scene():
  """Two walls, 10 m and 20 m away, seen from 1 m farther to the left, too.

  The coarse depth takes the second wall to be 40 m away, SEEM's 30 m.
  """
  y, x = jnp.mgrid[: _SIZE[0], : _SIZE[1]].astype(jnp.float32)
  near = x < 40
  depth = jnp.where(near, 10.0, 20.0)

  def paint(x):
    waves = [jnp.sin(x / 2 + y / 3), jnp.sin(x / 3), jnp.cos(x / 4 - y / 5)]
    return 0.5 + 0.4 * jnp.stack(waves, -1)

  frames = jnp.stack([paint(x + _FOCAL / depth), paint(x)])[None]
  camera = jnp.array([[_FOCAL, 0, 32], [0, _FOCAL, 16], [0, 0, 1.0]])
  outputs = depth_model.DepthOutputs(
    (_to_logit(jnp.where(near, 10.0, 40.0)),),
    enhanced_disparity=jax.nn.sigmoid(_to_logit(jnp.where(near, 10.0, 30.0))),
    logits=jax.nn.one_hot(near.astype(int), 19)[None],
  )
  batch = {'frames': frames, 'intrinsics': camera[None], 'depth': depth[None]}
  transforms = jnp.eye(4).at[0, 3].set(1.0)[None, None]
  return outputs, batch, transforms


def _measure(count, batch_changes=None, width=4, automask=False):
  outputs, batch, transforms = _scene()
  return np.asarray(
    edge_points.measure_points(
      outputs,
      batch | (batch_changes or {}),
      transforms,
      jax.random.key(0),
      width=width,
      count=count,
      automask=automask,
      to_depth=geometry.disparity_to_depth,
    )
  )


@pytest.mark.slow
def test_perfect_depth_has_a_lower_loss_than_coarse_depth():
  count, coarse, enhanced, perfect, *errors, edge_pixels = _measure(1000)
  assert count == edge_pixels == 8 * _SIZE[0]
  assert perfect < 0.5 * enhanced and enhanced < 0.8 * coarse
  # Half of the pixels lie on the far wall.
  np.testing.assert_allclose(np.array(errors) / count, [0.5, 0.25], rtol=1e-4)


@pytest.mark.slow
def test_automask_leaves_no_signal_in_a_static_scene():
  frames = _scene()[1]['frames'][:, :1].repeat(2, axis=1)
  for automask in (False, True):
    _, *sums, _, _, _ = _measure(1000, {'frames': frames}, automask=automask)
    assert all(value < 1e-3 if automask else value > 1 for value in sums)


@pytest.mark.slow
def test_few_points_gain_less_than_all_points():
  gains = []
  for points in (60, 1000):
    count, coarse, _, perfect, *_, edge_pixels = _measure(points)
    assert count == min(points, edge_pixels)
    gains.append((coarse - perfect) / count)
  assert gains[0] < 0.8 * gains[1]


def test_points_without_known_depth_do_not_count():
  depth = _scene()[1]['depth'].at[:, :8].set(0).at[:, 8:12].set(90)
  count, *_, edge_pixels = _measure(1000, {'depth': depth})
  assert count == edge_pixels == 8 * (_SIZE[0] - 12)


@pytest.mark.parametrize('scale', [1.0, 7.0])
def test_perfect_disparity_has_the_scale_of_the_network(scale):
  coarse = jax.random.uniform(jax.random.key(0), (2, 8, 12, 1), minval=0.05)
  depth = scale * geometry.disparity_to_depth(coarse)
  depth = depth.at[0, :2].set(0)
  perfect, known = edge_points.perfect_disparity(
    depth, coarse, geometry.disparity_to_depth
  )
  assert known.sum() == known.size - 24
  np.testing.assert_allclose(perfect[known], coarse[known], rtol=1e-4)
