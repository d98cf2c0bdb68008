"""The learning rate schedule and gradient clipping."""

import jax.numpy as jnp
import ml_collections
import numpy as np

from sgde_jax.weights import optimizer


def _optimizer_config(**overrides):
  return ml_collections.ConfigDict(
    {
      'learning_rate': 1e-3,
      'decay_epochs': (),
      'decay_factor': 0.1,
      'clip_norm': 0.0,
    }
    | overrides
  )


def _updates(config, gradients, *, steps_per_epoch):
  """Returns the sizes of the updates from a sequence of gradients."""
  adam = optimizer.create_optimizer(config)
  steps = optimizer.decay_steps(config, steps_per_epoch=steps_per_epoch)
  params = {'w': jnp.zeros(())}
  state = adam.init(params)
  sizes = []
  for gradient in gradients:
    update, state = adam.update(
      {'w': jnp.asarray(gradient)}, state, params, decay_steps=steps
    )
    sizes.append(-float(update['w']))
  return sizes


def test_learning_rate_decays_at_the_epochs():
  config = _optimizer_config(decay_epochs=(1.5, 3.0))
  # Adam's update for a constant gradient is the learning rate.
  sizes = _updates(config, [1.0] * 8, steps_per_epoch=2)
  np.testing.assert_allclose(
    sizes, [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 2, rtol=1e-3
  )


def test_describes_the_schedule():
  config = _optimizer_config(decay_epochs=(3.0, 1.5))
  line = optimizer.describe_schedule(config, steps_per_epoch=2, num_steps=6)
  assert line == (
    'learning rate 0.001, 0.0001 after step 3, 1e-05 after step 6, which is'
    ' never reached'
  )


def test_decay_may_be_beyond_the_last_step():
  config = _optimizer_config(decay_epochs=(1e6, 1e300))
  sizes = _updates(config, [1.0] * 3, steps_per_epoch=3317.5)
  np.testing.assert_allclose(sizes, [1e-3] * 3, rtol=1e-3)


def test_clipping_bounds_the_global_norm():
  gradients = [1.0, 100.0]
  free = _updates(_optimizer_config(), gradients, steps_per_epoch=1)
  clipped = _updates(
    _optimizer_config(clip_norm=1.0), gradients, steps_per_epoch=1
  )
  constant = _updates(_optimizer_config(), [1.0, 1.0], steps_per_epoch=1)
  np.testing.assert_allclose(clipped, constant, rtol=1e-6)
  assert abs(free[1] - constant[1]) > 1e-4
