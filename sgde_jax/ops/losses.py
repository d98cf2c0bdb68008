"""The losses: of self-supervised depth, as in Monodepth2, and of semantics.

Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation",
ICCV 2019 (arXiv 1806.01260), sections 3.1 and 3.2. Images are `[B, H, W, 3]`
float in [0, 1]; disparities are `[B, h, w, 1]` float in (0, 1).

Inside, images are planes `[B, C, H, W]`: with only three channels, the width
has to be the innermost axis for a processor to work on many pixels at once.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import optax

from input_pipeline import cityscapes
from sgde_jax.ops import geometry, warping

_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2
_SSIM_WEIGHT = 0.85


def ssim_distance(x, y):
  """Returns clip((1 - SSIM) / 2, 0, 1) over 3 x 3 windows, per channel.

  Wang et al., "Image quality assessment", 2004, with uniform windows and the
  image reflected by one pixel at its border.

  Args:
    x: `[B, H, W, 3]` float in [0, 1].
    y: as `x`.

  Returns:
    `[B, H, W, 3]` in [0, 1]; 0 where the windows agree.

  Raises:
    AssertionError: if the shapes differ or are not rank 4.
  """
  chex.assert_rank(x, 4)
  chex.assert_equal_shape([x, y])
  x, y = _pad(_to_planes(x)), _pad(_to_planes(y))
  return _to_image(_ssim(x, y, _window_mean))


def photometric_distance(x, y):
  """Returns 0.85 SSIM distance + 0.15 L1, averaged over the channels.

  Args:
    x: `[B, H, W, 3]` float in [0, 1].
    y: as `x`.

  Returns:
    `[B, H, W, 1]` in [0, 1].

  Raises:
    AssertionError: if the shapes differ or are not rank 4.
  """
  chex.assert_rank(x, 4)
  chex.assert_equal_shape([x, y])
  return _photometric_planes(_to_planes(x), _to_planes(y))[..., None]


def edge_aware_smoothness(disparity, image):
  """Penalises disparity gradients except where the image has its own.

  mean |dx d*| exp(-|dx I|) + mean |dy d*| exp(-|dy I|) with d* the disparity
  over its mean per image (Monodepth2, equation 3).

  Args:
    disparity: `[B, h, w, 1]` float.
    image: `[B, h, w, 3]` float in [0, 1], at the disparity's size.

  Returns:
    A scalar.

  Raises:
    AssertionError: if the sizes of the two differ.
  """
  chex.assert_rank([disparity, image], 4)
  chex.assert_equal_shape_prefix([disparity, image], 3)
  mean = jnp.mean(disparity, axis=(1, 2), keepdims=True)
  normalised = disparity / (mean + 1e-7)
  total = 0.0
  for axis in (1, 2):
    change = jnp.abs(jnp.diff(normalised, axis=axis))
    contrast = jnp.mean(
      jnp.abs(jnp.diff(image, axis=axis)), axis=-1, keepdims=True
    )
    total += jnp.mean(change * jnp.exp(-contrast))
  return total


def identity_distances(target, sources):
  """Photometric distance of each unwarped source to the target.

  Args:
    target: `[B, H, W, 3]`.
    sources: `[B, S, H, W, 3]`.

  Returns:
    `[B, S, H, W]`.
  """
  target = _to_planes(target)
  return jnp.stack(
    [_photometric_planes(source, target) for source in _split(sources)], 1
  )


def reprojection_distances(target, sources, disparity, intrinsics, transforms):
  """Rebuilds the target from each source and measures the distance.

  Args:
    target: `[B, H, W, 3]`.
    sources: `[B, S, H, W, 3]`.
    disparity: `[B, h, w, 1]` in (0, 1); upsampled to H x W first.
    intrinsics: `[B, 3, 3]`, pixels of the H x W image.
    transforms: `[B, S, 4, 4]`, T_source_target per source.

  Returns:
    distances `[B, S, H, W]` and the rebuilt frames `[B, S, H, W, 3]`.
  """
  height, width = target.shape[1:3]
  disparity = warping.resize_bilinear(disparity, height, width)
  depth = geometry.disparity_to_depth(disparity)[..., 0]
  target = _to_planes(target)
  rebuilt = [
    warping.synthesize_planes(source, depth, intrinsics, transforms[:, i])
    for i, source in enumerate(_split(sources))
  ]
  distances = [_photometric_planes(frame, target) for frame in rebuilt]
  frames = jnp.stack([_to_image(frame) for frame in rebuilt], axis=1)
  return jnp.stack(distances, axis=1), frames


def minimum_reprojection(distances, identity):
  """Per-pixel minimum over sources with Monodepth2's auto-mask.

  Args:
    distances: `[B, S, H, W]`, photometric distances of the rebuilt frames.
    identity: `[B, S, H, W]`, those of the unwarped sources (with the tie
      noise already added), or None to switch the auto-mask off.

  Returns:
    The minimum `[B, H, W]` and a bool mask `[B, H, W]`, True where a rebuilt
    frame won, that is, where the pixel teaches depth.
  """
  best = _minimum(distances)
  if identity is None:
    return best, jnp.ones_like(best, dtype=bool)
  still = _minimum(identity)
  return jnp.minimum(still, best), best < still


def cross_entropy(logits, labels, *, class_weights=()):
  """Sums the cross-entropy of the labelled pixels.

  The sum and its weight add over batches; their ratio is the loss, as in
  PyTorch's weighted mean.

  Args:
    logits: `[B, H, W, C]` float class scores, finite.
    labels: `[B, H, W]` uint8 train ids, 255 = unlabelled, which does not
      count.
    class_weights: C numbers; () weighs all classes alike.

  Returns:
    Two scalars: the weighted sum, and the weights' sum, both 0 where nothing
    is labelled.

  Raises:
    AssertionError: if the shapes do not fit.
  """
  chex.assert_rank([logits, labels], [4, 3])
  chex.assert_equal_shape_prefix([logits, labels], 3)
  labelled = labels != cityscapes.UNLABELLED
  classes = jnp.where(labelled, labels, 0).astype(jnp.int32)
  weights = labelled.astype(logits.dtype)
  if class_weights:
    chex.assert_shape(jnp.asarray(class_weights), (logits.shape[-1],))
    weights *= jnp.asarray(class_weights, logits.dtype)[classes]
  distances = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
  return jnp.sum(weights * distances), jnp.sum(weights)


def self_supervised_losses(
  target,
  sources,
  disparities,
  intrinsics,
  transforms,
  *,
  enhanced=None,
  tie_noise=None,
  automask=True,
  smoothness_weight=1e-3,
  enhanced_weight=1.0,
):
  """The photometric terms of every scale and of SEEM's points, smoothness.

  Args:
    target: `[B, H, W, 3]`.
    sources: `[B, S, H, W, 3]`.
    disparities: one `[B, H / 2^s, W / 2^s, 1]` per scale s.
    intrinsics: `[B, 3, 3]`, pixels of the H x W image.
    transforms: `[B, S, 4, 4]`, T_source_target per source.
    enhanced: SEEM's disparity `[B, H, W, 1]`, its points `[B, K, 2]` int and
      their mask `[B, K]`; or None.
    tie_noise: `[B, S, H, W]` small noise that breaks ties of the auto-mask
      (Monodepth2 draws N(0, 1) * 1e-5), or None.
    automask: whether unwarped sources compete in the minimum.
    smoothness_weight: weight at scale 0; halved at each further scale.
    enhanced_weight: of the mean over all pixels, 0 where no point is (ours).

  Returns:
    A dict of weighted scalar terms, `photometric` and `smoothness`, each the
    mean over scales, and with `enhanced` also `enhanced`; and a dict of
    pictures at scale 0: `rebuilt` `[B, S, H, W, 3]` and `automask`
    `[B, H, W]` bool.
  """
  identity = identity_distances(target, sources) if automask else None
  if identity is not None and tie_noise is not None:
    identity = identity + tie_noise
  photometric, smoothness, pictures = 0.0, 0.0, {}
  image = target
  for scale, disparity in enumerate(disparities):
    distances, rebuilt = reprojection_distances(
      target, sources, disparity, intrinsics, transforms
    )
    minimum, mask = minimum_reprojection(distances, identity)
    photometric += jnp.mean(minimum)
    smoothness += edge_aware_smoothness(disparity, image) / 2**scale
    if scale == 0:
      pictures = {'rebuilt': rebuilt, 'automask': mask}
    image = _halve(image)
  count = len(disparities)
  terms = {
    'photometric': photometric / count,
    'smoothness': smoothness_weight * smoothness / count,
  }
  if enhanced is not None:
    terms['enhanced'] = enhanced_weight * _enhanced_loss(
      target, sources, enhanced, intrinsics, transforms, identity
    )
  return terms, pictures


def point_distances(target, sources, disparity, intrinsics, transforms, points):
  """`reprojection_distances` of a full-size disparity, at points alone.

  The same values as those of the whole map, from 3 x 3 pixels around each
  point: a few thousand points cost a fraction of it.

  Args:
    target: `[B, H, W, 3]`.
    sources: `[B, S, H, W, 3]`.
    disparity: `[B, H, W, 1]` in (0, 1).
    intrinsics: `[B, 3, 3]`.
    transforms: `[B, S, 4, 4]`, T_source_target per source.
    points: `[B, K, 2]` int, (x, y).

  Returns:
    `[B, S, K]`.
  """
  height, width = target.shape[1:3]
  step_y, step_x = jnp.mgrid[-1:2, -1:2].reshape(2, 1, 1, 9)
  x = _reflect(points[..., :1] + step_x, width)
  y = _reflect(points[..., 1:] + step_y, height)  # [B, K, 9]
  patches = jnp.stack([x, y], axis=-1)
  depth = geometry.disparity_to_depth(
    warping.gather_points(disparity, patches)[..., 0]
  )
  wanted = _to_planes(warping.gather_points(target, patches))
  x, y = x.astype(depth.dtype), y.astype(depth.dtype)
  distances = []
  for i, source in enumerate(_split(sources)):
    pixels = geometry.project_pixels(x, y, depth, intrinsics, transforms[:, i])
    rebuilt = warping.sample_planes(source, *pixels)  # [B, 3, K, 9]
    ssim = _ssim(rebuilt, wanted, lambda patch: jnp.mean(patch, axis=-1))
    centres = rebuilt[..., 4], wanted[..., 4]
    distances.append(_photometric_planes(*centres, ssim))
  return jnp.stack(distances, axis=1)


def point_minimum(
  target, sources, disparity, intrinsics, transforms, points, identity
):
  """`minimum_reprojection` at points alone.

  The arguments are those of `point_distances`, and the `identity`
  `[B, S, H, W]`, or None, of `minimum_reprojection`. Returns `[B, K]`.
  """
  distances = point_distances(
    target, sources, disparity, intrinsics, transforms, points
  )
  if identity is not None:
    maps = jnp.moveaxis(identity, 1, -1)
    identity = jnp.moveaxis(warping.gather_points(maps, points), -1, 1)
  return minimum_reprojection(distances, identity)[0]


def _enhanced_loss(target, sources, enhanced, intrinsics, transforms, identity):
  """Minimum reprojection summed over SEEM's valid points, per pixel."""
  disparity, points, mask = enhanced
  minimum = point_minimum(
    target, sources, disparity, intrinsics, transforms, points, identity
  )
  return jnp.sum(jnp.where(mask, minimum, 0)) / disparity.size


