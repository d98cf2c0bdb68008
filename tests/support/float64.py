"""Runs main.py in float64.

In float32 a rounding error can flip a ReLU, the nearest source frame or the
pixel that a ray falls into, which changes gradients by far more than rounding:
whether two ways to compute the same step agree can only be seen in float64.

python -m tests.support.float64 FLAGS
"""

import contextlib
import runpy
from unittest import mock

import jax
import jax.numpy as jnp

from sgde_jax import models
from sgde_jax.training import steps


@contextlib.contextmanager
def enabled():
  """Makes training inside float64 where it would be float32."""
  create_model = models.create_model

  def create_float64_model(*args, **kwargs):
    return create_model(*args, **kwargs).clone(dtype=jnp.float64)

  with (
    jax.enable_x64(True),
    mock.patch.object(models, 'create_model', create_float64_model),
    mock.patch.object(
      steps, 'to_float', lambda images: images.astype(jnp.float64) / 255
    ),
  ):
    yield


if __name__ == '__main__':
  with enabled():
    runpy.run_path('main.py', run_name='__main__')
