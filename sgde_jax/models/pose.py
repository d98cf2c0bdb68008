"""The pose network: camera motion between two frames."""

import jax.numpy as jnp
from flax import linen as nn

from sgde_jax.models import layers, resnet

_SCALE = 0.01  # Keeps the first motions small (Monodepth2).


class PoseNetwork(nn.Module):
  """A ResNet on a frame pair and Monodepth2's pose decoder.

  Attributes:
    num_layers: depth of the ResNet.
    dtype: dtype of the computation.
  """

  num_layers: int = 18
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, pair, *, train):
    """Estimates the motion from the first frame of a pair to the second.

    Args:
      pair: `[B, H, W, 6]` float in [0, 1], two frames in temporal order.
      train: whether to use (and update) batch statistics.

    Returns:
      axis_angle `[B, 3]` in radians and translation `[B, 3]` float32 of the
      transform T_second_first that maps points of the first camera into the
      second.
    """
    features = resnet.ResNetEncoder(
      self.num_layers, dtype=self.dtype, name='encoder'
    )(pair, train=train)
    x = features[-1]
    for index, (width, size) in enumerate([(256, 1), (256, 3), (256, 3)]):
      x = nn.relu(
        layers.Conv(width, size, dtype=self.dtype, name=f'conv_{index}')(x)
      )
    dtype = jnp.promote_types(self.dtype, jnp.float32)
    x = layers.Conv(12, 1, dtype=dtype, name='conv_3')(x)
    vector = _SCALE * jnp.mean(x, axis=(1, 2))
    return vector[:, :3], vector[:, 3:6]