def _ssim(x, y, mean):
  """The SSIM distance of planes, given what averages over windows.

  In float32 at least: with fewer bits the variances, which are differences of
  means, would be nothing but rounding.
  """
  dtype = x.dtype
  wide = jnp.promote_types(dtype, jnp.float32)
  x, y = x.astype(wide), y.astype(wide)
  mean_x, mean_y = mean(x), mean(y)
  product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
  covariance = mean(x * y) - product
  variances = mean(x * x + y * y) - squares
  numerator = (2 * product + _SSIM_C1) * (2 * covariance + _SSIM_C2)
  denominator = (squares + _SSIM_C1) * (variances + _SSIM_C2)
  return jnp.clip((1 - numerator / denominator) / 2, 0, 1).astype(dtype)


def _photometric_planes(x, y, ssim=None):
  """`photometric_distance` of planes: `[B, C, ...]` to `[B, ...]`."""
  if ssim is None:
    ssim = _ssim(_pad(x), _pad(y), _window_mean)
  distance = _SSIM_WEIGHT * ssim + (1 - _SSIM_WEIGHT) * jnp.abs(x - y)
  return jnp.mean(distance, axis=1)


def _pad(planes):
  """Reflects planes by one pixel at their border."""
  edges = ((0, 0), (0, 0), (1, 1), (1, 1))
  # The barriers here and below make XLA store what is padded: fused into the
  # sums over windows, the border's case distinction costs ten times the sums
  # on the CPU.
  return jax.lax.optimization_barrier(jnp.pad(planes, edges, mode='reflect'))


