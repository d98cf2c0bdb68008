"""Semantic-guided pixel attention between the two decoders.

The paper (Li et al., arXiv 2012.08048) states that semantic and depth
features of several decoding levels are enhanced by pixel-wise correlations
guided by semantics. All else here is our reconstruction: queries and keys
from the semantic features alone, one softmax(q k^T / sqrt(d)) over all pixels
for both branches, heads, the pooled keys and the zero-initialized gains.

The matrix of N queries by M keys grows with the square of the map. `plain`
stores it; `blockwise` and `fused` never do, forward or backward, so their
memory grows linearly.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sgde_jax.models import layers
from sgde_jax.ops import blockwise

Features = layers.Features
# Limits of the fused kernel (cuDNN).
_FUSED_CAPABILITY = 8.0
_FUSED_WIDTH = 128


def pixel_attention(
  queries: Float[Array, 'B N h d'],
  keys: Float[Array, 'B M h d'],
  values: Float[Array, 'B M h e'],
  *,
  implementation: str = 'auto',
) -> Float[Array, 'B N h e']:
  """Returns softmax(q k^T / sqrt(d)) v by one of the `IMPLEMENTATIONS`.

  Scores, softmax and sums are at least float32; the precision of products is
  that of `jax.default_matmul_precision`, by default less than float32 on GPUs
  and TPUs.

  `auto` chooses at trace time: `plain` where N M <= 512^2, one tile of
  `blockwise`; else `fused` where the default backend is a CUDA GPU of compute
  capability 8.0 or newer, the values have 16 bits and the heads are at most
  128 wide; else `blockwise`. The choice does not depend on the batch. A
  program exported for another platform than the one it is traced on should
  name its implementation.
  """
  return IMPLEMENTATIONS[implementation](queries, keys, values)


def choose_implementation(queries: Any, keys: Any, values: Any) -> str:
  """Returns the implementation that `auto` chooses for these arrays."""
  if queries.shape[1] * keys.shape[1] <= blockwise.BLOCK**2:
    return 'plain'
  narrow = max(keys.shape[-1], values.shape[-1]) <= _FUSED_WIDTH
  short = values.dtype.itemsize == 2
  return 'fused' if short and narrow and _has_fused_kernel() else 'blockwise'


def _has_fused_kernel():
  """Returns whether the default backend is a GPU with cuDNN's attention."""
  if jax.default_backend() != 'gpu':
    return False
  # An architecture's name instead of a number, as on AMD, is not CUDA.
  device = jax.local_devices()[0]
  capability = str(getattr(device, 'compute_capability', ''))
  number = capability.replace('.', '', 1).isdigit()
  return number and float(capability) >= _FUSED_CAPABILITY


def _auto(queries, keys, values):
  name = choose_implementation(queries, keys, values)
  return IMPLEMENTATIONS[name](queries, keys, values)


def _plain(queries, keys, values):
  """Computes attention with the whole matrix stored."""
  scale = 1 / math.sqrt(keys.shape[-1])
  scores = blockwise.dot('bnhd,bmhd->bhnm', queries * scale, keys)
  weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  mixed = blockwise.dot('bhnm,bmhe->bnhe', weights, values)
  return mixed.astype(values.dtype)


def _fused(queries, keys, values):
  """Computes attention by cuDNN; pads the heads to a width that it supports."""
  widest = max(keys.shape[-1], values.shape[-1])
  width = -(-widest // 8) * 8  # The kernel needs a multiple of 8.

  def fit(x):
    edges = ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1]))
    return jnp.pad(x.astype(jnp.bfloat16), edges)

  mixed = jax.nn.dot_product_attention(
    fit(queries),
    fit(keys),
    fit(values),
    scale=1 / math.sqrt(keys.shape[-1]),
    implementation='cudnn',
  )
  return mixed[..., : values.shape[-1]].astype(values.dtype)


IMPLEMENTATIONS = {
  'auto': _auto,
  'plain': _plain,  # Stores the N x M matrix.
  'blockwise': blockwise.attend,  # Online softmax over blocks, everywhere.
  'fused': _fused,  # cuDNN's kernel, on CUDA GPUs, always in bfloat16.
}


