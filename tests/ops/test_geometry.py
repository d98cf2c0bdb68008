"""Cameras and rigid motion: the stated conventions, numerically."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.linalg

from sgde_jax.ops import geometry
from tests.support import golden

HEIGHT, WIDTH = 6, 9
INTRINSICS = np.array(
  [
    [[7.0, 0.0, 4.2], [0.0, 6.0, 2.3], [0.0, 0.0, 1.0]],
    [[8.0, 0.5, 3.9], [0.0, 9.0, 2.6], [0.0, 0.0, 1.0]],  # Skewed.
  ]
)
# Axis-angle vectors on both sides of every branch, the last near a half turn.
VECTORS = np.array(
  [
    [0.0, 0.0, 0.0],
    [3e-5, -4e-5, 0.0],
    [9.99e-5, 0.0, 0.0],
    [0.0, 1.01e-4, 0.0],
    [3e-4, 2e-4, -1e-4],
    [1e-3, -2e-3, 3e-3],
    [0.3, -0.2, 0.5],
    [1.7, 2.0, -1.5],
  ]
)
TRANSLATIONS = np.linspace(-1.0, 2.0, VECTORS.size).reshape(-1, 3)

to_matrix = jax.jit(geometry.pose_vector_to_matrix, static_argnames='invert')
project_to_source = jax.jit(geometry.project_to_source)
flip_intrinsics = jax.jit(geometry.flip_intrinsics, static_argnums=1)


def _pixel_grid():
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  return np.stack([x, y], axis=-1).astype(float)


def _backproject(depth, intrinsics):
  grid = np.concatenate([_pixel_grid(), np.ones((HEIGHT, WIDTH, 1))], axis=-1)
  rays = np.einsum('bij,hwj->bhwi', np.linalg.inv(intrinsics), grid)
  return rays * depth


def _depth():
  return np.random.default_rng(0).uniform(1, 20, (2, HEIGHT, WIDTH, 1))


def _skew(vector):
  x, y, z = vector
  return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], float)


def test_quarter_turn_about_y_maps_forward_to_right():
  turn = to_matrix(jnp.array([[0.0, np.pi / 2, 0.0]]), jnp.zeros((1, 3)))
  forward_right_down = np.array([[0, 0, 2, 1], [2, 0, 0, 1], [0, 2, 0, 1.0]])
  np.testing.assert_allclose(
    forward_right_down @ np.asarray(turn[0]).T,
    [[2, 0, 0, 1], [0, 0, -2, 1], [0, 2, 0, 1]],
    atol=1e-6,
  )


def test_rotation_comes_before_translation():
  axis_angle, translation = jnp.array([[0.2, 0.5, -0.3]]), jnp.eye(3)[:1]
  rotation = to_matrix(axis_angle, jnp.zeros((1, 3)))
  shift = to_matrix(jnp.zeros((1, 3)), translation)
  both = to_matrix(axis_angle, translation)
  np.testing.assert_allclose(both, shift @ rotation, atol=1e-6)
  assert np.abs(both - rotation @ shift).max() > 0.1


def test_invert_returns_the_matrix_inverse():
  forward = to_matrix(VECTORS, TRANSLATIONS)
  backward = to_matrix(VECTORS, TRANSLATIONS, invert=True)
  np.testing.assert_allclose(backward, np.linalg.inv(forward), atol=1e-5)


@pytest.mark.parametrize(
  ('dtype', 'tolerance'), [('float64', 1e-7), ('float32', 1e-4)]
)
def test_rotation_and_jacobian_match_the_exponential(dtype, tolerance):
  def rotate(vector):
    return geometry.pose_vector_to_matrix(
      vector[None], jnp.zeros_like(vector)[None]
    )[0, :3, :3]

  with golden.precision(dtype):
    vectors = jnp.asarray(VECTORS, dtype)
    rotations = jax.jit(jax.vmap(rotate))(vectors)
    jacobians = np.asarray(jax.jit(jax.vmap(jax.jacfwd(rotate)))(vectors))
  for vector, rotation, jacobian in zip(
    VECTORS, rotations, jacobians, strict=True
  ):
    np.testing.assert_allclose(
      rotation, scipy.linalg.expm(_skew(vector)), atol=1e-6
    )
    # The published axis v / (|v| + 1e-7) costs that share of the slope,
    # except below the threshold of the series.
    length = np.linalg.norm(vector)
    guard = 0 if length < 1e-4 else 3e-7 / length
    for k, unit in enumerate(np.eye(3)):
      slope = scipy.linalg.expm_frechet(
        _skew(vector), _skew(unit), compute_expm=False
      )
      np.testing.assert_allclose(
        jacobian[..., k], slope, rtol=0, atol=tolerance + guard
      )


def test_jacobian_at_zero_consists_of_the_generators():
  jacobian = jax.jacrev(geometry.pose_vector_to_matrix, argnums=(0, 1))
  for_rotation, for_translation = jax.jit(jacobian)(
    jnp.zeros((1, 3)), jnp.zeros((1, 3))
  )
  for k, unit in enumerate(np.eye(3)):
    generator = np.zeros((4, 4))
    generator[:3, :3] = _skew(unit)
    np.testing.assert_array_equal(for_rotation[0, :, :, 0, k], generator)
    generator = np.zeros((4, 4))
    generator[k, 3] = 1
    np.testing.assert_array_equal(for_translation[0, :, :, 0, k], generator)


def test_disparity_to_depth_spans_the_range_and_decreases():
  disparity = jnp.linspace(0, 1, 101)
  depth = geometry.disparity_to_depth(disparity, min_depth=0.5, max_depth=40.0)
  np.testing.assert_allclose([depth[0], depth[-1]], [40, 0.5], rtol=1e-5)
  assert np.all(np.diff(depth) < 0)
  np.testing.assert_allclose(
    geometry.disparity_to_depth(jnp.array([0.0, 0.1, 1.0])),
    [100, 1 / 1.009, 0.1],
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    geometry.disparity_to_inverse_depth(
      disparity, min_depth=0.5, max_depth=40.0
    ),
    1 / geometry.disparity_to_depth(disparity, min_depth=0.5, max_depth=40.0),
    rtol=1e-5,
  )


def test_inverse_intrinsics_inverts_skewed_cameras():
  np.testing.assert_allclose(
    geometry.inverse_intrinsics(jnp.asarray(INTRINSICS)),
    np.linalg.inv(INTRINSICS),
    atol=1e-6,
  )


def test_projection_agrees_with_moving_the_points():
  depth = _depth()
  transform = np.asarray(to_matrix(VECTORS[-2:] / 10, TRANSLATIONS[:2] / 2))
  points = _backproject(depth, INTRINSICS)
  moved = np.einsum('bij,bhwj->bhwi', transform[:, :3, :3], points)
  moved += transform[:, None, None, :3, 3]
  image = np.einsum('bij,bhwj->bhwi', INTRINSICS, moved)
  pixels = project_to_source(depth, INTRINSICS, transform)
  np.testing.assert_allclose(pixels, image[..., :2] / image[..., 2:], atol=1e-4)


def test_without_motion_pixels_project_to_themselves():
  identity = jnp.broadcast_to(jnp.eye(4), (2, 4, 4))
  pixels = project_to_source(_depth(), INTRINSICS, identity)
  expected = np.broadcast_to(_pixel_grid(), pixels.shape)
  np.testing.assert_allclose(pixels, expected, atol=1e-5)


def test_sideways_motion_shifts_by_focal_length_over_depth():
  depth = _depth()
  shift = np.array([[0.5, 0.0, 0.0], [0.0, -0.3, 0.0]])
  transform = to_matrix(jnp.zeros((2, 3)), shift)
  pixels = project_to_source(depth, INTRINSICS, transform)
  moved, depth = np.asarray(pixels) - _pixel_grid(), depth[..., 0]
  np.testing.assert_allclose(moved[0, ..., 0], 3.5 / depth[0], atol=1e-4)
  np.testing.assert_allclose(moved[0, ..., 1], 0, atol=1e-5)
  np.testing.assert_allclose(moved[1, ..., 1], -2.7 / depth[1], atol=1e-4)


def test_driving_forward_moves_pixels_outwards():
  ahead = to_matrix(
    jnp.zeros((2, 3)), jnp.array([[0.0, 0.0, -0.5]] * 2)
  )  # What was 5 m ahead is 4.5 m ahead of the later camera.
  pixels = project_to_source(
    np.full((2, HEIGHT, WIDTH, 1), 5.0), INTRINSICS, ahead
  )
  centre = INTRINSICS[:, None, None, :2, 2]
  np.testing.assert_allclose(
    pixels - centre,
    np.broadcast_to((_pixel_grid() - centre) / 0.9, pixels.shape),
    atol=1e-4,
  )


def test_points_behind_or_at_the_camera_are_finite():
  # Points far behind, just behind, on and before the source's plane z = 0;
  # the last ones lie where the guard 1e-7 itself makes z vanish.
  forward = jnp.array([-30.0, -5.0, -5.0 + 1e-6, 0.0, -2e-7])
  depth = jnp.full((5, HEIGHT, WIDTH, 1), 5.0).at[-1].set(1e-7)
  translation = jnp.stack([jnp.full(5, 0.1), jnp.zeros(5), forward], axis=-1)
  intrinsics = jnp.broadcast_to(jnp.asarray(INTRINSICS[1]), (5, 3, 3))

  @jax.jit
  def project(depth, axis_angle, translation):
    transform = geometry.pose_vector_to_matrix(axis_angle, translation)
    return geometry.project_to_source(depth, intrinsics, transform)

  pixels, pull = jax.vjp(project, depth, jnp.zeros((5, 3)), translation)
  assert np.all(np.isfinite(pixels))
  for gradient in pull(jnp.ones_like(pixels)):
    assert np.all(np.isfinite(gradient))


def test_flipped_camera_sees_the_mirrored_world():
  flipped = flip_intrinsics(INTRINSICS, WIDTH)
  points = np.random.default_rng(1).uniform((-2, -1, 3), (2, 1, 9), (2, 5, 3))
  image = points @ INTRINSICS.swapaxes(1, 2)
  mirrored = (points * (-1, 1, 1)) @ np.asarray(flipped).swapaxes(1, 2)
  np.testing.assert_allclose(
    mirrored[..., 0] / mirrored[..., 2],
    WIDTH - 1 - image[..., 0] / image[..., 2],
    atol=1e-5,
  )
  np.testing.assert_allclose(mirrored[..., 1:], image[..., 1:], rtol=1e-6)
  np.testing.assert_allclose(
    flip_intrinsics(flipped, WIDTH), INTRINSICS, atol=1e-6
  )


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_dtype_is_kept(dtype):
  def everything(depth, intrinsics, vector):
    forward = geometry.pose_vector_to_matrix(vector, vector)
    backward = geometry.pose_vector_to_matrix(vector, vector, invert=True)
    return (
      forward,
      backward,
      geometry.project_to_source(depth, intrinsics, forward),
      geometry.flip_intrinsics(intrinsics, WIDTH),
      geometry.disparity_to_depth(depth),
    )

  with golden.precision('float64'):
    shapes = [(2, HEIGHT, WIDTH, 1), (2, 3, 3), (2, 3)]
    outputs = jax.eval_shape(
      everything, *[jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    )
  assert [output.dtype for output in outputs] == [dtype] * 5


def test_wrong_shapes_raise():
  depth, identity = jnp.ones((2, HEIGHT, WIDTH, 1)), jnp.zeros((2, 4, 4))
  intrinsics = jnp.asarray(INTRINSICS)
  for function, *arguments in (
    (geometry.pose_vector_to_matrix, jnp.zeros((1, 4)), jnp.zeros((1, 3))),
    (geometry.project_to_source, depth[..., 0], intrinsics, identity),
    (geometry.project_to_source, depth, identity, identity),
    (geometry.project_to_source, depth, intrinsics, intrinsics),
  ):
    with pytest.raises(jaxtyping.TypeCheckError, match='parameters'):
      function(*arguments)
