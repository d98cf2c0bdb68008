"""Convolutions, pooling; batch normalization against Flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sgde_jax.models import layers


def _input(dtype=jnp.float32, offset=0.5):
  x = jax.random.normal(jax.random.key(0), (3, 10, 14, 5))
  return (2 * x + offset).astype(dtype)


def _variables():
  keys = jax.random.split(jax.random.key(1), 4)
  draw = [jax.random.uniform(key, (5,), jnp.float32, 0.5, 2) for key in keys]
  return {
    'params': {'scale': draw[0], 'bias': draw[1]},
    'batch_stats': {'mean': draw[2], 'var': draw[3]},
  }


def _both(**options):
  options |= {'epsilon': 1e-3, 'momentum': 0.8}
  return layers.BatchNorm(**options), nn.BatchNorm(**options)


def _run(module, variables, x, weight):
  """Result, new statistics, gradients with respect to parameters and input."""

  def loss(params, x):
    y, updates = module.apply(
      variables | {'params': params}, x, mutable=['batch_stats']
    )
    return jnp.sum(weight * jnp.sin(y)), (y, updates)

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
  return gradient(variables['params'], x)


@pytest.mark.parametrize('platform', ['cpu', 'default'])
@pytest.mark.parametrize('running', [False, True])
def test_equals_flax(running, platform, monkeypatch):
  monkeypatch.setattr(  # What accelerators compute, here.
    jax.lax, 'platform_dependent', lambda x, **sums: sums[platform](x)
  )
  with jax.enable_x64(True):
    x = _input(jnp.float64)
    weight = _input(jnp.float64, offset=0)
    ours, flax = (
      _run(module, _variables(), x, weight)
      for module in _both(use_running_average=running, dtype=jnp.float64)
    )
  rtol = 1e-5 if running else 1e-10  # Running statistics are float32.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol),
    ours,
    flax,
  )


def test_bfloat16_has_statistics_in_float32():
  x = _input(jnp.bfloat16, offset=3)
  ours, flax = (
    module.apply(_variables(), x, mutable=['batch_stats'])
    for module in _both(use_running_average=False, dtype=jnp.bfloat16)
  )
  assert ours[0].dtype == jnp.bfloat16
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours[1], flax[1]
  )
  difference = np.abs(np.asarray(ours[0] - flax[0], np.float32))
  assert difference.max() <= 2**-5  # One unit in the last place of 4 to 8.


def test_initializes_like_flax_and_keeps_its_statistics():
  module, flax = _both(use_running_average=False)
  key, x = jax.random.key(2), _input()
  jax.tree.map(
    np.testing.assert_array_equal, module.init(key, x), flax.init(key, x)
  )


def test_constant_input_has_finite_gradients():
  module, _ = _both(use_running_average=False)
  x = jnp.full((2, 4, 6, 5), 1000.1)  # Its variance is below 0 by rounding.
  gradients, (y, _) = _run(module, _variables(), x, x)
  bias = _variables()['params']['bias']
  np.testing.assert_allclose(y, jnp.broadcast_to(bias, y.shape), atol=0.05)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_max_pool_is_the_3x3_stride_2_pool():
  x = np.random.default_rng(0).normal(size=(2, 6, 10, 3)).astype(np.float32)

  def reference(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))

  @jax.jit
  def value_and_gradient(x):
    outputs = []
    for pool in (layers.max_pool, reference):
      pooled, pull = jax.vjp(pool, x)
      outputs.append((pooled, *pull(jnp.cos(7 * pooled))))
    return outputs

  (ours, our_gradient), (theirs, gradient) = value_and_gradient(x)
  np.testing.assert_array_equal(ours, theirs)
  np.testing.assert_allclose(our_gradient, gradient, atol=1e-6)
  smallest = jnp.asarray(x[:, :2, :2])
  np.testing.assert_array_equal(
    layers.max_pool(smallest), smallest.max((1, 2), keepdims=True)
  )


def test_reflecting_conv_is_pad_and_valid():
  x = np.random.default_rng(1).normal(size=(2, 5, 7, 4)).astype(np.float32)
  network = layers.Conv(6, reflect=True)
  variables = jax.jit(network.init)(jax.random.key(0), x)
  kernel, bias = (variables['params']['conv'][n] for n in ('kernel', 'bias'))

  def reference(x, kernel):
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')
    layout = ('NHWC', 'HWIO', 'NHWC')
    convolved = jax.lax.conv_general_dilated(
      padded, kernel, (1, 1), 'VALID', dimension_numbers=layout
    )
    return convolved + bias[None, None, None]

  def ours(x, kernel):
    return network.apply(
      {'params': {'conv': {'kernel': kernel, 'bias': bias}}}, x
    )

  def value_and_gradients(function):
    value, pull = jax.vjp(function, x, kernel)
    return value, *pull(jnp.cos(value))

  both = jax.jit(lambda: [*map(value_and_gradients, (ours, reference))])()
  for actual, expected in zip(*both, strict=True):
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_plain_conv_pads_by_zeros_and_initializes_like_pytorch():
  x = jnp.ones((1, 4, 5, 64))
  value, variables = jax.jit(layers.Conv(128).init_with_output)(
    jax.random.key(0), x
  )
  kernel, bias = (variables['params']['conv'][n] for n in ('kernel', 'bias'))
  np.testing.assert_allclose(
    value[0, 0, 0], jnp.sum(kernel[1:, 1:], (0, 1, 2)) + bias, atol=1e-4
  )
  bound = (9 * 64) ** -0.5
  for tensor in (kernel, bias):
    assert 0.9 * bound < np.abs(tensor).max() <= bound
    assert abs(np.mean(tensor)) < 0.2 * bound


def test_upsample_nearest_repeats_pixels():
  x = jnp.arange(24.0).reshape(1, 3, 4, 2)
  np.testing.assert_array_equal(
    layers.upsample_nearest(x), x.repeat(2, axis=1).repeat(2, axis=2)
  )
