"""Decoder levels and heads (Monodepth2's depth decoder)."""

import jax.numpy as jnp
from flax import linen as nn

from sgde_jax.models import layers

WIDTHS = (16, 32, 64, 128, 256)  # Channels of decoder level i, stride 2^i.
DISPARITY_SCALES = (0, 1, 2, 3)


class DecoderLevel(nn.Module):
  """One level: 3 x 3 conv, x2 upsampling, skip, 3 x 3 conv.

  Convolutions pad by reflection, have a bias and no normalisation, and are
  followed by ELU.

  Attributes:
    width: output channels.
    dtype: dtype of the computation.
  """

  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, skip=None):
    """Decodes one level.

    Args:
      x: `[B, h, w, C]`, the coarser level's output.
      skip: `[B, 2h, 2w, D]`, the encoder's feature at this size, or None.

    Returns:
      `[B, 2h, 2w, width]`.
    """
    x = nn.elu(self._conv('upconv_0')(x))
    x = layers.upsample_nearest(x)
    if skip is not None:
      x = jnp.concatenate([x, skip], axis=-1)
    return nn.elu(self._conv('upconv_1')(x))

  def _conv(self, name):
    return layers.Conv(self.width, reflect=True, dtype=self.dtype, name=name)


class DisparityHead(nn.Module):
  """A 3 x 3 convolution to one disparity logit, in float32 at least."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """Maps `[B, h, w, C]` to disparity logits `[B, h, w, 1]`."""
    # A logit of -5 in bfloat16 would be a depth known to 2 % only.
    dtype = jnp.promote_types(self.dtype, jnp.float32)
    return layers.Conv(1, reflect=True, dtype=dtype, name='dispconv')(x)
