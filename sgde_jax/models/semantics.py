"""The semantic decoder's head.

The paper (Li et al., arXiv 2012.08048) states a semantic decoder beside the
depth decoder. The 19 Cityscapes classes, the single 3 x 3 convolution and
that it sits on level 0 alone are our reconstruction.
"""

import jax.numpy as jnp
from flax import linen as nn

from input_pipeline import cityscapes
from sgde_jax.models import layers


class SemanticHead(nn.Module):
  """A 3 x 3 convolution to class scores, in float32 from there on.

  Attributes:
    classes: number of classes.
    dtype: dtype of the convolution; parameters are float32.
  """

  classes: int = cityscapes.NUM_CLASSES
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """Maps `[B, H, W, C]` to logits `[B, H, W, classes]`."""
    convolve = layers.Conv(
      self.classes, reflect=True, dtype=self.dtype, name='classconv'
    )
    return convolve(x).astype(jnp.promote_types(self.dtype, jnp.float32))
