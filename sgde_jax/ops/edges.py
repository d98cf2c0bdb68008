"""Semantic edges and the points that lie on them.

The paper (Li et al., arXiv 2012.08048) states that point features are taken
at semantic edges. The definition of an edge pixel, the width of an edge and the
sampling of points are our reconstruction.

Points are (x, y) pixels, x to the right, y down, (0, 0) the first pixel. All
functions treat each image by itself, so that a batch sharded over devices is
never gathered onto one of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from input_pipeline import cityscapes

Points = tuple[Int[Array, 'B K 2'], Bool[Array, 'B K']]  # And their mask.


def semantic_edges(
  labels: Integer[Array, 'B H W'], *, width: int
) -> Bool[Array, 'B H W']:
  """Marks the pixels at borders between classes.

  A pixel is on an edge if a 4-neighbour has another class; each further unit
  of width dilates once by 4-neighbours. Unlabelled pixels (255) do not count as
  a class, and edges do not grow onto them, hence not across them.
  """
  labelled = labels != cityscapes.UNLABELLED
  edges = jnp.zeros(labels.shape, bool)
  for axis in (1, 2):
    before, after = _halves(labels, axis)
    both = jnp.logical_and(*_halves(labelled, axis))
    edges |= _spread((before != after) & both, axis)
  # A loop: fused into one expression, each round would recompute the last. It
  # carries both arrays, as converters to other formats need.
  edges, _ = jax.lax.fori_loop(
    0, width - 1, lambda _, x: (_dilate(x[0]) & x[1], x[1]), (edges, labelled)
  )
  return edges


def sample_edge_points(
  key: Key[Array, ''], edges: Bool[Array, 'B H W'], count: int
) -> Points:
  """Draws edge pixels at random, without replacement.

  Every set of min(K, edge pixels) edge pixels is equally likely, up to ties
  of 31-bit random numbers. Where an image has fewer than K edge pixels, all
  of them are drawn and the rest is masked.

  Each pixel gets a random number; the K-th smallest among the edge pixels is
  found by bisection and the pixels up to it are taken. On a CPU this is about
  a hundred times faster than sorting the numbers.

  Returns points (x, y) in raster order and their mask. Valid points come first
  and are distinct; masked ones are arbitrary pixels of the image.
  """
  bits = jax.random.bits(key, edges.shape, jnp.uint32) >> 1
  order = jnp.where(edges, bits, jnp.uint32(2**32 - 1))

  def halve(_, bounds):
    low, high = bounds
    middle = low + (high - low) // 2
    below = order <= middle[:, None, None]
    enough = jnp.sum(below, axis=(1, 2), dtype=jnp.int32) >= count
    return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

  low = jnp.zeros(edges.shape[0], jnp.uint32)
  high = jnp.full_like(low, 2**31 - 1)
  _, threshold = jax.lax.fori_loop(0, 31, halve, (low, high))
  return ordered_edge_points(order <= threshold[:, None, None], 0, count)


def ordered_edge_points(
  edges: Bool[Array, 'B H W'], start: Int[Array, ''] | int, count: int
) -> Points:
  """Returns a chunk of the edge pixels in raster order.

  Chunks from 0 in strides of `count` hold every edge pixel once. The start
  may be traced, so that a `jax.lax.while_loop` can walk through them.

  Returns points (x, y) and their mask, False beyond the image's last edge
  pixel, where the point is an arbitrary pixel of the image.
  """
  batch, height, width = edges.shape
  ranks = jnp.cumsum(edges.reshape(batch, -1), axis=1, dtype=jnp.int32)
  wanted = start + 1 + jnp.arange(count, dtype=jnp.int32)
  find = jax.vmap(lambda ranks: jnp.searchsorted(ranks, wanted))
  pixels = jnp.minimum(find(ranks), height * width - 1).astype(jnp.int32)
  points = jnp.stack([pixels % width, pixels // width], axis=-1)
  return points, wanted[None] <= ranks[:, -1:]


def from_inside(
  maps: Float[Array, 'B H W 1'],
  labels: Integer[Array, 'B H W'],
  edges: Bool[Array, 'B H W'],
  *,
  rounds: int,
) -> tuple[Float[Array, 'B H W 1'], Bool[Array, 'B H W']]:
  """Carries values into edge pixels from the inside of their own segments.

  In each round an edge pixel without a value takes the mean over those of its
  4-neighbours of its class that have one. Pixels off the edges keep theirs.

  Returns the values, 0 where there is none, and a mask of where there is one.
  Edge pixels farther than `rounds` from the inside have none.
  """

  def fill(_, carry):
    values, known = carry
    total = jnp.zeros_like(values)
    count = jnp.zeros_like(values)
    for axis in (1, 2):
      same = jnp.equal(*_halves(labels, axis))
      sides = zip(
        _halves(values, axis),
        _halves(known, axis),
        ((1, 0), (0, 1)),
        strict=True,
      )
      for value, there, place in sides:
        given = (same & there).astype(values.dtype)
        total += _pad(given * value, axis, *place)
        count += _pad(given, axis, *place)
    mean = total / jnp.maximum(count, 1)
    return jnp.where(known, values, mean), known | (count > 0)

  values = jnp.where(edges, 0, maps[..., 0])
  values, known = jax.lax.fori_loop(0, rounds, fill, (values, ~edges))
  return values[..., None], known


def _dilate(mask):
  """Adds the 4-neighbours of the marked pixels of `[B, H, W]`."""
  grown = mask
  for axis in (1, 2):
    before, after = _halves(mask, axis)
    grown |= _pad(before, axis, 1, 0) | _pad(after, axis, 0, 1)
  return grown


def _halves(maps, axis):
  """Returns the maps without their last and without their first line."""
  size = maps.shape[axis]
  return (
    jax.lax.slice_in_dim(maps, 0, size - 1, axis=axis),
    jax.lax.slice_in_dim(maps, 1, size, axis=axis),
  )


def _spread(between, axis):
  """Marks both sides of each marked border between two lines of pixels."""
  return _pad(between, axis, 0, 1) | _pad(between, axis, 1, 0)


def _pad(maps, axis, before, after):
  """Adds lines of pixels that are unmarked, or 0."""
  edges = [(0, 0)] * maps.ndim
  edges[axis] = (before, after)
  return jnp.pad(maps, edges)
