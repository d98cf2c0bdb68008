"""All losses of the network's outputs: what each option weighs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgde_jax import models
from sgde_jax.configs import default
from sgde_jax.training import steps


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
  batch = {
    'frames': jax.random.uniform(next(keys), (2, 2, 32, 64, 3)),
    'intrinsics': jnp.tile(
      jnp.array([[40, 0, 31.5], [0, 40, 15.5], [0, 0, 1]])[None], (2, 1, 1)
    ),
  }
  labels = jax.random.randint(next(keys), (2, 32, 64), 0, 19)
  tie_noise = options.pop('tie_noise', None)
  terms, _ = steps.compute_losses(
    outputs,
    [(outputs.logits, labels)],
    batch,
    (0, 1),
    tie_noise,
    **default.get_config().loss.to_dict() | options,
  )
  return terms


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
def test_a_weight_weighs_its_term_alone(option, term):
  once, thrice = (_make_losses(**{option: weight}) for weight in (0.5, 1.5))
  assert once[term] > 0
  for name in once:
    factor = 3 if name == term else 1
    np.testing.assert_allclose(thrice[name], factor * once[name], rtol=1e-5)


def test_tie_noise_moves_the_unwarped_sources():
  near, far = (
    _make_losses(automask=True, tie_noise=jnp.full((2, 1, 32, 64), noise))
    for noise in (-9.0, -10.0)  # So that these win at every pixel.
  )
  np.testing.assert_allclose(
    near['photometric'] - far['photometric'], 1, rtol=1e-5
  )


def test_tie_noise_is_small():
  noise = steps._tie_noise(jax.random.key(0), jnp.zeros((4, 3, 32, 64, 3)))
  assert noise.shape == (4, 2, 32, 64)
  np.testing.assert_allclose(jnp.std(noise), 1e-5, rtol=0.05)
