"""Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167).

As `flax.linen.BatchNorm`, whose names of parameters and statistics it bears,
but with sums over pixels, forward and backward, that are fast on CPUs, too.
Reverse-mode differentiation only.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn


class BatchNorm(nn.Module):
  """Batch normalisation over examples and pixels.

  Attributes:
    use_running_average: normalise by the running statistics; otherwise by the
      batch's, which the running ones then follow.
    momentum: the part of the running statistics that an update keeps.
    epsilon: added to the variance.
    dtype: dtype of the result; parameters and statistics are float32.
  """

  use_running_average: bool
  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """Maps `[B, H, W, C]` to the same shape."""
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
  """Mean and variance `[C]` of `[B, H, W, C]`, at least in float32."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  count = x.size // x.shape[-1]
  mean = sum_pixels(x) / count
  return mean, jnp.maximum(sum_pixels(x * x) / count - mean * mean, 0)


def sum_pixels(x):
  """Sums `[B, H, W, C]` over examples and pixels to `[C]`.

  On CPUs XLA makes windows over all axes of one such sum, which take four times
  as long as rows first and then the others, kept apart by a barrier.
  """

  def by_rows(x):
    return jnp.sum(jax.lax.optimization_barrier(jnp.sum(x, 2)), (0, 1))

  def at_once(x):
    return jnp.sum(x, (0, 1, 2))

  return jax.lax.platform_dependent(x, cpu=by_rows, default=at_once)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(x, shape):
  """Broadcasts `[C]` to the shape `[B, H, W, C]`; its gradient sums pixels."""
  return jnp.broadcast_to(x, shape)


spread.defvjp(
  lambda x, shape: (spread(x, shape), None),
  lambda shape, _, cotangent: (sum_pixels(cotangent),),
)
