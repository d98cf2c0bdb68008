"""Semantic-guided pixel attention between the two decoders.

The paper (Li et al., arXiv 2012.08048) states that semantic and depth
features of several decoding levels are enhanced by pixel-wise correlations
that semantics guides. All else here is our reconstruction: queries and keys
from the semantic features alone, one softmax(q k^T / sqrt(d)) over all pixels
for both branches, heads, the pooled keys and the zero-initialised gains.

The matrix of N queries by M keys grows with the square of the map. `plain`
stores it; `blockwise` and `fused` never do, forward or backward, so their
memory grows linearly.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sgde_jax.models import layers
from sgde_jax.ops import blockwise

IMPLEMENTATIONS = ('auto', 'plain', 'blockwise', 'fused')
# Limits of the fused kernel (cuDNN).
_FUSED_CAPABILITY = 8.0
_FUSED_WIDTH = 128


def pixel_attention(queries, keys, values, *, implementation='auto'):
  """Returns softmax(q k^T / sqrt(d)) v of every image and head.

  Scores, softmax and sums are float32 at least; products are as precise as
  `jax.default_matmul_precision` says, by default less than float32 on GPUs and
  TPUs.

  `auto` chooses at trace time: `plain` where N M <= 512^2, one tile of
  `blockwise`; else `fused` where the default backend is a CUDA GPU of compute
  capability 8.0 or newer, the values have 16 bits, as the kernel has, and the
  heads are at most 128 wide; else `blockwise`. The choice does not depend on
  the batch. A program exported for another platform than the one it is traced
  on should name its implementation.

  Args:
    queries: `[B, N, h, d]` float.
    keys: `[B, M, h, d]` float.
    values: `[B, M, h, e]` float.
    implementation: `auto`; `plain`, which stores the N x M matrix;
      `blockwise`, with an online softmax over blocks of keys, on any
      platform; or `fused`, cuDNN's kernel, on CUDA GPUs and always in
      bfloat16.

  Returns:
    `[B, N, h, e]` of the dtype of `values`.

  Raises:
    ValueError: if the shapes do not fit, the implementation does not exist,
      or `fused` is asked for where it cannot run.
  """
  _check_shapes(queries, keys, values)
  if implementation == 'auto':
    implementation = choose_implementation(queries, keys, values)
  if implementation == 'plain':
    return _plain(queries, keys, values)
  if implementation == 'blockwise':
    return blockwise.attend(queries, keys, values)
  if implementation == 'fused':
    return _fused(queries, keys, values)
  raise ValueError(
    f'implementation is {implementation!r}: use one of {IMPLEMENTATIONS}'
  )


def choose_implementation(queries, keys, values):
  """Returns the implementation that `auto` stands for with these arrays."""
  if queries.shape[1] * keys.shape[1] <= blockwise.BLOCK**2:
    return 'plain'
  narrow = max(keys.shape[-1], values.shape[-1]) <= _FUSED_WIDTH
  short = values.dtype.itemsize == 2
  return 'fused' if short and narrow and _has_fused_kernel() else 'blockwise'


def _check_shapes(queries, keys, values):
  """Refuses arrays whose shapes do not fit each other."""
  shapes = (queries.shape, keys.shape, values.shape)
  fits = (
    all(len(shape) == 4 for shape in shapes)
    and queries.shape[0] == keys.shape[0]
    and queries.shape[2:] == keys.shape[2:]
    and keys.shape[:3] == values.shape[:3]
  )
  if not fits:
    raise ValueError(
      f'queries, keys and values have shapes {shapes}: expected [B, N, h, d],'
      ' [B, M, h, d] and [B, M, h, e]'
    )


def _has_fused_kernel():
  """Whether the default backend is a GPU that cuDNN's attention runs on."""
  if jax.default_backend() != 'gpu':
    return False
  # An architecture's name instead of a number, as on AMD, is not CUDA.
  device = jax.local_devices()[0]
  capability = str(getattr(device, 'compute_capability', ''))
  number = capability.replace('.', '', 1).isdigit()
  return number and float(capability) >= _FUSED_CAPABILITY


def _plain(queries, keys, values):
  """Attention with the whole matrix stored."""
  scale = 1 / math.sqrt(keys.shape[-1])
  scores = blockwise.dot('bnhd,bmhd->bhnm', queries * scale, keys)
  weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  mixed = blockwise.dot('bhnm,bmhe->bnhe', weights, values)
  return mixed.astype(values.dtype)


