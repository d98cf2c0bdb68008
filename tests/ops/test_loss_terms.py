"""All loss terms of the network's outputs: their weights and the priors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgde_jax import models
from sgde_jax.configs import default
from sgde_jax.ops import losses


def _make_losses(**options):
  """All terms of random outputs."""
  keys = iter(jax.random.split(jax.random.key(0), 9))
  logits = tuple(
    jax.random.normal(next(keys), (2, 32 // 2**s, 64 // 2**s, 1)) + 2
    for s in range(4)
  )
  outputs = models.DepthOutputs(
    logits,
    jnp.zeros((2, 1, 3)),
    jnp.zeros((2, 1, 3)),
    enhanced_disparity=jax.nn.sigmoid(logits[0]),
    logits=jax.random.normal(next(keys), (2, 32, 64, 19)),
    points=jnp.ones((2, 5, 2), int),
    point_mask=jnp.ones((2, 5), bool),
    point_logits=jax.random.normal(next(keys), (2, 5, 1)),
    inside_logits=jax.random.normal(next(keys), (2, 5, 1)),
    inside_mask=jnp.ones((2, 5), bool),
  )
  frames = jax.random.uniform(next(keys), (2, 2, 32, 64, 3))
  intrinsics = jnp.tile(
    jnp.array([[40, 0, 31.5], [0, 40, 15.5], [0, 0, 1]])[None], (2, 1, 1)
  )
  labels = jax.random.randint(next(keys), (2, 32, 64), 0, 19)
  terms, _ = losses.weighted_terms(
    outputs,
    [(outputs.logits, labels)],
    frames,
    intrinsics,
    frame_offsets=(0, 1),
    min_depth=0.1,
    max_depth=100.0,
    **default.get_config().loss.to_dict() | options,
  )
  return terms


@pytest.mark.slow
@pytest.mark.parametrize(
  ('option', 'term'),
  [
    ('cross_entropy_weight', 'cross_entropy'),
    ('scale_weight', 'scale_prior'),
    ('segment_weight', 'segment_prior'),
    ('smoothness_weight', 'smoothness'),
    ('enhanced_weight', 'enhanced'),
  ],
)
def test_weight_scales_only_its_term(option, term):
  once, thrice = (_make_losses(**{option: weight}) for weight in (0.5, 1.5))
  assert once[term] > 0
  for name in once:
    factor = 3 if name == term else 1
    np.testing.assert_allclose(thrice[name], factor * once[name], rtol=1e-5)


@pytest.mark.slow
def test_tie_noise_moves_the_unwarped_sources():
  near, far = (
    _make_losses(automask=True, tie_noise=jnp.full((2, 1, 32, 64), noise))
    for noise in (-9.0, -10.0)  # So that these win at every pixel.
  )
  np.testing.assert_allclose(
    near['photometric'] - far['photometric'], 1, rtol=1e-5
  )


def _constant_logits(*values):
  return [jnp.full((2, 8 >> s, 16 >> s, 1), v) for s, v in enumerate(values)]


def test_scale_prior_is_zero_in_its_range_and_uses_only_means():
  assert losses.scale_prior(_constant_logits(-4.0, -2.0, -0.5, 0.0)) == 0
  far = _constant_logits(-1.0, -7.0, 3.0, -2.0)
  np.testing.assert_allclose(losses.scale_prior(far), (9 + 9) / 4)
  wave = jnp.linspace(-50, 50, 16)[None, None, :, None]
  spread = [far[0], far[1] + wave[:, :, :8] - wave[:, :, :8].mean(), *far[2:]]
  np.testing.assert_allclose(losses.scale_prior(spread), 4.5, rtol=1e-5)
  one_image = far[2].at[0].set(-4.0)  # The batch's mean is in the range.
  assert losses.scale_prior([one_image]) == 0


@pytest.mark.parametrize('value', [-200.0, -5.0, 1.0, 200.0])
def test_scale_prior_has_a_gradient_where_the_sigmoid_saturates(value):
  gradient = jax.grad(losses.scale_prior)(_constant_logits(value))[0]
  assert np.isfinite(gradient).all()
  assert (np.sign(gradient) == np.sign(value)).all()


def test_segment_prior_uses_only_valid_points():
  points = jnp.array([[1.0, 5.0, -2.0], [0.0, 3.0, 4.0]])[..., None]
  inside = jnp.array([[0.5, 7.0, -2.0], [1.0, 3.0, 0.0]])[..., None]
  mask = jnp.array([[True, True, True], [True, True, False]])

  def distance(points):
    return losses.segment_prior(points, inside, mask, num_pixels=10)

  np.testing.assert_allclose(distance(points), (0.5 + 2 + 1) / 10)
  pull = 10 * jax.grad(distance)(points)[..., 0]
  np.testing.assert_allclose(pull[0, :2], [1, -1], atol=1e-6)
  np.testing.assert_allclose(pull[1, ::2], [-1, 0], atol=1e-6)
  none = losses.segment_prior(
    points, inside, jnp.zeros_like(mask), num_pixels=10
  )
  assert none == 0
