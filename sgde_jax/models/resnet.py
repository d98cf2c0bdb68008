"""ResNet encoders (He et al., arXiv 1512.03385) with five feature levels.

Modules and parameters have torchvision's names, so that published weights
map one to one.
"""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sgde_jax.models import layers

# Blocks per stage, and whether blocks are bottlenecks.
_DEPTHS = {
  10: ((1, 1, 1, 1), False),
  18: ((2, 2, 2, 2), False),
  34: ((3, 4, 6, 3), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
}
_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4


class ResNetEncoder(nn.Module):
  """ResNet-10/18/34/50/101 without its classifier.

  Batch statistics are those of the global batch: under `jit` over a mesh the
  mean runs over every device's examples.

  Attributes:
    num_layers: 10 (no published weights), 18, 34, 50 or 101.
    dtype: dtype of the computation; parameters and statistics are float32.
  """

  num_layers: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, image: Float[Array, 'B H W C'], *, train: bool
  ) -> list[Float[Array, 'B _ _ _']]:
    """Extracts features.

    The image is in [0, 1], H and W are multiples of 32. Returns five features
    `[B, H / 2^(i+1), W / 2^(i+1), C_i]`, strides 2 to 32, with 64, 64, 128,
    256, 512 channels (four times that from the second on for 50 layers and
    more). `train` uses (and updates) batch statistics.
    """
    depths, bottleneck = _DEPTHS[self.num_layers]
    conv = functools.partial(
      nn.Conv,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=layers.kaiming_normal,
    )
    norm = functools.partial(
      layers.BatchNorm, use_running_average=not train, dtype=self.dtype
    )
    block = BottleneckBlock if bottleneck else BasicBlock
    x = ((image - 0.45) / 0.225).astype(self.dtype)
    x = conv(64, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name='conv1')(x)
    x = nn.relu(norm(name='bn1')(x))
    features = [x]
    x = layers.max_pool(x)
    for stage, (depth, width) in enumerate(zip(depths, _WIDTHS, strict=True)):
      for index in range(depth):
        stride = 2 if stage > 0 and index == 0 else 1
        x = block(width, stride, conv, norm, name=f'layer{stage + 1}_{index}')(
          x
        )
      features.append(x)
    return features


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions and a shortcut (ResNet-18 and 34)."""

  width: int
  stride: int
  conv: functools.partial
  norm: functools.partial

  @nn.compact
  def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B _ _ D']:
    """Divides the size by `stride`; D is `width`."""
    strides = (self.stride, self.stride)
    same = ((1, 1), (1, 1))
    y = self.conv(self.width, (3, 3), strides, padding=same, name='conv1')(x)
    y = nn.relu(self.norm(name='bn1')(y))
    y = self.conv(self.width, (3, 3), padding=same, name='conv2')(y)
    y = self.norm(name='bn2')(y)
    return nn.relu(y + _shortcut(self, x, y.shape))


class BottleneckBlock(nn.Module):
  """1 x 1, 3 x 3, 1 x 1 convolutions and a shortcut (ResNet-50 and up)."""

  width: int
  stride: int
  conv: functools.partial
  norm: functools.partial

  @nn.compact
  def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B _ _ D']:
    """Divides the size by `stride`; D is four times `width`."""
    strides = (self.stride, self.stride)
    same = ((1, 1), (1, 1))
    y = nn.relu(
      self.norm(name='bn1')(self.conv(self.width, (1, 1), name='conv1')(x))
    )
    y = self.conv(self.width, (3, 3), strides, padding=same, name='conv2')(y)
    y = nn.relu(self.norm(name='bn2')(y))
    y = self.conv(_EXPANSION * self.width, (1, 1), name='conv3')(y)
    y = self.norm(name='bn3')(y)
    return nn.relu(y + _shortcut(self, x, y.shape))


def _shortcut(block, x, shape):
  """Returns the identity, or a strided 1 x 1 convolution if shapes differ."""
  if x.shape == shape:
    return x
  strides = (block.stride, block.stride)
  x = block.conv(
    shape[-1], (1, 1), strides, padding='VALID', name='downsample_0'
  )(x)
  return block.norm(name='downsample_1')(x)
