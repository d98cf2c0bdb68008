"""The networks. `create_model` assembles them from a config."""

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from sgde_jax.models import decoders, edges, encoder, pose

semantic_edges = edges.semantic_edges

_DTYPES = ('float32', 'bfloat16', 'float64')


@flax.struct.dataclass
class DepthOutputs:
  """What the network predicts; None where a part is off.

  Attributes:
    disparities: four `[B, H / 2^s, W / 2^s, 1]` float32 maps in (0, 1),
      scales s = 0..3.
    axis_angle: `[B, F-1, 3]` float32 radians, one per source frame, of the
      motion from the earlier to the later frame of the pair; None with a
      single frame.
    translation: `[B, F-1, 3]` float32, likewise, in the depth's own unknown
      scale.
    enhanced_disparity: `[B, H, W, 1]` float32 in (0, 1).
    logits: `[B, H, W, 19]` float32 class scores.
  """

  disparities: tuple[jax.Array, ...]
  axis_angle: jax.Array | None = None
  translation: jax.Array | None = None
  enhanced_disparity: jax.Array | None = None
  logits: jax.Array | None = None


class DepthModel(nn.Module):
  """Shared encoder, depth decoder and pose network.

  Attributes:
    encoder_layers: depth of the ResNet encoder.
    pose_layers: depth of the pose network's ResNet.
    frame_offsets: time of each frame relative to the target, 0 first.
    dtype: dtype of the computation; parameters are float32.
  """

  encoder_layers: int = 18
  pose_layers: int = 18
  frame_offsets: tuple[int, ...] = (0, -1, 1)
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Creates the parts."""
    self.encoder = encoder.ResNetEncoder(self.encoder_layers, self.dtype)
    self.depth_levels = [
      decoders.DecoderLevel(width, self.dtype) for width in decoders.WIDTHS
    ]
    self.disparity_heads = [
      decoders.DisparityHead(self.dtype) for _ in decoders.DISPARITY_SCALES
    ]
    self.pose = pose.PoseNetwork(self.pose_layers, self.dtype)

  def __call__(self, frames, *, train):
    """Predicts disparity for the target and motion to every source.

    Args:
      frames: `[B, F, H, W, 3]` float in [0, 1], the target first. With F = 1
        no motion is predicted.
      train: whether batch norm uses (and updates) batch statistics.

    Returns:
      `DepthOutputs`.

    Raises:
      ValueError: if the shape does not fit.
    """
    self._check(frames)
    disparities = self.decode_depth(self.encode(frames[:, 0], train=train))
    if frames.shape[1] == 1 and not self.is_initializing():
      return DepthOutputs(disparities)
    axis_angle, translation = self.estimate_motion(frames, train=train)
    return DepthOutputs(disparities, axis_angle, translation)

  def encode(self, image, *, train):
    """Returns the encoder's five features of `[B, H, W, 3]`."""
    return self.encoder(image, train=train)

  def decode_depth(self, features):
    """Decodes features into the disparities of scales 0..3."""
    x, disparities = features[-1], {}
    for level in reversed(range(len(decoders.WIDTHS))):
      skip = features[level - 1] if level > 0 else None
      x = self.depth_levels[level](x, skip)
      if level in decoders.DISPARITY_SCALES:
        disparities[level] = nn.sigmoid(self.disparity_heads[level](x))
    return tuple(disparities[s] for s in decoders.DISPARITY_SCALES)

  def estimate_motion(self, frames, *, train):
    """Estimates axis_angle and translation `[B, F-1, 3]` of all pairs.

    Each pair is its own call, hence has its own batch statistics, and is fed
    in temporal order (Monodepth2).
    """
    motions = []
    for index, offset in enumerate(self.frame_offsets[1:], start=1):
      pair = [frames[:, 0], frames[:, index]]
      if offset < 0:
        pair.reverse()
      motions.append(self.pose(jnp.concatenate(pair, -1), train=train))
    axis_angles, translations = zip(*motions, strict=True)
    return jnp.stack(axis_angles, 1), jnp.stack(translations, 1)

  def _check(self, frames):
    """Refuses frames that the network cannot take."""
    count = len(self.frame_offsets)
    fits = (
      frames.ndim == 5
      and frames.shape[1] in (1, count)
      and frames.shape[-1] == 3
      and frames.shape[2] % 32 == 0
      and frames.shape[3] % 32 == 0
    )
    if not fits:
      raise ValueError(
        f'frames has shape {frames.shape}: expected [B, F, H, W, 3] with F = 1'
        f' or {count} and H, W multiples of 32'
      )


def create_model(config, *, frame_offsets=(0, -1, 1)):
  """Builds the network that `config` describes.

  Args:
    config: the `model` part of a config.
    frame_offsets: time of each frame relative to the target, 0 first.

  Returns:
    A Flax module; `.apply(variables, frames, train=...)` returns
    `DepthOutputs`.

  Raises:
    ValueError: if the config asks for something that does not exist.
  """
  if config.dtype not in _DTYPES:
    raise ValueError(
      f'config.model.dtype = {config.dtype!r}: use one of {_DTYPES}'
    )
  return DepthModel(
    encoder_layers=config.encoder_layers,
    pose_layers=config.pose_layers,
    frame_offsets=tuple(frame_offsets),
    dtype=jnp.dtype(config.dtype),
  )
