"""The whole network: shared encoder, dual decoders, SEEM, pose.

What the paper (Li et al., arXiv 2012.08048) states: an encoder that a depth
and a semantic decoder share, attention between the two at several levels, and
an own module for the points on semantic edges. How they are joined here is our
reconstruction. With semantics off this is Monodepth2.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from sgde_jax.models import attention, decoders, pose, resnet, seem, semantics
from sgde_jax.ops import edges, warping

_LEVELS = range(len(decoders.WIDTHS))


@flax.struct.dataclass
class DepthOutputs:
  """What the network predicts; None where a part is off.

  Attributes:
    disparity_logits: four `[B, H / 2^s, W / 2^s, 1]` float32 maps, scales
      s = 0..3.
    axis_angle: `[B, F-1, 3]` float32 radians, one per source frame, of the
      motion from the earlier to the later frame of the pair; None with a
      single frame.
    translation: `[B, F-1, 3]` float32, likewise, in the depth's own unknown
      scale.
    enhanced_disparity: `[B, H, W, 1]` float32 in (0, 1): `disparities[0]` with
      SEEM's values at points on semantic edges; at all of them, or while
      training at those of `points`.
    logits: `[B, H, W, 19]` float32 class scores.
    points: `[B, K, 2]` int32, (x, y), the edge pixels that training drew.
    point_mask: `[B, K]` bool, False for the points beyond an image's edges.
    point_logits: `[B, K, 1]` float32, SEEM's disparity logits at the points.
    inside_logits: `[B, K, 1]` float32, the coarse disparity logits inside the
      points' own predicted segments, see `edges.from_inside`; no gradient.
    inside_mask: `[B, K]` bool, False where a segment has no inside near.
  """

  disparity_logits: tuple[jax.Array, ...]
  axis_angle: jax.Array | None = None
  translation: jax.Array | None = None
  enhanced_disparity: jax.Array | None = None
  logits: jax.Array | None = None
  points: jax.Array | None = None
  point_mask: jax.Array | None = None
  point_logits: jax.Array | None = None
  inside_logits: jax.Array | None = None
  inside_mask: jax.Array | None = None

  @property
  def disparities(self):
    """The sigmoids of `disparity_logits`, in (0, 1)."""
    return tuple(map(nn.sigmoid, self.disparity_logits))

  @property
  def disparity(self):
    """The best full-size disparity: the enhanced one where there is one."""
    if self.enhanced_disparity is None:
      return self.disparities[0]
    return self.enhanced_disparity


@dataclasses.dataclass(frozen=True)
class AttentionOptions:
  """See `attention.SemanticGuidedAttention`.

  Attributes:
    heads: number of heads.
    width: channels over all heads.
    key_stride: full-size pixels between keys (and values) at least, a power of
      two: level i is pooled by key_stride / 2^i where that is above 1. With 16,
      the levels of strides 16, 8 and 4 all attend to one grid of stride 16.
    gain_rate: how many learning rates the gains learn with.
    implementation: see `attention.pixel_attention`.
  """

  heads: int = 4
  width: int = 64
  key_stride: int = 16
  gain_rate: float = 10.0
  implementation: str = 'auto'


@dataclasses.dataclass(frozen=True)
class SeemOptions:
  """How points are chosen and refined.

  Attributes:
    points: points per image that a training step draws.
    edge_width: see `edges.semantic_edges`.
    levels: decoder levels whose features are sampled.
    width: features of the hidden layers.
    depth: number of hidden layers.
    chunk: points per image that prediction refines at a time.
  """

  points: int = 2048
  edge_width: int = 1
  levels: tuple[int, ...] = (0, 1, 2)
  width: int = 256
  depth: int = 3
  chunk: int = 2048


class DepthModel(nn.Module):
  """Shared encoder, depth and semantic decoder, SEEM and pose network.

  Random edge points come from the `points` random stream; without it, `apply`
  in training draws the same points at every call.

  Attributes:
    encoder_layers: depth of the ResNet encoder.
    pose_layers: depth of the pose network's ResNet.
    frame_offsets: time of each frame relative to the target, 0 first.
    semantics: whether there is a semantic decoder.
    attention_levels: decoder levels with attention between the decoders.
    attention: options of that attention.
    seem: options of SEEM; None for none.
    dtype: dtype of the computation; parameters are float32.
  """

  encoder_layers: int = 18
  pose_layers: int = 18
  frame_offsets: tuple[int, ...] = (0, -1, 1)
  semantics: bool = False
  attention_levels: tuple[int, ...] = ()
  attention: AttentionOptions = AttentionOptions()
  seem: SeemOptions | None = None
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Creates the parts."""
    self.encoder = resnet.ResNetEncoder(self.encoder_layers, self.dtype)
    self.depth_levels = self._decoder()
    self.disparity_heads = [
      decoders.DisparityHead(self.dtype) for _ in decoders.DISPARITY_SCALES
    ]
    self.pose = pose.PoseNetwork(self.pose_layers, self.dtype)
    if self.semantics:
      self.semantic_levels = self._decoder()
      self.semantic_head = semantics.SemanticHead(dtype=self.dtype)
    self.attentions = {
      str(level): attention.SemanticGuidedAttention(
        heads=self.attention.heads,
        width=self.attention.width,
        key_stride=max(1, self.attention.key_stride // 2**level),
        gain_rate=self.attention.gain_rate,
        implementation=self.attention.implementation,
        dtype=self.dtype,
      )
      for level in self.attention_levels
    }
    if self.seem:
      self.refiner = seem.SEEM(self.seem.width, self.seem.depth, self.dtype)

  def __call__(self, frames, *, train):
    """Predicts disparity and classes of the target, and all motions.

    Args:
      frames: `[B, F, H, W, 3]` float in [0, 1], the target first. With F = 1
        no motion is predicted.
      train: whether batch norm uses (and updates) batch statistics, and SEEM
        random points instead of every edge pixel.

    Returns:
      `DepthOutputs`.

    Raises:
      ValueError: if the shape does not fit.
    """
    self._check(frames)
    depth, semantic, _ = self.decode(self.encoder(frames[:, 0], train=train))
    outputs = DepthOutputs(
      tuple(
        self.disparity_heads[scale](depth[scale])
        for scale in decoders.DISPARITY_SCALES
      )
    )
    if self.semantics:
      outputs = outputs.replace(logits=self.semantic_head(semantic[0]))
    if self.seem:
      outputs = self._enhance(outputs, depth, semantic, train=train)
    if frames.shape[1] == 1 and not self.is_initializing():
      return outputs
    axis_angle, translation = self.estimate_motion(frames, train=train)
    return outputs.replace(axis_angle=axis_angle, translation=translation)

  def segment(self, images, *, train):
    """Predicts classes alone.

    Args:
      images: `[M, H, W, 3]` float in [0, 1].
      train: as for `__call__`; the images are a batch of their own for batch
        norm.

    Returns:
      `[M, H, W, 19]` float32 class scores.
    """
    features = self.encoder(images, train=train)
    _, semantic, _ = self.decode(features, depth=False)
    return self.semantic_head(semantic[0])

  def attention_maps(self, images, points):
    """What query pixels attend to at every level with attention, for pictures.

    Args:
      images: `[B, H, W, 3]` float in [0, 1].
      points: `[B, P, 2]` int, (x, y) full-size pixels.

    Returns:
      Level -> `[B, P, h, w]` float32, see
      `attention.SemanticGuidedAttention.affinity`.
    """
    features = self.encoder(images, train=False)
    _, _, guides = self.decode(features, depth=False)
    return {
      level: self.attentions[str(level)].affinity(guide, points // 2**level)
      for level, guide in guides.items()
    }

  def decode(self, features, *, depth=True):
    """Runs both decoders side by side.

    Args:
      features: the encoder's five features.
      depth: whether to run that of depth, on which the other does not depend.

    Returns:
      Dicts from level i to features `[B, H / 2^i, W / 2^i, C_i]`: those of
      depth (None without it), those of semantics (likewise), and the semantic
      ones that guide the attention at its levels, before its own update.
    """
    depths, semantic_maps, guides = {}, {}, {}
    depth_map = features[-1] if depth else None
    semantic_map = features[-1] if self.semantics else None
    for level in reversed(_LEVELS):
      skip = features[level - 1] if level > 0 else None
      if depth:
        depth_map = self.depth_levels[level](depth_map, skip)
      if self.semantics:
        semantic_map = self.semantic_levels[level](semantic_map, skip)
      if level in self.attention_levels:
        guides[level] = semantic_map
        attend = self.attentions[str(level)]
        depth_map, semantic_map = attend(depth_map, semantic_map)
      depths[level] = depth_map
      semantic_maps[level] = semantic_map
    return depths, semantic_maps, guides

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
      motions.append(self.pair_motion(*pair, train=train))
    axis_angles, translations = zip(*motions, strict=True)
    return jnp.stack(axis_angles, 1), jnp.stack(translations, 1)

  def pair_motion(self, first, second, *, train):
    """Estimates the motion from one frame to a later one.

    Args:
      first: `[B, H, W, 3]` float in [0, 1].
      second: likewise, later in time.
      train: as for `__call__`.

    Returns:
      axis_angle and translation `[B, 3]` of T_second_first, see
      `pose.PoseNetwork`.
    """
    return self.pose(jnp.concatenate([first, second], -1), train=train)

  def _decoder(self):
    return [
      decoders.DecoderLevel(width, self.dtype) for width in decoders.WIDTHS
    ]

  def draw_points(self, logits):
    """Draws edge pixels at random, as a training step does.

    Args:
      logits: `[B, H, W, C]` class scores.

    Returns:
      points `[B, K, 2]` int32, (x, y), and their mask `[B, K]` bool; see
      `edges.sample_edge_points`.
    """
    _, band = self._find_edges(logits)
    return self._draw_from(band)

  def _draw_from(self, band):
    """`draw_points` of the edge pixels `band`."""
    key = jax.random.key(0)
    if self.has_rng('points'):
      key = self.make_rng('points')
    return edges.sample_edge_points(key, band, self.seem.points)

  def _find_edges(self, logits):
    """The most likely classes and their edges `[B, H, W]`; no gradient."""
    classes = jnp.argmax(jax.lax.stop_gradient(logits), axis=-1)
    return classes, edges.semantic_edges(classes, width=self.seem.edge_width)

  def _find_inside(self, coarse_logit, classes, band, points):
    """`inside_logits` and `inside_mask` of `DepthOutputs` at points."""
    values, known = edges.from_inside(
      jax.lax.stop_gradient(coarse_logit),
      classes,
      band,
      rounds=self.seem.edge_width + 1,
    )
    known = warping.gather_points(known[..., None], points)[..., 0]
    return warping.gather_points(values, points), known

  def _enhance(self, outputs, depth, semantic, *, train):
    """Adds the enhanced disparity (and, in training, its points)."""
    coarse_logit, levels = outputs.disparity_logits[0], self.seem.levels
    coarse = outputs.disparities[0]
    inputs = (
      [depth[level] for level in levels],
      [semantic[level] for level in levels],
      coarse_logit,
      outputs.logits,
    )

    def refine(estimate_residual, points):
      residual = estimate_residual(points, *inputs)
      return warping.gather_points(coarse_logit, points) + residual

    classes, band = self._find_edges(outputs.logits)
    if train or self.is_initializing():
      points, mask = self._draw_from(band)
      refined = refine(self.refiner, points)
      inside, known = self._find_inside(coarse_logit, classes, band, points)
      return outputs.replace(
        # What surrounds a point must not adapt to it.
        enhanced_disparity=seem.scatter_points(
          jax.lax.stop_gradient(coarse), points, nn.sigmoid(refined), mask
        ),
        points=points,
        point_mask=mask,
        point_logits=refined,
        inside_logits=inside,
        inside_mask=known & mask,
      )
    module, variables = self.refiner.unbind()
    enhanced = seem.refine_edges(
      coarse,
      band,
      lambda points: nn.sigmoid(
        refine(functools.partial(module.apply, variables), points)
      ),
      chunk=self.seem.chunk,
    )
    return outputs.replace(enhanced_disparity=enhanced)

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
