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

import jax
import jax.numpy as jnp
from flax import linen as nn

from sgde_jax.models import layers
from sgde_jax.ops import edges as edge_points
from sgde_jax.ops import warping


class SEEM(nn.Module):
  """A point-wise network from features at points to a logit's residual.

  The last layer starts at zero: a fresh module changes nothing.

  Attributes:
    width: features of each hidden layer.
    depth: number of hidden layers.
    dtype: dtype of the computation; parameters are float32.
  """

  width: int = 256
  depth: int = 3
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    points,
    depth_features,
    semantic_features,
    disparity_logit,
    class_logits,
  ):
    """Estimates the residual on the disparity logit at points.

    Args:
      points: `[B, K, 2]` int, (x, y) pixels of the full-size map.
      depth_features: sequence of `[B, h, w, C]` maps of the depth decoder, at
        any strides.
      semantic_features: the same of the semantic decoder.
      disparity_logit: `[B, H, W, 1]` float, the coarse disparity before its
        sigmoid.
      class_logits: `[B, H, W, classes]` float, whose softmax it is fed.

    Returns:
      `[B, K, 1]` float32 residuals.

    Raises:
      ValueError: if the full-size maps differ in size.
    """
    size = disparity_logit.shape[1:3]
    if class_logits.shape[1:3] != size:
      raise ValueError(
        f'class_logits have size {class_logits.shape[1:3]}: expected that of'
        f' disparity_logit, {size}'
      )
    coarse = warping.gather_points(disparity_logit, points).astype(self.dtype)
    maps = (*depth_features, *semantic_features)
    samples = [sample_features(features, points, size) for features in maps]
    # Gathered first: of the whole map a softmax takes several times as long.
    samples.append(nn.softmax(warping.gather_points(class_logits, points)))
    x = jnp.concatenate([x.astype(self.dtype) for x in samples], axis=-1)
    for layer in range(self.depth):
      dense = self._dense(self.width, layers.kaiming_normal, f'hidden_{layer}')
      x = nn.relu(dense(x, coarse))
    residual = self._dense(1, nn.initializers.zeros, 'residual')(x, coarse)
    return residual.astype(jnp.promote_types(self.dtype, jnp.float32))

  def _dense(self, features, kernel_init, name):
    return _DenseBesideCoarse(features, kernel_init, self.dtype, name=name)


class _DenseBesideCoarse(nn.Module):
  """A dense layer that is fed the coarse logit beside its input.

  Attributes:
    features: output features.
    kernel_init: initialiser of the kernel, whose last row is the logit's.
    dtype: dtype of the computation; parameters are float32.
  """

  features: int
  kernel_init: nn.initializers.Initializer
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, coarse):
    """Maps `[B, K, C]` and `[B, K, 1]` to `[B, K, features]`."""
    shape = (x.shape[-1] + 1, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape[1:], jnp.float32)
    kernel = kernel.astype(self.dtype)
    bias = bias.astype(self.dtype)[None, None]
    # In two products: to join the inputs would copy all features.
    return x @ kernel[:-1] + (coarse * kernel[None, -1:] + bias)


def sample_features(features, points, size):
  """Samples a coarser map at full-size points, bilinearly.

  Full-size point x samples a stride-s map at (x + 0.5) / s - 0.5.

  Args:
    features: `[B, h, w, C]` float.
    points: `[B, K, 2]` int, (x, y) pixels of the full-size map.
    size: (H, W) of the full-size map.

  Returns:
    `[B, K, C]` of the features' dtype.
  """
  height, width = size
  scale = (features.shape[2] / width, features.shape[1] / height)
  scale = jnp.asarray(scale, jnp.float32)[None, None]
  return warping.sample_bilinear(features, (points + 0.5) * scale - 0.5)


def scatter_points(maps, points, values, mask):
  """Writes values into maps at points and leaves all else as it is.

  Args:
    maps: `[B, H, W, 1]` float.
    points: `[B, K, 2]` int, (x, y). The valid points of an image must be
      distinct; those outside the map are ignored.
    values: `[B, K, 1]` float.
    mask: `[B, K]` bool, whether a point is valid. Masked points write
      nothing, wherever they lie.

  Returns:
    `[B, H, W, 1]` of the dtype of `maps`. Gradients flow to the values of
    valid points, and to the maps elsewhere.
  """
  height, width = maps.shape[1:3]
  x, y = points[..., 0], points[..., 1]
  mask = mask & (x >= 0) & (x < width) & (y >= 0) & (y < height)
  # Each masked point gets its own place beyond the map, which is dropped, so
  # that all places are distinct.
  beyond = height * width + jnp.arange(points.shape[1], dtype=points.dtype)
  places = jnp.where(mask, y * width + x, beyond[None])

  def scatter(flat, places, values):
    return flat.at[places].set(values, mode='drop', unique_indices=True)

  flat = maps.reshape(maps.shape[0], height * width)
  values = values[..., 0].astype(maps.dtype)
  return jax.vmap(scatter)(flat, places, values).reshape(maps.shape)


def refine_edges(coarse, edges, refine, *, chunk):
  """Refines every edge pixel of a map, in raster order, chunk by chunk.

  Deterministic; equals the coarse map bit for bit away from edges. Runs as
  many chunks as the image with the most edge pixels needs.

  Args:
    coarse: `[B, H, W, 1]` float.
    edges: `[B, H, W]` bool.
    refine: maps points `[B, K, 2]` int32 to refined values `[B, K, 1]`. Runs
      inside `jax.lax.while_loop`: from within a Flax module, pass a function
      of unbound modules (`module, variables = self.seem.unbind()`).
    chunk: number K of points per image and chunk.

  Returns:
    `[B, H, W, 1]` of the dtype of `coarse`.

  Raises:
    ValueError: if the chunk is below 1.
  """
  if chunk < 1:
    raise ValueError(f'chunk is {chunk}: refine at least 1 point at a time')
  most = jnp.max(jnp.sum(edges, axis=(1, 2), dtype=jnp.int32))

  def step(carry):
    start, refined = carry
    points, mask = edge_points.ordered_edge_points(edges, start, chunk)
    refined = scatter_points(refined, points, refine(points), mask)
    return start + chunk, refined

  start = jnp.zeros((), jnp.int32)
  _, refined = jax.lax.while_loop(
    lambda carry: carry[0] < most, step, (start, coarse)
  )
  return refined
