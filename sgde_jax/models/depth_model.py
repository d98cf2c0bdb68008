"""The whole network: shared encoder, dual decoders, SEEM, pose.

The paper (Li et al., arXiv 2012.08048) states an encoder shared by a depth and
a semantic decoder, attention between the two at several levels, and a separate
module for the points on semantic edges. How they are joined here is our
reconstruction. With semantics off this is Monodepth2.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from sgde_jax.models import attention, decoders, pose, resnet, seem
from sgde_jax.ops import edges, warping

_LEVELS = range(len(decoders.WIDTHS))
Image = Float[Array, 'B H W 3']
Points = Int[Array, 'B K 2']
Vectors = Float[Array, 'B S 3']


@no_type_check  # `jax.tree.map` may fill it with non-arrays.
@flax.struct.dataclass
class DepthOutputs:
  """Predictions of the network, float32; None where a part is off.

  Attributes:
    disparity_logits: four maps at scales s = 0..3, divided by 2^s.
    axis_angle: radians, one per source frame, of the motion from the earlier
      to the later frame of the pair; None with a single frame.
    translation: of the same motion, in the depth's own unknown scale.
    enhanced_disparity: in (0, 1): `disparities[0]` with SEEM's values at points
      on semantic edges; at all of them, or while training at `points`.
    logits: class scores.
    points: (x, y), the edge pixels that training drew.
    point_mask: False for the points beyond an image's edges.
    point_logits: SEEM's disparity logits at the points.
    inside_logits: the coarse disparity logits inside the points' own predicted
      segments, see `edges.from_inside`; no gradient.
    inside_mask: False where a segment has no inside near.
  """

  disparity_logits: tuple[Float[Array, 'B _ _ 1'], ...]
  axis_angle: Vectors | None = None
  translation: Vectors | None = None
  enhanced_disparity: Float[Array, 'B H W 1'] | None = None
  logits: Float[Array, 'B H W 19'] | None = None
  points: Points | None = None
  point_mask: Bool[Array, 'B K'] | None = None
  point_logits: Float[Array, 'B K 1'] | None = None
  inside_logits: Float[Array, 'B K 1'] | None = None
  inside_mask: Bool[Array, 'B K'] | None = None

  @property
  def disparities(self) -> tuple[Float[Array, 'B _ _ 1'], ...]:
    """The sigmoids of `disparity_logits`, in (0, 1)."""
    return tuple(map(nn.sigmoid, self.disparity_logits))

  @property
  def disparity(self) -> Float[Array, 'B H W 1']:
    """The best full-size disparity: the enhanced one if there is one."""
    if self.enhanced_disparity is None:
      return self.disparities[0]
    return self.enhanced_disparity


class DepthModel(nn.Module):
  """Shared encoder, depth and semantic decoder, SEEM and pose network.

  Random edge points come from the `points` random stream; without it, `apply`
  in training draws the same points at every call.

  Attributes:
    encoder_layers: depth of the ResNet; `pose_layers` of the pose network's.
    frame_offsets: time of each frame relative to the target, 0 first.
    semantics: whether there is a semantic decoder.
    attention_levels: decoder levels with attention between the decoders.
    attention: arguments of `attention.SemanticGuidedAttention`. Here
      `key_stride` is in full-size pixels, a power of two: level i is pooled by
      key_stride / 2^i where that is above 1. With 16, the levels of strides
      16, 8 and 4 all attend to one grid of stride 16.
    seem: arguments of `seem.SEEM`; None for none.
    min_depth: depth at disparity 1, `max_depth` at 0, metres.
    dtype: dtype of the computation; parameters are float32.
  """

  encoder_layers: int
  pose_layers: int
  frame_offsets: tuple[int, ...]
  semantics: bool
  attention_levels: tuple[int, ...]
  attention: Mapping[str, Any]
  seem: Mapping[str, Any] | None
  min_depth: float
  max_depth: float
  dtype: DTypeLike

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
      self.semantic_head = decoders.SemanticHead(self.dtype)
    stride = self.attention['key_stride']
    self.attentions = {
      str(level): attention.SemanticGuidedAttention(
        **dict(self.attention) | {'key_stride': max(1, stride // 2**level)},
        dtype=self.dtype,
      )
      for level in self.attention_levels
    }
    if self.seem:
      self.refiner = seem.SEEM(**self.seem, dtype=self.dtype)

  def __call__(
    self, frames: Float[Array, 'B F H W 3'], *, train: bool
  ) -> DepthOutputs:
    """Predicts disparity and classes of the target, and all motions.

    Args:
      frames: in [0, 1], the target first. With F = 1 no motion is predicted.
      train: whether batch norm uses (and updates) batch statistics, and SEEM
        random points instead of every edge pixel.
    """
    count, (height, width) = len(self.frame_offsets), frames.shape[2:4]
    # JAX clamps a frame's index that is out of bounds.
    if frames.shape[1] not in (1, count) or height % 32 or width % 32:
      raise ValueError(
        f'frames has shape {frames.shape}: expected [B, F, H, W, 3] with F = 1'
        f' or {count} and H, W multiples of 32'
      )
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

  def segment(self, images: Image, *, train: bool) -> Float[Array, 'B H W 19']:
    """Computes class scores alone; a batch of its own for batch norm."""
    features = self.encoder(images, train=train)
    _, semantic, _ = self.decode(features, depth=False)
    return self.semantic_head(semantic[0])

  def attention_maps(
    self, images: Image, points: Int[Array, 'B P 2']
  ) -> dict[int, Float[Array, 'B P _ _']]:
    """Returns, by level, the attention maps of query pixels (full-size x, y).

    See `attention.SemanticGuidedAttention.affinity`.
    """
    features = self.encoder(images, train=False)
    _, _, guides = self.decode(features, depth=False)
    return {
      level: self.attentions[str(level)].affinity(guide, points // 2**level)
      for level, guide in guides.items()
    }

  def decode(
    self, features: Sequence[Float[Array, 'B _ _ _']], *, depth: bool = True
  ) -> tuple[dict[int, Any], dict[int, Any], dict[int, Array]]:
    """Runs both decoders side by side.

    Takes the encoder's five features; returns dicts from level i to features
    `[B, H / 2^i, W / 2^i, C_i]`: of depth and of semantics (None where a
    decoder is off), and the semantic ones that guide the attention at its
    levels, before its own update.
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

  def estimate_motion(
    self, frames: Float[Array, 'B F H W 3'], *, train: bool
  ) -> tuple[Vectors, Vectors]:
    """Estimates axis-angle and translation of all pairs.

    Each pair is its own call with its own batch statistics, in temporal order
    (Monodepth2).
    """
    motions = []
    for index, offset in enumerate(self.frame_offsets[1:], start=1):
      pair = [frames[:, 0], frames[:, index]]
      if offset < 0:
        pair.reverse()
      motions.append(self.pair_motion(*pair, train=train))
    axis_angles, translations = zip(*motions, strict=True)
    return jnp.stack(axis_angles, 1), jnp.stack(translations, 1)

  def pair_motion(
    self, first: Image, second: Image, *, train: bool
  ) -> tuple[Float[Array, 'B 3'], Float[Array, 'B 3']]:
    """Estimates T_second_first to a later frame, see `pose.PoseNetwork`."""
    return self.pose(jnp.concatenate([first, second], -1), train=train)

  def _decoder(self):
    widths = decoders.WIDTHS
    return [decoders.DecoderLevel(width, self.dtype) for width in widths]

  def draw_points(
    self, logits: Float[Array, 'B H W C']
  ) -> tuple[Points, Bool[Array, 'B K']]:
    """Draws edge pixels and a mask at random, as a training step does."""
    _, band = self._find_edges(logits)
    return self._draw_from(band)

  def _draw_from(self, band):
    use_stream = self.has_rng('points')
    key = self.make_rng('points') if use_stream else jax.random.key(0)
    return edges.sample_edge_points(key, band, self.refiner.points)

  def _find_edges(self, logits):
    """Returns the top classes and their edges `[B, H, W]`, no gradient."""
    classes = jnp.argmax(jax.lax.stop_gradient(logits), axis=-1)
    width = self.refiner.edge_width
    return classes, edges.semantic_edges(classes, width=width)

  def _find_inside(self, coarse_logit, classes, band, points):
    """Returns `inside_logits` and `inside_mask` of `DepthOutputs` at points."""
    values, known = edges.from_inside(
      jax.lax.stop_gradient(coarse_logit),
      classes,
      band,
      rounds=self.refiner.edge_width + 1,
    )
    known = warping.gather_points(known[..., None], points)[..., 0]
    return warping.gather_points(values, points), known

  def _enhance(self, outputs, depth, semantic, *, train):
    """Adds the enhanced disparity (and, in training, its points)."""
    coarse_logit, coarse = outputs.disparity_logits[0], outputs.disparities[0]
    inputs = depth, semantic, coarse_logit, outputs.logits

    def refine(estimate_residual, points):
      residual = estimate_residual(points, *inputs)
      return warping.gather_points(coarse_logit, points) + residual

    classes, band = self._find_edges(outputs.logits)
    if train or self.is_initializing():
      points, mask = self._draw_from(band)
      refined = refine(self.refiner, points)
      inside, known = self._find_inside(coarse_logit, classes, band, points)
      return outputs.replace(
        # Stop gradients through the coarse map around the points.
        enhanced_disparity=seem.scatter_points(
          jax.lax.stop_gradient(coarse), points, nn.sigmoid(refined), mask
        ),
        points=points,
        point_mask=mask,
        point_logits=refined,
        inside_logits=inside,
        inside_mask=known & mask,
      )
    if not self.refiner.chunk:
      residual = self.refiner(None, *inputs).reshape(coarse_logit.shape)
      refined = nn.sigmoid(coarse_logit + residual)
      enhanced = jnp.where(band[..., None], refined, coarse)
      return outputs.replace(enhanced_disparity=enhanced)
    module, variables = self.refiner.unbind()
    enhanced = seem.refine_edges(
      coarse,
      band,
      lambda points: nn.sigmoid(
        refine(functools.partial(module.apply, variables), points)
      ),
      chunk=self.refiner.chunk,
    )
    return outputs.replace(enhanced_disparity=enhanced)