@jax.custom_vjp
def _window_mean(planes):
  """Mean over 3 x 3 windows: `[B, C, H + 2, W + 2]` to `[B, C, H, W]`."""
  rows = planes[:, :, :-2] + planes[:, :, 1:-1] + planes[:, :, 2:]
  return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def _window_mean_gradient(_, gradient):
  """Every pixel gets the mean over the windows that it is in."""
  edges = ((0, 0), (0, 0), (2, 2), (2, 2))
  padded = jax.lax.optimization_barrier(jnp.pad(gradient, edges))
  return (_window_mean(padded),)


_window_mean.defvjp(
  lambda planes: (_window_mean(planes), None), _window_mean_gradient
)


def _reflect(index, size):
  """Mirrors pixels one step outside of [0, size - 1] back inside."""
  return size - 1 - jnp.abs(size - 1 - jnp.abs(index))


def _minimum(maps):
  """Minimum over the sources of `[B, S, ...]`."""
  return functools.reduce(jnp.minimum, jnp.unstack(maps, axis=1))


def _to_planes(image):
  return jnp.moveaxis(image, -1, 1)


def _to_image(planes):
  return jnp.moveaxis(planes, 1, -1)


def _split(sources):
  """Planes of each of the S sources of `[B, S, H, W, 3]`."""
  return [_to_planes(source) for source in jnp.unstack(sources, axis=1)]


def _halve(image):
  """Averages 2 x 2 blocks of `[B, H, W, C]`."""
  batch, height, width, channels = image.shape
  blocks = image.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return jnp.mean(blocks, axis=(2, 4))
