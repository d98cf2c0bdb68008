"""Priors: nothing where all is well, a pull where depth is lost or blurred."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgde_jax.ops import priors


def _constant_logits(*values):
  return [jnp.full((2, 8 >> s, 16 >> s, 1), v) for s, v in enumerate(values)]


def test_scale_prior_is_nothing_in_its_range_and_counts_means_alone():
  assert priors.scale_prior(_constant_logits(-4.0, -2.0, -0.5, 0.0)) == 0
  far = _constant_logits(-1.0, -7.0, 3.0, -2.0)
  np.testing.assert_allclose(priors.scale_prior(far), (9 + 9) / 4)
  wave = jnp.linspace(-50, 50, 16)[None, None, :, None]
  spread = [far[0], far[1] + wave[:, :, :8] - wave[:, :, :8].mean(), *far[2:]]
  np.testing.assert_allclose(priors.scale_prior(spread), 4.5, rtol=1e-5)
  one_image = far[2].at[0].set(-4.0)  # The batch's mean is in the range.
  assert priors.scale_prior([one_image]) == 0


@pytest.mark.parametrize('value', [-200.0, -5.0, 1.0, 200.0])
def test_scale_prior_pulls_back_where_the_sigmoid_cannot(value):
  gradient = jax.grad(priors.scale_prior)(_constant_logits(value))[0]
  assert np.isfinite(gradient).all()
  assert (np.sign(gradient) == np.sign(value)).all()


def test_segments_pull_the_points_that_count_alone():
  points = jnp.array([[1.0, 5.0, -2.0], [0.0, 3.0, 4.0]])[..., None]
  inside = jnp.array([[0.5, 7.0, -2.0], [1.0, 3.0, 0.0]])[..., None]
  mask = jnp.array([[True, True, True], [True, True, False]])

  def distance(points):
    return priors.segment_prior(points, inside, mask, num_pixels=10)

  np.testing.assert_allclose(distance(points), (0.5 + 2 + 1) / 10)
  pull = 10 * jax.grad(distance)(points)[..., 0]
  np.testing.assert_allclose(pull[0, :2], [1, -1], atol=1e-6)
  np.testing.assert_allclose(pull[1, ::2], [-1, 0], atol=1e-6)
  none = priors.segment_prior(
    points, inside, jnp.zeros_like(mask), num_pixels=10
  )
  assert none == 0