class SemanticGuidedAttention(nn.Module):
  """Re-weights depth and semantic features by one semantic affinity.

  D' = D + g_D conv(A v(D)) and S' = S + g_S conv(A v(S)) with the affinity
  A = softmax(q(S) k(S)^T / sqrt(d)) per head; all convolutions are 1 x 1. The
  gains g are per channel and start at zero: a fresh module is the identity.
  They are `gain_rate` times their parameters. Adam moves a parameter by about
  the learning rate per step, regardless of its gradient's size: at a rate of 1
  gains stay near zero for thousands of steps.

  Attributes:
    heads: number of heads.
    width: channels of the queries, the keys and each branch's values, over
      all heads; a multiple of `heads`.
    key_stride: keys and values, never queries, are averaged over windows of
      this size first; 1 for none.
    gain_rate: factor on the learning rate of the gains.
    implementation: see `pixel_attention`.
    dtype: dtype of the computation; parameters are float32.
  """

  heads: int
  width: int
  key_stride: int
  gain_rate: float
  implementation: str
  dtype: DTypeLike = jnp.float32

  def setup(self):
    """Creates the projections and the gained convolutions."""
    self.query = self._project()
    self.key = self._project()
    self.depth_value = self._project()
    self.semantic_value = self._project()
    self.depth_update = GainedConv(self.gain_rate, self.dtype)
    self.semantic_update = GainedConv(self.gain_rate, self.dtype)

  def __call__(
    self, depth_features: Features | None, semantic_features: Features
  ) -> tuple[Features | None, Features]:
    """Enhances the depth and the semantic features of one decoder level.

    Depth features may be None: the affinity, and so the semantic features, do
    not depend on them.
    """
    branches = [
      (features, value, update)
      for features, value, update in (
        (depth_features, self.depth_value, self.depth_update),
        (semantic_features, self.semantic_value, self.semantic_update),
      )
      if features is not None
    ]
    shape = semantic_features.shape
    queries, keys = self._queries_and_keys(semantic_features)
    values = [
      self._by_head(project(average_pool(features, self.key_stride)))
      for features, project, _ in branches
    ]
    mixed = pixel_attention(
      queries,
      keys,
      jnp.concatenate(values, axis=-1),
      implementation=self.implementation,
    )
    *depth, semantic = [
      update(features, part.reshape(*shape[:3], self.width))
      for (features, _, update), part in zip(
        branches, jnp.split(mixed, len(branches), axis=-1), strict=True
      )
    ]
    return depth[0] if depth else None, semantic

  def affinity(
    self, semantic_features: Features, points: Int[Array, 'B P 2']
  ) -> Float[Array, 'B P h w']:
    """Returns the attention maps of a few query pixels (x, y), for pictures.

    A map is the affinity averaged over the heads, on the pooled grid, float32;
    it sums to 1.
    """
    queries, keys = self._queries_and_keys(semantic_features)
    width, stride = semantic_features.shape[2], self.key_stride
    index = points[..., 1] * width + points[..., 0]
    queries = jax.vmap(lambda rows, i: rows[i])(queries, index)
    scores = blockwise.dot('bnhd,bmhd->bhnm', queries, keys)
    weights = jax.nn.softmax(scores / math.sqrt(keys.shape[-1]), axis=-1)
    weights = jnp.mean(weights, axis=1)
    return weights.reshape(*weights.shape[:2], -1, -(-width // stride))

  def _queries_and_keys(self, semantic_features):
    """Returns queries `[B, N, h, d]` and keys `[B, M, h, d]`."""
    pooled = average_pool(semantic_features, self.key_stride)
    queries = self._by_head(self.query(semantic_features))
    return queries, self._by_head(self.key(pooled))

  def _project(self):
    return layers.Conv(self.width, size=1, dtype=self.dtype)

  def _by_head(self, x):
    """Turns `[B, h, w, width]` into `[B, h w, heads, width / heads]`."""
    batch, height, width, _ = x.shape
    size = self.width // self.heads
    return x.reshape(batch, height * width, self.heads, size)


class GainedConv(nn.Module):
  """Adds a 1 x 1 convolution with a gain per channel that starts at zero."""

  rate: float
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, features: Features, update: Float[Array, 'B H W D']
  ) -> Features:
    """Adds the update to the features."""
    channels = features.shape[-1]
    gain = self.param('gain', nn.initializers.zeros, (channels,), jnp.float32)
    project = layers.Conv(channels, size=1, dtype=self.dtype, name='project')
    gain = (self.rate * gain).astype(self.dtype)
    update = gain[None, None, None] * project(update)
    return features + update.astype(features.dtype)


def average_pool(x: Features, stride: int) -> Float[Array, 'B h w C']:
  """Averages over `stride` x `stride` pixels, fewer at the bottom and right.

  Computed as a sum over a reshaped map, whose gradient on CPUs is far faster
  than that of a pooling window.
  """
  if stride == 1:
    return x
  batch, height, width, channels = x.shape
  rows, columns = -(-height // stride), -(-width // stride)
  bottom, right = rows * stride - height, columns * stride - width
  x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
  x = x.reshape(batch, rows, stride, columns, stride, channels)
  counts = np.outer(
    np.minimum(stride, height - stride * np.arange(rows)),
    np.minimum(stride, width - stride * np.arange(columns)),
  )
  shares = jnp.asarray(1 / counts[None, ..., None], x.dtype)
  return jnp.sum(x, axis=(2, 4)) * shares
