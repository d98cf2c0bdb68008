"""Convolutions, pooling and batch normalization of the networks."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Features = Float[Array, 'B H W C']

# Kaiming normal, fan out: the encoders' initialization without ImageNet.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# PyTorch's default for a convolution: uniform within 1 / sqrt(fan in).
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def bias_uniform(fan_in: int) -> nn.initializers.Initializer:
  """Returns PyTorch's default bias initializer, within 1 / sqrt(fan in)."""
  bound = fan_in**-0.5

  def initialize(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return initialize


class Conv(nn.Module):
  """A convolution with a bias, initialized as PyTorch does by default.

  Pads by zeros, with `reflect` by reflection. `dtype` is that of the
  computation; parameters are float32.
  """

  features: int
  size: int = 3
  reflect: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Features) -> Float[Array, 'B H W D']:
    """Maps C channels to D = `features`."""
    if self.reflect:
      width = self.size // 2
      edges = ((0, 0), (width, width), (width, width), (0, 0))
      x = jnp.pad(x, edges, mode='reflect')
    return nn.Conv(
      self.features,
      (self.size, self.size),
      padding='VALID' if self.reflect else 'SAME',
      dtype=self.dtype,
      kernel_init=fan_in_uniform,
      bias_init=bias_uniform(self.size**2 * x.shape[-1]),
      name='conv',
    )(x)


def upsample_nearest(x: Features) -> Float[Array, 'B 2*H 2*W C']:
  """Repeats every pixel twice along both axes."""
  batch, height, width, channels = x.shape
  x = jnp.broadcast_to(
    x[:, :, None, :, None], (batch, height, 2, width, 2, channels)
  )
  return x.reshape(batch, 2 * height, 2 * width, channels)


def max_pool(x: Features) -> Float[Array, 'B H//2 W//2 C']:
  """Max over 3 x 3 windows with stride 2; H and W are even.

  Window i of an axis holds pixels 2i - 1, 2i and 2i + 1. Taken one axis at a
  time from even and odd halves, its gradient needs no scatter, which on the
  CPU is an order of magnitude faster than that of a pooling window.
  """
  for axis in (1, 2):
    count = x.shape[axis] // 2
    halves = x.reshape(*x.shape[:axis], count, 2, *x.shape[axis + 1 :])
    even, odd = jnp.unstack(halves, axis=axis + 1)
    before = jax.lax.slice_in_dim(odd, 0, count - 1, axis=axis)
    first = jax.lax.slice_in_dim(odd, 0, 1, axis=axis)
    before = jnp.concatenate([first, before], axis=axis)
    x = jnp.maximum(jnp.maximum(even, odd), before)
  return x


class BatchNorm(nn.Module):
  """Batch normalization over examples and pixels (arXiv 1502.03167).

  Like `flax.linen.BatchNorm`, with the same names of parameters and statistics,
  but with sums over pixels, forward and backward, that are also fast on CPUs.
  Reverse-mode differentiation only.

  Attributes:
    use_running_average: normalize by the running statistics; otherwise by the
      batch's, which then update the running ones.
    momentum: the fraction of the running statistics that an update keeps.
    epsilon: added to the variance.
    dtype: dtype of the result; parameters and statistics are float32.
  """

  use_running_average: bool
  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Normalizes each channel."""
    like = (x.shape[-1:], jnp.float32)
    scale = self.param('scale', nn.initializers.ones, *like)
    bias = self.param('bias', nn.initializers.zeros, *like)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, *like)
    running_var = self.variable('batch_stats', 'var', jnp.ones, *like)
    if self.use_running_average:
      mean, var = running_mean.value, running_var.value
    else:
      mean, var = _moments(x)
      if not self.is_initializing():
        self._follow(running_mean, mean)
        self._follow(running_var, var)
    gain = scale * jax.lax.rsqrt(var + self.epsilon)
    shift = bias - mean * gain
    y = x * spread(gain, x.shape) + spread(shift, x.shape)
    return y.astype(self.dtype)

  def _follow(self, running, new):
    running.value = self.momentum * running.value + (1 - self.momentum) * new


def _moments(x):
  """Returns mean and variance `[C]` of `[B, H, W, C]`, in at least float32."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  count = x.size // x.shape[-1]
  mean = sum_pixels(x) / count
  return mean, jnp.maximum(sum_pixels(x * x) / count - mean * mean, 0)


def sum_pixels(x: Features) -> Float[Array, ' C']:
  """Sums over examples and pixels.

  On CPUs XLA turns one sum over all three axes into windows, which take four
  times as long as summing rows first, with a barrier before the other axes.
  """

  def by_rows(x):
    return jnp.sum(jax.lax.optimization_barrier(jnp.sum(x, 2)), (0, 1))

  def at_once(x):
    return jnp.sum(x, (0, 1, 2))

  return jax.lax.platform_dependent(x, cpu=by_rows, default=at_once)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(x: Float[Array, ' C'], shape: tuple) -> Float[Array, '...']:
  """Broadcasts `[C]` to the shape `[B, H, W, C]`; its gradient sums pixels."""
  return jnp.broadcast_to(x, shape)


spread.defvjp(
  lambda x, shape: (spread(x, shape), None),
  lambda shape, _, cotangent: (sum_pixels(cotangent),),
)
