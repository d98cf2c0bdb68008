"""XLA's options: which convolutions a program holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgde_jax import compiling


@pytest.mark.skipif(
  jax.default_backend() != 'cpu', reason='these are options for CPUs'
)
def test_no_convolution_runs_in_ynnpack():
  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  def loss(kernel, x):
    return jnp.sum(convolve(x, kernel) ** 2)

  keys = jax.random.split(jax.random.key(0))
  x = jax.random.normal(keys[0], (4, 48, 160, 64))  # YNNPACK gets large ones.
  kernel = jax.random.normal(keys[1], (3, 3, 64, 64))
  gradient = jax.grad(loss)
  usual = jax.jit(gradient).lower(kernel, x).compile()
  assert 'ynn_fusion' in usual.as_text()  # Else `compiling` changes nothing.
  ours = compiling.jit(gradient).lower(kernel, x).compile()
  assert 'ynn_fusion' not in ours.as_text()
  expected = usual(kernel, x)
  scale = jnp.abs(expected).max()
  np.testing.assert_allclose(
    ours(kernel, x) / scale, expected / scale, atol=1e-4
  )


def test_options_are_those_of_jit():
  double = compiling.jit(
    lambda x: 2 * x,
    cpu_options={'xla_backend_optimization_level': 1},
    donate_argnums=0,
  )
  x = jnp.ones(3)
  np.testing.assert_array_equal(double(x), 2)
  assert x.is_deleted()
