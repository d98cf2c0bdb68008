"""Attention by blocks, whose memory grows linearly with the map.

Queries and keys are cut into blocks; a tile of the matrix lives only while it
is worked on. Forward, the softmax over all keys is found online, block by
block (Milakov and Gimelshein, arXiv 1805.02867; Rabe and Staats, arXiv
2112.05682); backward, each tile is computed again from its rows' sums (Dao et
al., arXiv 2205.14135).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyFloat = Float[Array, '...']
# Queries and keys per block: a tile is 1 MiB per image and head in float32.
BLOCK = 512
_LANES = 32


def dot(spec: str, left: AnyFloat, right: AnyFloat) -> AnyFloat:
  """An einsum that sums in float32 (float64 for float64 operands)."""
  dtype = jnp.promote_types(left.dtype, jnp.float32)
  return jnp.einsum(spec, left, right, preferred_element_type=dtype)


def attend(
  queries: Float[Array, 'B N h d'],
  keys: Float[Array, 'B M h d'],
  values: Float[Array, 'B M h e'],
) -> Float[Array, 'B N h e']:
  """Returns softmax(q k^T / sqrt(d)) v of every image and head."""
  attend_heads = jax.vmap(_attend, in_axes=1, out_axes=1)
  scaled = queries / math.sqrt(keys.shape[-1])
  return jax.vmap(attend_heads)(scaled, keys, values)


@jax.custom_vjp
def _attend(queries, keys, values):
  """Returns softmax(q k^T) v of one head: `[N, d]`, `[M, d]`, `[M, e]`."""
  return _attend_forward(queries, keys, values)[0]


def _attend_forward(queries, keys, values):
  """Returns the result `[N, e]` and the residuals of the backward pass."""
  blocks = _split(keys), _split(values), _padding_scores(keys)
  sums = jnp.promote_types(values.dtype, jnp.float32)

  def attend_rows(rows):
    def attend_block(carry, block):
      maximum, total, mixed = carry
      block_keys, block_values, padding = block
      scores = dot('nd,md->nm', rows, block_keys) + padding[None]
      new_maximum = jnp.maximum(maximum, _row_maximum(scores))
      weights = jnp.exp(scores - new_maximum[:, None])
      decay = jnp.exp(maximum - new_maximum)
      total = total * decay + jnp.sum(weights, axis=-1)
      update = dot('nm,me->ne', weights.astype(values.dtype), block_values)
      return (new_maximum, total, mixed * decay[:, None] + update), None

    count = rows.shape[0]
    start = (
      jnp.full(count, -jnp.inf, sums),
      jnp.zeros(count, sums),
      jnp.zeros((count, values.shape[-1]), sums),
    )
    (maximum, total, mixed), _ = jax.lax.scan(attend_block, start, blocks)
    mixed = mixed / total[:, None]
    return mixed.astype(values.dtype), maximum + jnp.log(total)

  mixed, log_total = jax.lax.map(attend_rows, _split(queries))
  mixed = _merge(mixed, queries.shape[0])
  log_total = _merge(log_total, queries.shape[0])
  return mixed, (queries, keys, values, mixed, log_total)


def _attend_backward(residuals, gradient):
  """Recomputes the weights of each tile from the rows' sums.

  Tiles are keys by queries here: two of the three products that reduce a tile
  then need no transpose.
  """
  queries, keys, values, mixed, log_total = residuals
  sums = jnp.promote_types(values.dtype, jnp.float32)
  product = gradient.astype(sums) * mixed.astype(sums)
  rows = (queries, gradient, log_total, jnp.sum(product, axis=-1))
  blocks = _split(keys), _split(values), _padding_scores(keys)

  def pull_rows(carry, row):
    row_queries, row_gradient, row_log_total, row_product = row

    def pull_block(query_gradient, block):
      block_keys, block_values, padding = block
      scores = dot('md,nd->mn', block_keys, row_queries)
      scores += padding[:, None]
      weights = jnp.exp(scores - row_log_total[None])
      value_gradient = dot(
        'mn,ne->me', weights.astype(values.dtype), row_gradient
      )
      pulled = dot('me,ne->mn', block_values, row_gradient)
      pulled = weights * (pulled - row_product[None])
      pulled = pulled.astype(keys.dtype)
      key_gradient = dot('mn,nd->md', pulled, row_queries)
      query_gradient += dot('mn,md->nd', pulled, block_keys)
      return query_gradient, (key_gradient, value_gradient)

    start = jnp.zeros(row_queries.shape, sums)
    query_gradient, update = jax.lax.scan(pull_block, start, blocks)
    return jax.tree.map(jnp.add, carry, update), query_gradient

  start = tuple(jnp.zeros(block.shape, sums) for block in blocks[:2])
  (key_gradient, value_gradient), query_gradient = jax.lax.scan(
    pull_rows, start, tuple(_split(array) for array in rows)
  )
  return (
    _merge(query_gradient, queries.shape[0]).astype(queries.dtype),
    _merge(key_gradient, keys.shape[0]).astype(keys.dtype),
    _merge(value_gradient, keys.shape[0]).astype(values.dtype),
  )


def _row_maximum(scores):
  """Returns the maximum `[n]` of each row of `[n, m]`.

  Columns far from each other are compared first, `_LANES` at a time, some of
  them twice: XLA on CPUs compares neighbours one by one.
  """
  count = scores.shape[-1]
  lanes = min(_LANES, count)
  parts = [
    jax.lax.slice_in_dim(scores, start, start + lanes, axis=-1)
    for start in (*range(0, count - lanes, lanes), count - lanes)
  ]
  return jnp.max(functools.reduce(jnp.maximum, parts), axis=-1)


_attend.defvjp(_attend_forward, _attend_backward)


def _block_shape(count):
  """Returns number and size of the near-equal blocks of `count` rows."""
  number = -(-count // BLOCK)
  return number, -(-count // number)


def _split(array):
  """Cuts `[N, ...]` into blocks `[n, block, ...]`, padded with zeros."""
  number, size = _block_shape(array.shape[0])
  edges = [(0, number * size - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
  return jnp.pad(array, edges).reshape(number, size, *array.shape[1:])


def _merge(blocks, count):
  """Undoes `_split`."""
  return blocks.reshape(-1, *blocks.shape[2:])[:count]


def _padding_scores(keys):
  """Returns `[n, block]` to add to scores: -inf for the keys `_split` adds."""
  number, size = _block_shape(keys.shape[0])
  real = np.arange(number * size) < keys.shape[0]
  dtype = jnp.promote_types(keys.dtype, jnp.float32)
  return jnp.asarray(np.where(real, 0, -np.inf), dtype).reshape(number, size)
