"""The results of the compiled steps: shapes, units, and mirrored frames."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sgde_jax import models
from sgde_jax.inference import steps

_RAMP = np.linspace(0.9, 0.1, 64, dtype=np.float32)


class _Network:
  """Stands in for the network: red, and darker to the right."""

  min_depth, max_depth = 0.1, 100.0

  def apply(self, variables, frames, *, train):
    del variables
    assert not train
    disparity = frames[:, 0, ..., :1] * _RAMP[None, None, :, None]
    logits = jnp.log(disparity) - jnp.log1p(-disparity)
    motion = jnp.zeros((len(frames), 1, 3))
    return models.DepthOutputs((logits,), motion, motion)


def test_prediction_of_the_mirrored_frames_is_mirrored_back():
  rng = np.random.default_rng(0)
  frames = rng.integers(1, 255, (4, 32, 64, 3), np.uint8)
  predict = jax.jit(
    functools.partial(steps.predict_step, model=_Network()),
    static_argnames='flip',
  )
  both = predict({}, frames, flip=True).inverse_depth
  once = predict({}, frames)
  mirrored = predict({}, frames[:, :, ::-1]).inverse_depth
  assert once.labels is None
  assert both.shape == (4, 2, 32, 64)
  np.testing.assert_allclose(both[:, 0], once.inverse_depth, rtol=1e-6)
  np.testing.assert_allclose(both[:, 1], mirrored[:, :, ::-1], rtol=1e-6)
  # In 1/metres, between those of 100 m and 0.1 m.
  disparity = frames[..., 0] / 255 * _RAMP
  expected = 0.01 + (10 - 0.01) * disparity
  np.testing.assert_allclose(once.inverse_depth, expected, rtol=1e-5)
