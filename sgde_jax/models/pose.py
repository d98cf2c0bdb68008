"""The pose network: camera motion between two frames."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sgde_jax.models import layers, resnet

_SCALE = 0.01  # Keeps the first motions small (Monodepth2).


class PoseNetwork(nn.Module):
  """A ResNet on a frame pair and Monodepth2's pose decoder."""

  num_layers: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, pair: Float[Array, 'B H W 6'], *, train: bool
  ) -> tuple[Float[Array, 'B 3'], Float[Array, 'B 3']]:
    """Estimates the motion from the first frame of a pair to the second.

    The frames are in [0, 1], in temporal order. Returns axis-angle in radians
    and translation, float32, of the transform T_second_first that maps points
    of the first camera into the second.
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
