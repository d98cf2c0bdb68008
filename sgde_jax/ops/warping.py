"""Bilinear sampling at points and view synthesis."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from sgde_jax.ops import geometry


def sample_bilinear(
  image: Float[Array, 'B H W C'], pixels: Float[Array, 'B *points 2']
) -> Float[Array, 'B *points C']:
  """Samples an image at real-valued pixels (x, y), clamping to its border.

  (0, 0) is the centre of the first pixel, (W - 1, H - 1) that of the last.
  Outside the image the nearest border pixel is returned and the gradient to
  the coordinate is 0.
  """
  # Per example, so that a batch sharded over devices is never gathered.
  return jax.vmap(
    lambda image, pixels: _sample(
      image, pixels[..., 0], pixels[..., 1], channel_axis=-1
    )
  )(image, pixels)


def gather_points(
  maps: Shaped[Array, 'B H W C'], points: Int[Array, 'B *points 2']
) -> Shaped[Array, 'B *points C']:
  """Reads maps at whole pixels (x, y) of 0 or more.

  Points beyond the map read its last row or column.
  """

  def gather(pixels, points):
    return pixels.at[points[..., 1], points[..., 0]].get(mode='clip')

  return jax.vmap(gather)(maps, points)


def synthesize_view(
  source: Float[Array, 'B H W 3'],
  depth: Float[Array, 'B H W 1'],
  intrinsics: Float[Array, 'B 3 3'],
  transform: Float[Array, 'B 4 4'],
) -> Float[Array, 'B H W 3']:
  """Rebuilds the target frame from a source frame, depth and motion.

  Depth is the target's camera z, `transform` is T_source_target.
  """
  return sample_bilinear(
    source, geometry.project_to_source(depth, intrinsics, transform)
  )


def synthesize_planes(
  source: Float[Array, 'B C H W'],
  depth: Float[Array, 'B H W'],
  intrinsics: Float[Array, 'B 3 3'],
  transform: Float[Array, 'B 4 4'],
) -> Float[Array, 'B C H W']:
  """Like `synthesize_view`, channels first."""
  x, y = geometry.project_planes(depth, intrinsics, transform)
  return sample_planes(source, x, y)


def sample_planes(
  planes: Float[Array, 'B C H W'],
  x: Float[Array, ' B *points'],
  y: Float[Array, ' B *points'],
) -> Float[Array, 'B C *points']:
  """Like `sample_bilinear`, channels first, at x and y."""
  return jax.vmap(lambda image, x, y: _sample(image, x, y, channel_axis=0))(
    planes, x, y
  )


def resize_bilinear(
  maps: Float[Array, 'B h w C'], height: int, width: int
) -> Float[Array, 'B H W C']:
  """Resizes maps with the half-pixel convention, without antialiasing."""
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
