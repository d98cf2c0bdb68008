"""Convolutions with the padding and initialisation of the field's networks."""

import jax
import jax.numpy as jnp
from flax import linen as nn

# Kaiming normal, fan out: the encoders' initialisation without ImageNet.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# PyTorch's default for a convolution: uniform within 1 / sqrt(fan in).
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def bias_uniform(fan_in):
  """Returns PyTorch's default bias initialiser, within 1 / sqrt(fan in)."""
  bound = fan_in**-0.5

  def initialise(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return initialise


class Conv(nn.Module):
  """A convolution with a bias, initialised as PyTorch does by default.

  Attributes:
    features: output channels.
    size: kernel height and width.
    reflect: pad by reflection instead of by zeros.
    dtype: dtype of the computation; parameters are float32.
  """

  features: int
  size: int = 3
  reflect: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """Maps `[B, H, W, C]` to `[B, H, W, features]`."""
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


def upsample_nearest(x):
  """Repeats every pixel of `[B, H, W, C]` twice along both axes."""
  batch, height, width, channels = x.shape
  x = jnp.broadcast_to(
    x[:, :, None, :, None], (batch, height, 2, width, 2, channels)
  )
  return x.reshape(batch, 2 * height, 2 * width, channels)


def max_pool(x):
  """Max over 3 x 3 windows with stride 2 of `[B, H, W, C]`, H and W even.

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
