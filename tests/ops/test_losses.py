"""Losses against golden values and at extremes."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from sgde_jax.ops import geometry, losses, warping
from tests.support import golden

OFFSETS = (-1, 1)
OPTIONS = {
  'min_depth': 0.1,
  'max_depth': 100.0,
  'automask': True,
  'smoothness_weight': 1e-3,
  'enhanced_weight': 1.0,
}


def _inputs(dtype):
  data = golden.load('losses')
  frames = jnp.asarray(data['frames'], dtype)
  intrinsics = jnp.broadcast_to(jnp.asarray(data['K'], dtype), (2, 3, 3))
  vectors = {
    name: jnp.stack([data[f'{name}_{o}'] for o in OFFSETS], 1).astype(dtype)
    for name in ('axisangle', 'translation')
  }
  disparities = [jnp.asarray(data[f'disp_{s}'], dtype) for s in range(4)]
  return data, frames, intrinsics, vectors, disparities


def _transforms(vectors):
  return geometry.source_transforms(
    vectors['axisangle'], vectors['translation'], (0, *OFFSETS)
  )


def _full_size_depth(disparity, target):
  return geometry.disparity_to_depth(
    warping.resize_bilinear(disparity, *target.shape[1:3])
  )


def test_half_precision_keeps_its_dtype_and_the_value():
  ramp = jnp.linspace(0.5, 1, 32, dtype=jnp.bfloat16)[None, None, :, None]
  image = jnp.broadcast_to(ramp, (1, 16, 32, 3))
  pair = image, jnp.roll(image, 1, axis=2)
  for measure in (losses.ssim_distance, losses.photometric_distance):
    low = measure(*pair)
    assert low.dtype == jnp.bfloat16
    high = measure(*(x.astype(jnp.float32) for x in pair))
    np.testing.assert_allclose(low.astype(jnp.float32), high, atol=4e-3)


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_golden_maps(dtype):
  with golden.precision(dtype):
    data, frames, intrinsics, vectors, disparities = _inputs(dtype)
    exact = dtype == 'float64'
    map_tolerance = 1e-6 if exact else 1e-3
    transforms = _transforms(vectors)
    target, sources = frames[:, 0], frames[:, 1:]
    depth = geometry.disparity_to_depth(disparities[0])
    for i, offset in enumerate(OFFSETS):
      np.testing.assert_allclose(
        transforms[:, i], data[f'T_{offset}'], atol=1e-6
      )
      pixels = geometry.project_to_source(depth, intrinsics, transforms[:, i])
      expected = data[f'pix_{offset}_0']
      if exact:
        np.testing.assert_allclose(pixels, expected, rtol=1e-6)
      else:
        inside = np.all((expected >= 0) & (expected <= (95, 63)), axis=-1)
        assert inside.mean() > 0.2
        np.testing.assert_allclose(
          np.asarray(pixels)[inside], expected[inside], atol=1e-3
        )
      warped = warping.synthesize_view(
        sources[:, i], depth, intrinsics, transforms[:, i]
      )
      checks = {
        'warped': warped,
        'photometric': losses.photometric_distance(warped, target),
        'photometric_identity': losses.photometric_distance(
          sources[:, i], target
        ),
        'ssim': losses.ssim_distance(sources[:, i], target),
      }
      for name, value in checks.items():
        assert value.dtype == dtype
        np.testing.assert_allclose(
          value, data[f'{name}_{offset}'], atol=map_tolerance, err_msg=name
        )


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_golden_scales(dtype):
  with golden.precision(dtype):
    data, frames, intrinsics, vectors, disparities = _inputs(dtype)
    total_tolerance = 1e-6 if dtype == 'float64' else 1e-5
    target, sources = frames[:, 0], frames[:, 1:]
    identity = losses.identity_distances(target, sources)
    image = target
    for scale, disparity in enumerate(disparities):
      distances, _ = losses.reprojection_distances(
        target,
        sources,
        _full_size_depth(disparity, target),
        intrinsics,
        _transforms(vectors),
      )
      minimum, mask = losses.minimum_reprojection(distances, identity)
      if scale == 0:
        np.testing.assert_allclose(
          minimum, data['min_map'], atol=1e-6 if dtype == 'float64' else 1e-3
        )
        assert np.mean(np.asarray(mask) == data['automask']) > 0.999
      np.testing.assert_allclose(
        jnp.mean(minimum), data[f'reprojection_{scale}'], atol=total_tolerance
      )
      np.testing.assert_allclose(
        losses.edge_aware_smoothness(disparity, image),
        data[f'smooth_{scale}'],
        rtol=total_tolerance,
      )
      size = target.shape[1] // 2 ** (scale + 1)
      image = target.reshape(
        2, size, 2 ** (scale + 1), -1, 2 ** (scale + 1), 3
      ).mean((2, 4))


@pytest.mark.parametrize(
  'dtype', [pytest.param('float64', marks=pytest.mark.slow), 'float32']
)
def test_golden_total_and_gradients(dtype):
  with golden.precision(dtype):
    data, frames, intrinsics, vectors, disparities = _inputs(dtype)

    def total(disparities, vectors):
      terms, _ = losses.self_supervised_losses(
        frames[:, 0],
        frames[:, 1:],
        disparities,
        intrinsics,
        _transforms(vectors),
        **OPTIONS,
      )
      return sum(terms.values())

    value, (grad_disparities, grad_vectors) = jax.jit(
      jax.value_and_grad(total, argnums=(0, 1))
    )(disparities, vectors)
    exact = dtype == 'float64'
    np.testing.assert_allclose(
      value, data['total'], atol=1e-6 if exact else 1e-5
    )
    gradients = {
      f'grad_disp_{scale}': grad for scale, grad in enumerate(grad_disparities)
    }
    for name, grad in grad_vectors.items():
      for i, offset in enumerate(OFFSETS):
        gradients[f'grad_{name}_{offset}'] = grad[:, i]
    for name, grad in gradients.items():
      largest = np.abs(data[name]).max()
      np.testing.assert_allclose(
        grad,
        data[name],
        atol=(1e-6 if exact else 2e-2) * largest,
        rtol=0,
        err_msg=name,
      )


def test_distances_vanish_on_equal_images():
  image = jax.random.uniform(jax.random.key(0), (2, 8, 9, 3))
  np.testing.assert_allclose(losses.ssim_distance(image, image), 0, atol=2e-4)
  np.testing.assert_allclose(
    losses.photometric_distance(image, image), 0, atol=2e-4
  )


def test_distance_of_black_and_white_is_one_at_most():
  black, white = jnp.zeros((1, 8, 8, 3)), jnp.ones((1, 8, 8, 3))
  distance = losses.photometric_distance(black, white)
  assert np.all(distance <= 1) and np.all(distance > 0.5)


@pytest.mark.parametrize('shape', [(1, 4, 4, 3), (1, 32, 64, 3)])
def test_gradients_are_finite_on_constant_images(shape):
  x = jnp.full(shape, 0.5)
  gradient = jax.grad(
    lambda x: losses.photometric_distance(x, jnp.zeros(shape)).sum()
  )(x)
  assert np.all(np.isfinite(gradient))
  disparity = jnp.full((*shape[:3], 1), 0.3)
  value, gradient = jax.value_and_grad(losses.edge_aware_smoothness)(
    disparity, x
  )
  assert value == 0
  assert np.all(np.isfinite(gradient))


def test_smoothness_ignores_the_scale_of_the_disparity():
  key = jax.random.key(1)
  disparity = jax.random.uniform(key, (2, 8, 8, 1), minval=0.1)
  image = jax.random.uniform(key, (2, 8, 8, 3))
  np.testing.assert_allclose(
    losses.edge_aware_smoothness(disparity, image),
    losses.edge_aware_smoothness(disparity * 0.01, image),
    rtol=1e-4,
  )


def test_automask_ignores_a_static_scene():
  frame = jax.random.uniform(jax.random.key(2), (1, 8, 8, 3))
  sources = jnp.stack([frame, frame], 1)
  identity = losses.identity_distances(frame, sources)
  worse = identity + 0.1
  minimum, mask = losses.minimum_reprojection(worse, identity)
  assert not np.any(mask)
  np.testing.assert_allclose(minimum, jnp.min(identity, 1))
  _, mask = losses.minimum_reprojection(worse, None)
  assert np.all(mask)


def test_shapes_that_differ_raise():
  with pytest.raises(jaxtyping.TypeCheckError):
    losses.ssim_distance(jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 8, 9, 3)))
  with pytest.raises(jaxtyping.TypeCheckError):
    losses.edge_aware_smoothness(
      jnp.zeros((1, 8, 8, 1)), jnp.zeros((1, 4, 8, 3))
    )


def _noisy_disparity(shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.uniform(0.02, 0.2, shape), jnp.float32)


def test_minimum_at_points_equals_that_of_the_whole_map():
  _, frames, intrinsics, vectors, _ = _inputs('float32')
  target, sources = frames[:, 0], frames[:, 1:]
  batch, height, width = target.shape[:3]
  transforms = _transforms(vectors)
  disparity = _noisy_disparity((batch, height, width, 1))
  depth = geometry.disparity_to_depth(disparity)
  whole, _ = losses.reprojection_distances(
    target, sources, depth, intrinsics, transforms
  )
  # Every pixel, the borders included.
  y, x = np.mgrid[:height, :width].reshape(2, -1)
  points = jnp.asarray(np.tile(np.stack([x, y], -1)[None], (batch, 1, 1)))
  for identity in (None, losses.identity_distances(target, sources)):
    found = losses.point_minimum(
      target,
      sources,
      losses.neighbourhoods(depth, points)[..., 0],
      intrinsics,
      transforms,
      points,
      identity,
    )
    expected, _ = losses.minimum_reprojection(whole, identity)
    np.testing.assert_allclose(
      found, expected.reshape(batch, -1), rtol=1e-4, atol=1e-5
    )


def _enhanced_terms(disparity, points, mask, **options):
  _, frames, intrinsics, vectors, disparities = _inputs('float32')
  terms, _ = losses.self_supervised_losses(
    frames[:, 0],
    frames[:, 1:],
    disparities,
    intrinsics,
    _transforms(vectors),
    enhanced=(disparity, points, mask),
    **OPTIONS | options,
  )
  return terms


def test_enhanced_loss_weights_a_point_like_a_pixel():
  _, frames, intrinsics, vectors, _ = _inputs('float32')
  target, sources = frames[:, 0], frames[:, 1:]
  disparity = _noisy_disparity((*target.shape[:3], 1))
  rng = np.random.default_rng(1)
  height, width = target.shape[1:3]
  points = jnp.asarray(rng.integers(0, (width, height), (2, 50, 2)))
  mask = jnp.asarray(rng.random((2, 50)) < 0.9)
  mask = mask.at[1, 10:].set(False)
  distances, _ = losses.reprojection_distances(
    target,
    sources,
    geometry.disparity_to_depth(disparity),
    intrinsics,
    _transforms(vectors),
  )
  identity = losses.identity_distances(target, sources)
  minimum, _ = losses.minimum_reprojection(distances, identity)
  chosen = [
    minimum[b, points[b, k, 1], points[b, k, 0]]
    for b in range(2)
    for k in range(50)
    if mask[b, k]
  ]
  terms = _enhanced_terms(disparity, points, mask, enhanced_weight=0.5)
  np.testing.assert_allclose(
    terms['enhanced'], 0.5 * np.sum(chosen) / minimum.size, rtol=1e-4
  )
  nothing = _enhanced_terms(disparity, points, jnp.zeros_like(mask))
  assert float(nothing['enhanced']) == 0


def test_enhanced_loss_at_every_pixel_is_the_photometric_loss():
  _, frames, intrinsics, vectors, disparities = _inputs('float32')
  height, width = frames.shape[2:4]
  grid = jnp.stack(jnp.meshgrid(jnp.arange(width), jnp.arange(height)), -1)
  points = jnp.tile(grid.reshape(1, -1, 2), (2, 1, 1))
  terms, _ = losses.self_supervised_losses(
    frames[:, 0],
    frames[:, 1:],
    disparities[:1],
    intrinsics,
    _transforms(vectors),
    enhanced=(disparities[0], points, jnp.ones(points.shape[:2], bool)),
    **OPTIONS,
  )
  np.testing.assert_allclose(terms['enhanced'], terms['photometric'], rtol=1e-5)


def test_enhanced_loss_reaches_only_valid_points():
  shape = (2, 64, 96, 1)
  points = jnp.asarray([[[5, 9], [40, 30]], [[95, 63], [0, 0]]])
  mask = jnp.asarray([[True, False], [True, True]])
  gradient = jax.grad(
    lambda d: _enhanced_terms(d, points, mask, automask=False)['enhanced']
  )(_noisy_disparity(shape))
  assert np.isfinite(gradient).all()
  near = np.zeros(shape[:3], bool)
  for b, x, y in ((0, 5, 9), (1, 95, 63), (1, 0, 0)):
    near[b, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
  assert not np.any(gradient[..., 0][~near])
  assert np.any(gradient[0, 8:11, 4:7] != 0)


def _mean_cross_entropy(*args, **options):
  total, weight = losses.cross_entropy(*args, **options)
  return total / weight


def test_cross_entropy_is_the_mean_over_labelled_pixels():
  rng = np.random.default_rng(0)
  logits = rng.standard_normal((2, 4, 6, 19)).astype(np.float32)
  labels = rng.integers(0, 19, (2, 4, 6)).astype(np.uint8)
  labels[0, :2] = 255
  mean = functools.partial(
    _mean_cross_entropy, jnp.asarray(logits), jnp.asarray(labels)
  )
  shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  b, y, x = np.nonzero(labels != 255)
  distances = -np.log(shares[b, y, x, labels[b, y, x]])
  np.testing.assert_allclose(mean(), distances.mean(), rtol=1e-5)
  weights = tuple(float(w) for w in rng.uniform(0.5, 2, 19))
  own = np.array(weights)[labels[b, y, x]]
  np.testing.assert_allclose(
    mean(class_weights=weights),
    (own * distances).sum() / own.sum(),
    rtol=1e-5,
  )


def test_cross_entropy_without_labels_is_zero_with_finite_gradients():
  logits = jax.random.normal(jax.random.key(0), (1, 2, 3, 19))
  labels = jnp.full((1, 2, 3), 255, jnp.uint8)
  total, weight = losses.cross_entropy(logits, labels)
  assert float(total) == float(weight) == 0
  gradient = jax.grad(lambda x: losses.cross_entropy(x, labels)[0])(logits)
  assert not np.any(gradient)
