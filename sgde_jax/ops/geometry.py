"""Cameras and rigid motion: pose vectors, disparity, projection.

Conventions, here and everywhere: pixels are (x, y) with centres at integer
coordinates; the camera looks along +z with x to the right and y down; lengths
are metres (up to the unknown scale of monocular training), angles radians.
`T_source_target` maps points of the target camera into the source camera;
intrinsics are in pixels of the image at hand and shared by all frames of an
example; depth is the camera's z.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

Intrinsics = Float[Array, 'B 3 3']
Transform = Float[Array, 'B 4 4']

_SMALL_ANGLE = 1e-4  # Below it sin(a)/a is computed by its series.
_AXIS_EPS = 1e-7  # Monodepth2's guard in the axis v / (|v| + eps).
_DEPTH_EPS = 1e-7  # Monodepth2's guard against division by zero depth.


def pose_vector_to_matrix(
  axis_angle: Float[Array, 'B 3'],
  translation: Float[Array, 'B 3'],
  *,
  invert: bool = False,
) -> Transform:
  """Returns the rigid transform T R of a rotation vector and a translation.

  Rodrigues' formula, R = cos|v| I + sin|v| [a] + (1 - cos|v|) a a^T with the
  axis a = v / (|v| + 1e-7) as in Monodepth2; near zero rotation its series in
  v, so that the gradient there is the true one and finite.

  The translation is applied after the rotation. With `invert`, returns the
  inverse R^T T(-t), for a source frame that precedes the target (Monodepth2).
  """
  square = jnp.sum(axis_angle**2, axis=-1)[:, None, None]
  small = square < _SMALL_ANGLE**2
  angle = jnp.sqrt(jnp.where(small, 1.0, square))
  length = angle + _AXIS_EPS
  sine = jnp.where(small, 1 - square / 6, jnp.sin(angle) / length)
  versine = jnp.where(
    small, 0.5 - square / 24, (1 - jnp.cos(angle)) / length**2
  )
  cosine = jnp.where(small, 1 - square / 2, jnp.cos(angle))
  x, y, z = jnp.moveaxis(axis_angle, -1, 0)
  zero = jnp.zeros_like(x)
  skew = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
  outer = axis_angle[:, :, None] * axis_angle[:, None, :]
  identity = jnp.eye(3, dtype=square.dtype)[None]
  rotation = cosine * identity + sine * skew.reshape(-1, 3, 3) + versine * outer
  if invert:
    rotation = rotation.swapaxes(-1, -2)
    translation = -_matmul(rotation, translation[..., None])[..., 0]
  top = jnp.concatenate([rotation, translation[..., None]], axis=-1)
  bottom = jnp.zeros_like(top[:, :1]).at[..., 3].set(1)
  return jnp.concatenate([top, bottom], axis=-2)


def disparity_to_depth(
  disparity: Float[Array, '...'],
  *,
  min_depth: float = 0.1,
  max_depth: float = 100.0,
) -> Float[Array, '...']:
  """Maps the network's sigmoid disparity in (0, 1) to depth in metres.

  depth = 1 / (1/max + (1/min - 1/max) * disparity): `min_depth` at disparity
  1, `max_depth` at disparity 0.
  """
  return 1 / disparity_to_inverse_depth(
    disparity, min_depth=min_depth, max_depth=max_depth
  )


def disparity_to_inverse_depth(
  disparity: Float[Array, '...'], *, min_depth: float, max_depth: float
) -> Float[Array, '...']:
  """Maps the network's disparity in (0, 1) to inverse depth in 1/metres."""
  nearest, farthest = 1 / min_depth, 1 / max_depth
  return farthest + (nearest - farthest) * disparity


def inverse_intrinsics(intrinsics: Intrinsics) -> Intrinsics:
  """Inverts upper-triangular pinhole matrices in closed form."""
  fx, skew, cx = jnp.moveaxis(intrinsics[:, 0], -1, 0)
  fy, cy = intrinsics[:, 1, 1], intrinsics[:, 1, 2]
  zero, one = jnp.zeros_like(fx), jnp.ones_like(fx)
  rows = [
    jnp.stack([1 / fx, -skew / (fx * fy), (skew * cy - cx * fy) / (fx * fy)]),
    jnp.stack([zero, 1 / fy, -cy / fy]),
    jnp.stack([zero, zero, one]),
  ]
  return jnp.moveaxis(jnp.stack(rows), -1, 0)


