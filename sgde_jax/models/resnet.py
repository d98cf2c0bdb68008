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
    block = functools.partial(
      ResidualBlock, bottleneck=bottleneck, conv=conv, norm=norm
    )
    x = ((image - 0.45) / 0.225).astype(self.dtype)
    x = conv(64, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name='conv1')(x)
    x = nn.relu(norm(name='bn1')(x))
    features = [x]
    x = layers.max_pool(x)
    for stage, (depth, width) in enumerate(zip(depths, _WIDTHS, strict=True)):
      for index in range(depth):
        stride = 2 if stage > 0 and index == 0 else 1
        x = block(width, stride, name=f'layer{stage + 1}_{index}')(x)
      features.append(x)
    return features


class ResidualBlock(nn.Module):
  """Convolutions, each with batch norm, and a shortcut.

  Two of 3 x 3; with `bottleneck` (ResNet-50 and up) 1 x 1, 3 x 3 and 1 x 1.
  """

  width: int
  stride: int
  bottleneck: bool
  conv: functools.partial
  norm: functools.partial

  @nn.compact
  def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B _ _ D']:
    """Divides the size by `stride`; D is `width`, or 4 `width` (bottleneck)."""
    width, stride = self.width, self.stride
    # Channels, kernel size and stride.
    convolutions = [(width, 3, stride), (width, 3, 1)]
    if self.bottleneck:
      wide = _EXPANSION * width
      convolutions = [(width, 1, 1), (width, 3, stride), (wide, 1, 1)]
    y = x
    for i, (channels, size, step) in enumerate(convolutions, start=1):
      y = self.conv(
        channels, (size, size), step, padding=size // 2, name=f'conv{i}'
      )(y if i == 1 else nn.relu(y))
      y = self.norm(name=f'bn{i}')(y)
    if x.shape != y.shape:
      x = self.conv(
        y.shape[-1], (1, 1), stride, padding='VALID', name='downsample_0'
      )(x)
      x = self.norm(name='downsample_1')(x)
    return nn.relu(y + x)
