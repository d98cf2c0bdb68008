"""SEEM: depth refined at the points of the semantic edges.

The paper (Li et al., arXiv 2012.08048) states an individual module that is
fed the point features on the semantic edges. Its form here is our
reconstruction, after PointRend (Kirillov et al., arXiv 1912.08193): bilinear
samples of several levels of both decoders, a point-wise network that is fed
the coarse prediction again at each layer, and a residual on the disparity
logit, scattered into the coarse map.

Points are (x, y) pixels of the full-size map. All functions treat each image
by itself, so that a batch sharded over devices is never gathered.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from sgde_jax.models import layers
from sgde_jax.ops import edges, warping

Map = Float[Array, 'B H W 1']
Points = Int[Array, 'B K 2']
Values = Float[Array, 'B K 1']


class SEEM(nn.Module):
  """A point-wise network from features at points to a logit's residual.

  The last layer starts at zero: a fresh module changes nothing.

  Attributes:
    points: points per image that a training step draws.
    edge_width: see `edges.semantic_edges`.
    levels: decoder levels whose features are sampled.
    width: features of each of the `depth` hidden layers.
    chunk: points per image that prediction refines at a time; 0: it computes
      all pixels and keeps those on edges. That is slower on most images, but
      needs no loop, gather or scatter, which few other runtimes have.
    dtype: dtype of the computation; parameters are float32.
  """

  points: int
  edge_width: int
  levels: tuple[int, ...]
  width: int
  depth: int
  chunk: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    points: Points | None,
    depth_features: Mapping[int, Float[Array, 'B _ _ _']],
    semantic_features: Mapping[int, Float[Array, 'B _ _ _']],
    disparity_logit: Map,
    class_logits: Float[Array, 'B H W C'],
  ) -> Values:
    """Estimates the residual on the disparity logit at points, float32.

    Features are by decoder level, `disparity_logit` is the coarse disparity
    before its sigmoid. Without `points`, at all pixels in raster order.
    """
    size = disparity_logit.shape[1:3]
    if points is None:
      read = sample = functools.partial(_sample_all, height=size[0])
    else:
      read = functools.partial(warping.gather_points, points=points)
      sample = functools.partial(sample_features, points=points, size=size)
    coarse = read(disparity_logit).astype(self.dtype)
    samples = [
      sample(decoder[level])
      for decoder in (depth_features, semantic_features)
      for level in self.levels
    ]
    # Gather first: a softmax of the whole map takes several times as long.
    samples.append(nn.softmax(read(class_logits)))
    x = jnp.concatenate([x.astype(self.dtype) for x in samples], axis=-1)
    for layer in range(self.depth):
      dense = self._dense(self.width, layers.kaiming_normal, f'hidden_{layer}')
      x = nn.relu(dense(x, coarse))
    residual = self._dense(1, nn.initializers.zeros, 'residual')(x, coarse)
    residual = residual.astype(jnp.promote_types(self.dtype, jnp.float32))
    return residual.reshape(disparity_logit.shape[0], -1, 1)

  def _dense(self, features, kernel_init, name):
    return _DenseWithCoarse(features, kernel_init, self.dtype, name=name)


class _DenseWithCoarse(nn.Module):
  """A dense layer whose input is joined by the coarse logit.

  The kernel's last row is the logit's.
  """

  features: int
  kernel_init: nn.initializers.Initializer
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x, coarse):
    """Maps `[..., C]` and `[..., 1]` to `[..., features]`."""
    shape = (x.shape[-1] + 1, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape[1:], jnp.float32)
    kernel = kernel.astype(self.dtype)
    leading = range(x.ndim - 1)
    bias = jnp.expand_dims(bias.astype(self.dtype), leading)
    row = jnp.expand_dims(kernel[-1], leading)
    # Two products: joining the inputs would copy all features.
    return x @ kernel[:-1] + (coarse * row + bias)


def sample_features(
  features: Float[Array, 'B h w C'], points: Points, size: tuple[int, int]
) -> Float[Array, 'B K C']:
  """Samples a coarser map at points (x, y) of a map of `size` (H, W).

  Bilinear; full-size point x samples a stride-s map at (x + 0.5) / s - 0.5.
  """
  height, width = size
  scale = (features.shape[2] / width, features.shape[1] / height)
  scale = jnp.asarray(scale, jnp.float32)[None, None]
  return warping.sample_bilinear(features, (points + 0.5) * scale - 0.5)


def _sample_all(x, height):
  """Samples `[B, h, w, C]` at all pixels of `height` rows: `[B H W, C]`.

  As `sample_features`, by slices alone. Unlike `jax.image.resize` it needs no
  products of large matrices, and its batch may be symbolic in every format.
  """
  factor = height // x.shape[1]
  for axis in (2, 1) if factor > 1 else ():
    count = x.shape[axis]
    part = functools.partial(jax.lax.slice_in_dim, x, axis=axis)
    before = jnp.concatenate([part(0, 1), part(0, count - 1)], axis)
    after = jnp.concatenate([part(1, count), part(count - 1, count)], axis)
    phases = []
    for phase in range(factor):
      offset = (phase + 0.5) / factor - 0.5
      neighbour = before if offset < 0 else after
      phases.append(x + (neighbour - x) * abs(offset))
    shape = list(x.shape)
    shape[axis] *= factor
    x = jnp.stack(phases, axis + 1).reshape(shape)
  return x.reshape(-1, x.shape[-1])  # One matrix.


def scatter_points(
  maps: Map, points: Points, values: Values, mask: Bool[Array, 'B K']
) -> Map:
  """Writes values into maps at points (x, y) and leaves the rest unchanged.

  The valid points of an image must be distinct; masked points and those
  outside the map write nothing. Gradients flow to the values of valid points,
  and to the maps elsewhere.
  """
  height, width = maps.shape[1:3]
  x, y = points[..., 0], points[..., 1]
  mask = mask & (x >= 0) & (x < width) & (y >= 0) & (y < height)
  # Each masked point gets a place of its own beyond the map, where writes are
  # dropped, so that all places are distinct.
  beyond = height * width + jnp.arange(points.shape[1], dtype=points.dtype)
  places = jnp.where(mask, y * width + x, beyond[None])

  def scatter(flat, places, values):
    return flat.at[places].set(values, mode='drop', unique_indices=True)

  flat = maps.reshape(maps.shape[0], height * width)
  values = values[..., 0].astype(maps.dtype)
  return jax.vmap(scatter)(flat, places, values).reshape(maps.shape)


def refine_edges(
  coarse: Map, edge_map: Bool[Array, 'B H W'], refine: Callable, *, chunk: int
) -> Map:
  """Refines every edge pixel of a map, in raster order, chunk by chunk.

  Deterministic; equals the coarse map bit for bit away from edges. Runs as
  many chunks of K points as the image with the most edge pixels needs.

  `refine` maps points `[B, K, 2]` int32 to values `[B, K, 1]`. It runs inside
  `jax.lax.while_loop`: from within a Flax module, pass a function of unbound
  modules (`module, variables = self.seem.unbind()`).
  """
  most = jnp.max(jnp.sum(edge_map, axis=(1, 2), dtype=jnp.int32))

  def step(carry):
    start, refined = carry
    points, mask = edges.ordered_edge_points(edge_map, start, chunk)
    refined = scatter_points(refined, points, refine(points), mask)
    return start + chunk, refined

  start = jnp.zeros((), jnp.int32)
  _, refined = jax.lax.while_loop(
    lambda carry: carry[0] < most, step, (start, coarse)
  )
  return refined
