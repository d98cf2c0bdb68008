"""Bilinear sampling and view synthesis: values, borders and gradients."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from sgde_jax import parallel
from sgde_jax.ops import geometry, warping

HEIGHT, WIDTH = 4, 5

sample = jax.jit(warping.sample_bilinear)
slopes = jax.jit(
  jax.grad(lambda image, p: warping.sample_bilinear(image, p).sum(), argnums=1)
)
resize = jax.jit(warping.resize_bilinear, static_argnums=(1, 2))


def _image(batch=2, channels=3):
  shape = (batch, HEIGHT, WIDTH, channels)
  return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def _pixel_grid():
  y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
  return np.stack([x, y], axis=-1)


def _views(batch):
  """A source, depth, intrinsics and motion that move pixels by a few."""
  rng = np.random.default_rng(1)
  depth = rng.uniform(2, 9, (batch, HEIGHT, WIDTH, 1)).astype(np.float32)
  intrinsics = np.array([[4, 0, 2], [0, 5, 1.5], [0, 0, 1]], np.float32)
  transform = jax.jit(geometry.pose_vector_to_matrix)(
    rng.normal(0, 0.05, (batch, 3)).astype(np.float32),
    rng.normal(0, 0.3, (batch, 3)).astype(np.float32),
  )
  return (
    _image(batch),
    depth,
    np.broadcast_to(intrinsics, (batch, 3, 3)),
    transform,
  )


def test_integer_pixels_are_exact():
  image = _image()
  pixels = np.broadcast_to(_pixel_grid(), (2, HEIGHT, WIDTH, 2))
  np.testing.assert_array_equal(sample(image, pixels), image)


def test_weights_between_pixels_are_bilinear():
  image = _image()
  pixels = np.array([[[1.25, 2.5]], [[3.0, 0.75]]], np.float32)
  first = image[0, 2:4].mean(0)
  expected = [
    0.75 * first[1] + 0.25 * first[2],
    0.25 * image[1, 0, 3] + 0.75 * image[1, 1, 3],
  ]
  np.testing.assert_allclose(sample(image, pixels)[:, 0], expected, rtol=1e-6)


def test_plane_is_reproduced_everywhere():
  x, y = np.moveaxis(_pixel_grid(), -1, 0)
  image = (2 * x - 3 * y + 1)[None, :, :, None]
  points = np.random.default_rng(2).uniform((0, 0), (4, 3), (1, 40, 2))
  points = points.astype(np.float32)
  np.testing.assert_allclose(
    sample(image, points)[..., 0],
    2 * points[..., 0] - 3 * points[..., 1] + 1,
    atol=1e-5,
  )


def test_points_outside_get_the_border_pixel_and_no_gradient():
  image = _image(1)
  pixels = np.array(
    [[[-3.5, 1.0], [9.0, 2.0], [2.0, -0.5], [3.0, 7.0], [-1.0, 8.0],
      [1e30, -1e30], [np.inf, 1.0]]],
    np.float32,
  )  # fmt: skip
  expected = image[0, [1, 2, 0, 3, 3, 0, 1], [0, 4, 2, 3, 0, 4, 4]]
  np.testing.assert_array_equal(sample(image, pixels)[0], expected)
  gradient = slopes(image, pixels)
  outside = (pixels < 0) | (pixels > (WIDTH - 1, HEIGHT - 1))
  np.testing.assert_array_equal(np.asarray(gradient)[outside], 0)


def test_gradient_to_a_coordinate_is_the_slope():
  image = _image(1, channels=1)
  pixels = np.array([[[1.25, 2.5], [3.5, 0.25]]], np.float32)
  gradient = slopes(image, pixels)
  step = 0.125
  for axis in range(2):
    change = np.eye(2, dtype=np.float32)[axis] * step
    rise = sample(image, pixels + change) - sample(image, pixels - change)
    np.testing.assert_allclose(
      gradient[0, :, axis], rise[0, :, 0] / (2 * step), atol=1e-5
    )


def test_gradient_to_the_image_is_the_transpose_of_sampling():
  rng = np.random.default_rng(3)
  pixels = rng.uniform((-1, -1), (5, 4), (1, 12, 2)).astype(np.float32)
  count = HEIGHT * WIDTH
  # Sampling is linear: the image of each unit pixel is a column of its matrix.
  units = np.eye(count, dtype=np.float32).reshape(count, HEIGHT, WIDTH, 1)
  matrix = sample(units, np.broadcast_to(pixels, (count, 12, 2)))[..., 0].T
  pulled = rng.normal(size=(1, 12, 1)).astype(np.float32)
  _, pull = jax.vjp(lambda image: sample(image, pixels), _image(1, channels=1))
  np.testing.assert_allclose(
    pull(pulled)[0].reshape(count),
    np.asarray(matrix).T @ pulled[0, :, 0],
    atol=1e-5,
  )
  np.testing.assert_allclose(np.sum(matrix, axis=1), 1, rtol=1e-6)


def test_nan_coordinate_affects_only_its_point():
  image = _image(1)
  pixels = np.array([[[1.5, 0.5], [np.nan, 1.0], [2.0, np.nan]]], np.float32)
  values, pull = jax.vjp(lambda image: sample(image, pixels), image)
  expected = image[0, :2, 1:3].mean((0, 1))
  np.testing.assert_allclose(values[0, 0], expected, rtol=1e-6)
  gradient = np.asarray(pull(jnp.ones_like(values))[0])
  # A read out of bounds would be filled or wrapped to the far corner.
  assert np.isfinite(gradient[0, -1, -1]).all()
  assert np.isnan(gradient).sum() <= 2 * 4 * 3


@pytest.mark.parametrize('shape', [(7,), (3, 2), (2, 3, 4), ()])
def test_points_may_have_any_shape(shape):
  image = _image()
  points = np.random.default_rng(4).uniform(0, 3, (2, *shape, 2))
  points = points.astype(np.float32)
  values = sample(image, points)
  assert values.shape == (2, *shape, 3)
  flat = sample(image, points.reshape(2, -1, 2))
  np.testing.assert_array_equal(values.reshape(flat.shape), flat)


def test_dtype_is_that_of_the_image():
  points = jax.ShapeDtypeStruct((2, 7, 2), jnp.float32)
  for dtype in (jnp.bfloat16, jnp.float32):
    image = jax.ShapeDtypeStruct((2, HEIGHT, WIDTH, 3), dtype)
    values = jax.eval_shape(warping.sample_bilinear, image, points)
    assert values.dtype == dtype


def test_views_are_sampled_where_the_points_project():
  source, depth, intrinsics, transform = _views(2)
  view = jax.jit(warping.synthesize_view)(source, depth, intrinsics, transform)
  pixels = jax.jit(geometry.project_to_source)(depth, intrinsics, transform)
  np.testing.assert_allclose(view, sample(source, pixels), atol=1e-5)
  assert np.abs(view - source).max() > 0.1
  planes = jax.jit(warping.synthesize_planes)(
    source.transpose(0, 3, 1, 2), depth[..., 0], intrinsics, transform
  )
  np.testing.assert_allclose(planes.transpose(0, 2, 3, 1), view, atol=1e-5)


@pytest.mark.parametrize('stride', [2, 4])
def test_full_size_point_samples_a_coarse_map_at_half_pixels(stride):
  maps = _image()
  height, width = stride * HEIGHT, stride * WIDTH
  y, x = (np.mgrid[:height, :width] + 0.5) / stride - 0.5
  points = np.stack([x, y], axis=-1).astype(np.float32)
  np.testing.assert_allclose(
    resize(maps, height, width),
    sample(maps, np.broadcast_to(points, (2, height, width, 2))),
    atol=1e-6,
  )


def test_wrong_shapes_raise():
  image = jnp.asarray(_image())
  with pytest.raises(jaxtyping.TypeCheckError):
    warping.sample_bilinear(image[0], jnp.zeros((2, 7, 2)))
  with pytest.raises(jaxtyping.TypeCheckError):
    warping.sample_bilinear(image, jnp.zeros((2, 7, 3)))


@pytest.mark.skipif(
  len(jax.devices()) == 1, reason='nothing is gathered on one device'
)
def test_sharded_batch_is_not_gathered():
  mesh = parallel.create_mesh()
  rows = parallel.batch_sharded(mesh)

  def compiled(function):
    def loss(source, depth, intrinsics, transform):
      return function(source, depth, intrinsics, transform)

    # Gradients per row, so that no sum over the batch hides a gather.
    def gradients(*views):
      value, pull = jax.vjp(loss, *views)
      return value, pull(value)

    views = _views(mesh.size)
    step = jax.jit(gradients, in_shardings=(rows,) * 4, out_shardings=rows)
    return step.lower(*views).compile().as_text()

  def over_the_flattened_batch(source, depth, *_):
    flat = source.reshape(-1, 3)
    return flat[jnp.argsort(depth.reshape(-1))].reshape(source.shape)

  assert 'all-gather' in compiled(over_the_flattened_batch)
  assert 'all-gather' not in compiled(warping.synthesize_view)