def _fused(queries, keys, values):
  """Attention by cuDNN; heads padded to one width that it takes."""
  if not _has_fused_kernel():
    raise ValueError(
      "implementation 'fused' needs a CUDA GPU of compute capability"
      f' {_FUSED_CAPABILITY} or newer, this is {jax.devices()[0]}: use'
      " 'auto' or 'blockwise'"
    )
  widest = max(keys.shape[-1], values.shape[-1])
  if widest > _FUSED_WIDTH:
    raise ValueError(
      f"implementation 'fused' takes heads up to {_FUSED_WIDTH} wide, here"
      f' {widest}: use more heads or a smaller width'
    )
  width = -(-widest // 8) * 8  # The kernel wants a multiple of 8.

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


class SemanticGuidedAttention(nn.Module):
  """Re-weights depth and semantic features by one semantic affinity.

  D' = D + g_D conv(A v(D)) and S' = S + g_S conv(A v(S)) with the affinity
  A = softmax(q(S) k(S)^T / sqrt(d)) per head; all convolutions are 1 x 1. The
  gains g are per channel and start at zero: a fresh module is the identity.
  They are `gain_rate` times their parameters. Adam moves a parameter by about
  the learning rate at a step, whatever its gradient's size: at a rate of 1
  gains stay near zero for thousands of steps.

  Attributes:
    heads: number of heads.
    width: channels of the queries, the keys and each branch's values, over
      all heads; a multiple of `heads`.
    key_stride: keys and values are averaged over windows of this size first
      (those at the bottom and right border may be smaller); 1 for none.
      Queries are never pooled.
    gain_rate: how many learning rates the gains learn with.
    implementation: see `pixel_attention`.
    dtype: dtype of the computation; parameters are float32.
  """

  heads: int = 4
  width: int = 64
  key_stride: int = 1
  gain_rate: float = 1.0
  implementation: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    """Creates the projections and the gains' places."""
    if self.heads < 1 or self.width % self.heads or self.key_stride < 1:
      raise ValueError(
        f'attention has heads = {self.heads}, width = {self.width} and'
        f' key_stride = {self.key_stride}: width must be a multiple of heads,'
        ' key_stride at least 1'
      )
    self.query = self._project()
    self.key = self._project()
    self.depth_value = self._project()
    self.semantic_value = self._project()
    self.depth_update = GainedConv(self.gain_rate, self.dtype)
    self.semantic_update = GainedConv(self.gain_rate, self.dtype)

  def __call__(self, depth_features, semantic_features):
    """Enhances the features of one decoder level.

    Args:
      depth_features: `[B, H, W, C]` float, or None: the affinity, and so the
        semantic features, do not depend on them.
      semantic_features: `[B, H, W, C]` float.

    Returns:
      The enhanced depth features and semantic features, each `[B, H, W, C]`;
      None for what is not given.

    Raises:
      ValueError: if the shapes differ or are not rank 4, or the attributes do
        not fit each other.
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
    shapes = [features.shape for features, _, _ in branches]
    if len(shape) != 4 or any(other != shape for other in shapes):
      raise ValueError(
        f'the features of depth and semantics have shapes {shapes}: expected'
        ' one shape [B, H, W, C]'
      )
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

  def affinity(self, semantic_features, points):
    """Returns what a few pixels attend to, for pictures.

    Args:
      semantic_features: `[B, H, W, C]` float.
      points: `[B, P, 2]` int, (x, y) of the query pixels.

    Returns:
      `[B, P, h, w]` float32, the affinity averaged over the heads on the
      pooled grid; each map sums to 1.
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
    return x.reshape(x.shape[0], -1, self.heads, self.width // self.heads)


class GainedConv(nn.Module):
  """Adds a 1 x 1 convolution with a gain per channel that starts at zero."""

  rate: float = 1.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features, update):
    """Adds the update `[B, H, W, D]` to the features `[B, H, W, C]`."""
    channels = features.shape[-1]
    gain = self.param('gain', nn.initializers.zeros, (channels,), jnp.float32)
    project = layers.Conv(channels, size=1, dtype=self.dtype, name='project')
    gain = (self.rate * gain).astype(self.dtype)
    update = gain[None, None, None] * project(update)
    return features + update.astype(features.dtype)


def average_pool(x, stride):
  """Averages `[B, H, W, C]` over windows of `stride` x `stride` pixels.

  Windows that reach over the bottom or right border average what they hold.
  Written as a sum over a reshaped map: on the CPU its gradient is far faster
  than that of a pooling window.

  Returns:
    `[B, ceil(H / stride), ceil(W / stride), C]` of the dtype of `x`.
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