def project_to_source(
  depth: Float[Array, 'B H W 1'], intrinsics: Intrinsics, transform: Transform
) -> Float[Array, 'B H W 2']:
  """Finds where each target pixel appears in a source frame.

  p_source ~ K T_source_target (depth K^-1 p_target), which for a fixed camera
  pair is depth * (K R K^-1 p) + K t: one homography per image and no 3-D
  points kept.

  Returns pixels (x, y), outside [0, W-1] x [0, H-1] where the point leaves the
  image. Points behind the camera project too (their z is negative); values and
  gradients are finite.
  """
  x, y = project_planes(depth[..., 0], intrinsics, transform)
  return jnp.stack([x, y], axis=-1)


def project_planes(
  depth: Float[Array, 'B H W'], intrinsics: Intrinsics, transform: Transform
) -> tuple[Float[Array, 'B H W'], Float[Array, 'B H W']]:
  """Like `project_to_source`, with x and y as two planes."""
  height, width = depth.shape[1:]
  x = jnp.arange(width, dtype=depth.dtype)[None, None]
  y = jnp.arange(height, dtype=depth.dtype)[None, :, None]
  return project_pixels(x, y, depth, intrinsics, transform)


def project_pixels(
  x: Float[Array, '...'],
  y: Float[Array, '...'],
  depth: Float[Array, ' B *points'],
  intrinsics: Intrinsics,
  transform: Transform,
) -> tuple[Float[Array, ' B *points'], Float[Array, ' B *points']]:
  """Like `project_to_source`, at any target pixels of given depth."""
  rotation, translation = transform[:, :3, :3], transform[:, :3, 3:]
  homography = _matmul(
    _matmul(intrinsics, rotation), inverse_intrinsics(intrinsics)
  )
  offset = _matmul(intrinsics, translation)[..., 0]
  x, y, z = (
    ray * depth + _expand(offset[:, i], depth.ndim)
    for i, ray in enumerate(_map_pixels(homography, x, y))
  )
  z = z + _DEPTH_EPS
  z = jnp.where(jnp.abs(z) < _DEPTH_EPS, _DEPTH_EPS, z)
  return x / z, y / z


def source_transforms(
  axis_angle: Float[Array, 'B S 3'],
  translation: Float[Array, 'B S 3'],
  frame_offsets: Sequence[int],
) -> Float[Array, 'B S 4 4']:
  """Returns T_source_target of the predicted motions.

  Each motion is from the earlier to the later frame of the pair;
  `frame_offsets` are relative to the target, which is first.
  """
  transforms = [
    pose_vector_to_matrix(
      axis_angle[:, i], translation[:, i], invert=offset < 0
    )
    for i, offset in enumerate(frame_offsets[1:])
  ]
  return jnp.stack(transforms, axis=1)


def flip_intrinsics(
  intrinsics: Float[Array, ' *batch 3 3'], width: int
) -> Float[Array, ' *batch 3 3']:
  """Mirrors intrinsics with the image: cx becomes W - 1 - cx.

  A skew changes its sign.
  """
  mirrored = intrinsics.at[..., 0, 1].multiply(-1)
  return mirrored.at[..., 0, 2].set(width - 1 - intrinsics[..., 0, 2])


def _matmul(a, b):
  """Multiplies small matrices at full precision on every accelerator."""
  return jnp.matmul(a, b, precision='highest')


def _map_pixels(matrix, x, y):
  """Maps pixels (x, y, 1) by `[B, 3, 3]`: three arrays `[B, ...]`."""
  matrix = _expand(matrix, x.ndim + 2)
  return [
    matrix[:, i, 0] * x + matrix[:, i, 1] * y + matrix[:, i, 2]
    for i in range(3)
  ]


def _expand(array, rank):
  """Appends axes up to `rank`."""
  return array.reshape(array.shape + (1,) * (rank - array.ndim))
