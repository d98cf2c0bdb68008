"""Bilinear sampling at points and view synthesis."""

import chex
import jax
import jax.numpy as jnp

from sgde_jax.ops import geometry


def sample_bilinear(image, pixels):
  """Samples an image at real-valued pixels, clamping to its border.

  The gathers run per example under `vmap`, so that a batch sharded over
  devices is never gathered onto one of them.

  Args:
    image: `[B, H, W, C]` float; sample (x, y) = (0, 0) is the centre of its
      first pixel, (W - 1, H - 1) that of its last.
    pixels: `[B, ..., 2]` float, (x, y). Outside the image the nearest border
      pixel is returned and the gradient to the coordinate is 0.

  Returns:
    `[B, ..., C]` samples of the image's dtype.

  Raises:
    AssertionError: if the image is not rank 4 or pixels do not end in 2.
  """
  chex.assert_rank(image, 4)
  chex.assert_axis_dimension(pixels, -1, 2)
  return jax.vmap(
    lambda image, pixels: _sample(
      image, pixels[..., 0], pixels[..., 1], channel_axis=-1
    )
  )(image, pixels)


def gather_points(maps, points):
  """Reads maps at whole pixels.

  Args:
    maps: `[B, H, W, C]`.
    points: `[B, ..., 2]` int, (x, y) of 0 or more; beyond the map the last
      row or column is read.

  Returns:
    `[B, ..., C]` of the dtype of `maps`.
  """

  def gather(pixels, points):
    return pixels.at[points[..., 1], points[..., 0]].get(mode='clip')

  return jax.vmap(gather)(maps, points)


def synthesize_view(source, depth, intrinsics, transform):
  """Rebuilds the target frame from a source frame, depth and motion.

  Args:
    source: `[B, H, W, 3]` float, the neighbouring frame.
    depth: `[B, H, W, 1]` float, the target's camera z in metres.
    intrinsics: `[B, 3, 3]` float, pixels of the H x W image.
    transform: `[B, 4, 4]` float, T_source_target.

  Returns:
    `[B, H, W, 3]`, the source's colours where the target's pixels see them.
  """
  return sample_bilinear(
    source, geometry.project_to_source(depth, intrinsics, transform)
  )


def synthesize_planes(source, depth, intrinsics, transform):
  """`synthesize_view` of planes: `[B, C, H, W]` and depth `[B, H, W]`."""
  x, y = geometry.project_planes(depth, intrinsics, transform)
  return sample_planes(source, x, y)


def sample_planes(planes, x, y):
  """`sample_bilinear` of planes `[B, C, H, W]` at x and y `[B, ...]`.

  Returns:
    `[B, C, ...]`.
  """
  return jax.vmap(lambda image, x, y: _sample(image, x, y, channel_axis=0))(
    planes, x, y
  )


def resize_bilinear(maps, height, width):
  """Resizes `[B, h, w, C]` maps, half-pixel convention, no antialiasing."""
  batch, _, _, channels = maps.shape
  return jax.image.resize(
    maps, (batch, height, width, channels), 'bilinear', antialias=False
  )


def _sample(image, x, y, *, channel_axis):
  """Samples one image, channels first or last, at coordinates `[...]`."""
  height, width = image.shape[1:] if channel_axis == 0 else image.shape[:2]
  x, y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
  left, top = jnp.floor(x), jnp.floor(y)
  right_weight = (x - left).astype(image.dtype)
  bottom_weight = (y - top).astype(image.dtype)
  # Clipping the integers too keeps a NaN coordinate from reading elsewhere.
  x0 = jnp.clip(left.astype(jnp.int32), 0, width - 1)
  y0 = jnp.clip(top.astype(jnp.int32), 0, height - 1)
  x1 = jnp.minimum(x0 + 1, width - 1)
  y1 = jnp.minimum(y0 + 1, height - 1)
  if channel_axis == 0:
    flat = image.reshape(-1, height * width)
    right_weight, bottom_weight = right_weight[None], bottom_weight[None]
  else:
    flat = image.reshape(height * width, -1)
    right_weight = right_weight[..., None]
    bottom_weight = bottom_weight[..., None]

  def corner(rows, columns):
    index = rows * width + columns
    return jnp.take(
      flat, index, axis=1 if channel_axis == 0 else 0, mode='clip'
    )

  upper = _lerp(corner(y0, x0), corner(y0, x1), right_weight)
  lower = _lerp(corner(y1, x0), corner(y1, x1), right_weight)
  return _lerp(upper, lower, bottom_weight)


def _lerp(start, end, weight):
  return start + (end - start) * weight
