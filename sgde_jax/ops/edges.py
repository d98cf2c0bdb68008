"""Semantic edges and the points that lie on them.

The paper (Li et al., arXiv 2012.08048) states that point features are taken
at semantic edges. What an edge pixel is, how wide an edge is and how points
are drawn from it are our reconstruction.

Points are (x, y) pixels, x to the right, y down, (0, 0) the first pixel. All
functions treat each image by itself, so that a batch sharded over devices is
never gathered onto one of them.
"""

import jax
import jax.numpy as jnp

from input_pipeline import cityscapes


def semantic_edges(labels, *, width=1):
  """Marks the pixels at borders between classes.

  A pixel is on an edge if a 4-neighbour has another class; each further unit
  of width dilates once by 4-neighbours. 255 (unlabelled) neither is nor makes
  an edge: edges do not grow onto it, hence not across it.

  Args:
    labels: `[B, H, W]` integer train ids, 255 = unlabelled.
    width: pixels on each side of the border, at least 1.

  Returns:
    `[B, H, W]` bool.

  Raises:
    ValueError: if labels are not rank 3 or the width is below 1.
  """
  if labels.ndim != 3:
    raise ValueError(f'labels have shape {labels.shape}: expected [B, H, W]')
  if width < 1:
    raise ValueError(f'width is {width}: the width of an edge is at least 1')
  labelled = labels != cityscapes.UNLABELLED
  edges = jnp.zeros(labels.shape, bool)
  for axis in (1, 2):
    before, after = _halves(labels, axis)
    both = jnp.logical_and(*_halves(labelled, axis))
    edges |= _spread((before != after) & both, axis)
  # A loop, because fused into one expression each round repeats the last.
  return jax.lax.fori_loop(
    0, width - 1, lambda _, edges: _dilate(edges) & labelled, edges
  )


def sample_edge_points(key, edges, count):
  """Draws edge pixels at random, without replacement.

  Every set of min(count, edge pixels) edge pixels is equally likely, up to
  ties of 31-bit random numbers. Where an image has fewer edge pixels than
  `count`, all of them are drawn and the rest is masked.

  Each pixel gets a random number; the K-th smallest among the edge pixels is
  found by bisection and the pixels up to it are taken. On a CPU that is about
  a hundred times faster than to sort the numbers.

  Args:
    key: a JAX random key.
    edges: `[B, H, W]` bool.
    count: number K of points per image.

  Returns:
    points `[B, K, 2]` int32, (x, y), in raster order, the valid ones distinct
    and the masked ones some pixel of the image; and mask `[B, K]` bool, the
    valid ones first.
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


def ordered_edge_points(edges, start, count):
  """Returns a chunk of the edge pixels in raster order.

  Chunks from 0 in strides of `count` hold every edge pixel once. The start
  may be traced, so that a `jax.lax.while_loop` can walk through them.

  Args:
    edges: `[B, H, W]` bool.
    start: number of edge pixels to skip in each image, a scalar integer.
    count: number K of points per image.

  Returns:
    points `[B, K, 2]` int32, (x, y); and mask `[B, K]` bool, False beyond the
    image's last edge pixel, where the point is some pixel of the image.
  """
  batch, height, width = edges.shape
  ranks = jnp.cumsum(edges.reshape(batch, -1), axis=1, dtype=jnp.int32)
  wanted = start + 1 + jnp.arange(count, dtype=jnp.int32)
  find = jax.vmap(lambda ranks: jnp.searchsorted(ranks, wanted))
  pixels = jnp.minimum(find(ranks), height * width - 1).astype(jnp.int32)
  return _to_points(pixels, width), wanted[None] <= ranks[:, -1:]


def from_inside(maps, labels, edges, *, rounds):
  """Carries values into edge pixels from the inside of their own segments.

  In each round an edge pixel without a value takes the mean over those of its
  4-neighbours of its class that have one. Pixels off the edges keep theirs.

  Args:
    maps: `[B, H, W, 1]` float.
    labels: `[B, H, W]` integer train ids.
    edges: `[B, H, W]` bool.
    rounds: how often; an edge pixel that is farther from its inside gets none.

  Returns:
    `[B, H, W, 1]` of the dtype of `maps`, 0 where there is no value; and
    `[B, H, W]` bool, whether there is one.
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


def _to_points(pixels, width):
  """Turns raster indices `[B, K]` into points `[B, K, 2]`, (x, y)."""
  return jnp.stack([pixels % width, pixels // width], axis=-1)


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
