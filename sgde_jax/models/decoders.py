"""Decoder levels (Monodepth2's depth decoder) and the heads on them.

The paper (Li et al., arXiv 2012.08048) states a semantic decoder next to the
depth decoder. The 19 Cityscapes classes and the single 3 x 3 convolution, on
level 0 alone, are our reconstruction.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from input_pipeline import cityscapes
from sgde_jax.models import layers

WIDTHS = (16, 32, 64, 128, 256)  # Channels of decoder level i, stride 2^i.
DISPARITY_SCALES = (0, 1, 2, 3)


class DecoderLevel(nn.Module):
  """One level: 3 x 3 conv, x2 upsampling, skip, 3 x 3 conv.

  Convolutions pad by reflection, have a bias and no normalization, and are
  followed by ELU. `width` is the number of output channels.
  """

  width: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B h w C'],
    skip: Float[Array, 'B 2*h 2*w D'] | None = None,
  ) -> Float[Array, 'B 2*h 2*w E']:
    """Decodes the coarser level's output and the encoder's feature."""
    x = nn.elu(self._conv('upconv_0')(x))
    x = layers.upsample_nearest(x)
    if skip is not None:
      x = jnp.concatenate([x, skip], axis=-1)
    return nn.elu(self._conv('upconv_1')(x))

  def _conv(self, name):
    return layers.Conv(self.width, reflect=True, dtype=self.dtype, name=name)


class DisparityHead(nn.Module):
  """A 3 x 3 convolution to one disparity logit, in at least float32."""

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B h w 1']:
    """Computes disparity logits."""
    # A logit of -5 in bfloat16 would fix depth to 2 % only.
    dtype = jnp.promote_types(self.dtype, jnp.float32)
    return layers.Conv(1, reflect=True, dtype=dtype, name='dispconv')(x)


class SemanticHead(nn.Module):
  """A 3 x 3 convolution to class scores, which are float32."""

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B H W 19']:
    """Computes class scores (logits)."""
    convolve = layers.Conv(
      cityscapes.NUM_CLASSES, reflect=True, dtype=self.dtype, name='classconv'
    )
    return convolve(x).astype(jnp.promote_types(self.dtype, jnp.float32))
