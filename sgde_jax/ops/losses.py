"""The losses, each a named, weighted term of `weighted_terms`.

Photometric distance, smoothness, minimum over sources and auto-mask follow
Monodepth2 (Godard et al., arXiv 1806.01260, sections 3.1 and 3.2). The priors
on disparity are ours; neither the paper nor Monodepth2 has them.

Images are in [0, 1], disparities in (0, 1), intrinsics in pixels of the H x W
image, transforms T_source_target, points (x, y). S sources are the frames
after the target.

Inside, images are planes `[B, C, H, W]`: with only three channels, the width
has to be the innermost axis for a processor to work on many pixels at once.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Integer

from input_pipeline import cityscapes
from sgde_jax.ops import geometry, warping

# Shapes that several functions share.
Scalar = Float[Array, '']
Image = Float[Array, 'B H W 3']
Sources = Float[Array, 'B S H W 3']
SourceMaps = Float[Array, 'B S H W']
Intrinsics = Float[Array, 'B 3 3']
Transforms = Float[Array, 'B S 4 4']
Points = Int[Array, 'B K 2']
Terms = tuple[dict[str, Scalar], dict[str, Array]]

_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2
_SSIM_WEIGHT = 0.85


def weighted_terms(
  outputs,
  labelled: Sequence[tuple[Array | None, Array]],
  frames: Float[Array, 'B F H W 3'],
  intrinsics: Intrinsics,
  *,
  frame_offsets: Sequence[int],
  scale_weight: float,
  segment_weight: float,
  cross_entropy_weight: float,
  class_weights: Sequence[float],
  **options,
) -> Terms:
  """Computes all loss terms of the network's outputs, weighted.

  The total loss is the sum of the terms. A new term is added here, and its
  weight to the config's `loss`.

  Args:
    outputs: `models.DepthOutputs` for the frames.
    labelled: pairs of logits `[N, H, W, C]` and labels `[N, H, W]`; the
      cross-entropy is one mean over all of them. Unused without semantics.
    frames: the target and its sources, not jittered.
    intrinsics: of all frames.
    frame_offsets: time of each frame relative to the target, 0 first.
    scale_weight: weight of `scale_prior`.
    segment_weight: weight of `segment_prior`.
    cross_entropy_weight: weight of the cross-entropy.
    class_weights: see `cross_entropy`.
    **options: see `self_supervised_losses`, whose pictures are returned too.
  """
  enhanced = None
  if outputs.points is not None:
    enhanced = outputs.enhanced_disparity, outputs.points, outputs.point_mask
  terms, pictures = self_supervised_losses(
    frames[:, 0],
    frames[:, 1:],
    outputs.disparities,
    intrinsics,
    geometry.source_transforms(
      outputs.axis_angle, outputs.translation, frame_offsets
    ),
    enhanced=enhanced,
    **options,
  )
  terms['scale_prior'] = scale_weight * scale_prior(outputs.disparity_logits)
  if outputs.points is not None:
    terms['segment_prior'] = segment_weight * segment_prior(
      outputs.point_logits,
      outputs.inside_logits,
      outputs.inside_mask,
      num_pixels=outputs.disparity_logits[0].size,
    )
  if outputs.logits is not None:
    mean = _mean_cross_entropy(labelled, class_weights)
    terms['cross_entropy'] = cross_entropy_weight * mean
  return terms, pictures


def self_supervised_losses(
  target: Image,
  sources: Sources,
  disparities: Sequence[Float[Array, 'B _ _ 1']],
  intrinsics: Intrinsics,
  transforms: Transforms,
  *,
  min_depth: float,
  max_depth: float,
  automask: bool,
  smoothness_weight: float,
  enhanced_weight: float,
  enhanced: tuple[Array, Array, Array] | None = None,
  tie_noise: SourceMaps | None = None,
) -> Terms:
  """Computes the photometric terms and smoothness.

  Disparities are one `[B, H / 2^s, W / 2^s, 1]` per scale s; the weight of
  smoothness is halved at each further scale. `automask` lets unwarped sources
  compete in the minimum, `tie_noise` breaks ties there (Monodepth2 draws
  N(0, 1) * 1e-5). `enhanced` is SEEM's disparity `[B, H, W, 1]`, its points
  `[B, K, 2]` and their mask `[B, K]`.

  Returns:
    Scalar terms: `photometric` and `smoothness`, means over scales; with
    `enhanced` also `enhanced`, a sum over its points divided by the number of
    pixels. Pictures at scale 0: `rebuilt` `[B, S, H, W, 3]` and `automask`
    `[B, H, W]` bool.
  """
  to_depth = functools.partial(
    geometry.disparity_to_depth, min_depth=min_depth, max_depth=max_depth
  )
  identity = identity_distances(target, sources) if automask else None
  if identity is not None and tie_noise is not None:
    identity = identity + tie_noise
  photometric, smoothness, pictures = 0.0, 0.0, {}
  image = target
  for scale, disparity in enumerate(disparities):
    full_size = warping.resize_bilinear(disparity, *target.shape[1:3])
    distances, rebuilt = reprojection_distances(
      target, sources, to_depth(full_size), intrinsics, transforms
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
    disparity, points, mask = enhanced
    minimum = point_minimum(
      target,
      sources,
      to_depth(neighbourhoods(disparity, points)[..., 0]),
      intrinsics,
      transforms,
      points,
      identity,
    )
    total = jnp.sum(jnp.where(mask, minimum, 0))
    terms['enhanced'] = enhanced_weight * (total / disparity.size)
  return terms, pictures


def ssim_distance(x: Image, y: Image) -> Image:
  """Returns clip((1 - SSIM) / 2, 0, 1) over 3 x 3 windows, per channel.

  Wang et al., "Image quality assessment", 2004, with uniform windows and the
  image reflected by one pixel at its border. 0 where the windows agree.
  """
  x, y = _pad(_to_planes(x)), _pad(_to_planes(y))
  return _to_image(_ssim(x, y, _window_mean))


def photometric_distance(x: Image, y: Image) -> Float[Array, 'B H W 1']:
  """Returns 0.85 SSIM distance + 0.15 L1, averaged over the channels."""
  return _photometric_planes(_to_planes(x), _to_planes(y))[..., None]


def edge_aware_smoothness(
  disparity: Float[Array, 'B h w 1'], image: Float[Array, 'B h w 3']
) -> Scalar:
  """Penalizes disparity gradients where the image has none.

  mean |dx d*| exp(-|dx I|) + mean |dy d*| exp(-|dy I|) with d* the disparity
  over its mean per image (Monodepth2, equation 3).
  """
  mean = jnp.mean(disparity, axis=(1, 2), keepdims=True)
  normalized = disparity / (mean + 1e-7)
  total = 0.0
  for axis in (1, 2):
    change = jnp.abs(jnp.diff(normalized, axis=axis))
    contrast = jnp.mean(
      jnp.abs(jnp.diff(image, axis=axis)), axis=-1, keepdims=True
    )
    total += jnp.mean(change * jnp.exp(-contrast))
  return total


def identity_distances(target: Image, sources: Sources) -> SourceMaps:
  """Computes the photometric distance of each unwarped source to the target."""
  target = _to_planes(target)
  return jnp.stack(
    [_photometric_planes(source, target) for source in _split(sources)], 1
  )


def reprojection_distances(
  target: Image,
  sources: Sources,
  depth: Float[Array, 'B H W 1'],
  intrinsics: Intrinsics,
  transforms: Transforms,
) -> tuple[SourceMaps, Sources]:
  """Rebuilds the target from each source; returns the distances and rebuilt."""
  depth = depth[..., 0]
  target = _to_planes(target)
  rebuilt = [
    warping.synthesize_planes(source, depth, intrinsics, transforms[:, i])
    for i, source in enumerate(_split(sources))
  ]
  distances = [_photometric_planes(frame, target) for frame in rebuilt]
  frames = jnp.stack([_to_image(frame) for frame in rebuilt], axis=1)
  return jnp.stack(distances, axis=1), frames


def minimum_reprojection(
  distances: Float[Array, ' B S *points'],
  identity: Float[Array, ' B S *points'] | None,
) -> tuple[Float[Array, ' B *points'], Bool[Array, ' B *points']]:
  """Computes the minimum over sources with Monodepth2's auto-mask.

  `identity` are the distances of the unwarped sources, tie noise included;
  None turns the auto-mask off. Returns the minimum, and a mask that is True
  where a rebuilt frame won, that is, where the pixel teaches depth.
  """
  best = _minimum(distances)
  if identity is None:
    return best, jnp.ones_like(best, dtype=bool)
  still = _minimum(identity)
  return jnp.minimum(still, best), best < still


def neighbourhoods(
  maps: Float[Array, 'B H W C'], points: Points
) -> Float[Array, 'B K 9 C']:
  """Reads the 3 x 3 pixels around each point, reflected at the border."""
  x, y = _patches(points, *maps.shape[1:3])
  return warping.gather_points(maps, jnp.stack([x, y], axis=-1))


def point_minimum(
  target: Image,
  sources: Sources,
  depth: Float[Array, 'B K 9'],
  intrinsics: Intrinsics,
  transforms: Transforms,
  points: Points,
  identity: SourceMaps | None,
) -> Float[Array, 'B K']:
  """Like `minimum_reprojection`, at points, from `neighbourhoods` of depth.

  A few thousand points cost a fraction of the whole map.
  """
  wanted = _to_planes(neighbourhoods(target, points))
  x, y = _patches(points, *target.shape[1:3])
  x, y = x.astype(depth.dtype), y.astype(depth.dtype)
  distances = []
  for i, source in enumerate(_split(sources)):
    pixels = geometry.project_pixels(x, y, depth, intrinsics, transforms[:, i])
    rebuilt = warping.sample_planes(source, *pixels)  # [B, 3, K, 9]
    ssim = _ssim(rebuilt, wanted, lambda patch: jnp.mean(patch, axis=-1))
    centres = rebuilt[..., 4], wanted[..., 4]
    distances.append(_photometric_planes(*centres, ssim))
  if identity is not None:
    maps = jnp.moveaxis(identity, 1, -1)
    identity = jnp.moveaxis(warping.gather_points(maps, points), -1, 1)
  return minimum_reprojection(jnp.stack(distances, axis=1), identity)[0]


def cross_entropy(
  logits: Float[Array, 'N H W C'],
  labels: Integer[Array, 'N H W'],
  *,
  class_weights: Sequence[float] = (),
) -> tuple[Scalar, Scalar]:
  """Sums the cross-entropy of the labelled pixels.

  Returns the weighted sum and the sum of the weights, both 0 where nothing is
  labelled. They add over batches; their ratio is the loss, as in PyTorch's
  weighted mean. Labels are train ids, 255 = unlabelled; `class_weights` holds
  a number per class, () weighs all classes alike.
  """
  labelled = labels != cityscapes.UNLABELLED
  classes = jnp.where(labelled, labels, 0).astype(jnp.int32)
  weights = labelled.astype(logits.dtype)
  if class_weights:
    weights *= jnp.asarray(class_weights, logits.dtype)[classes]
  distances = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
  return jnp.sum(weights * distances), jnp.sum(weights)


def scale_prior(disparity_logits: Sequence[Float[Array, 'B _ _ 1']]) -> Scalar:
  """Penalizes mean logits outside [-4, 0]: squared excess, mean over scales.

  Monocular video leaves the scale of depth free: while the motions are wrong
  it drifts, until the sigmoid is 1 or 0 everywhere and has no gradient. The
  prior is 0 for mean disparities of 0.02 to 0.5 (depths of 5 m to 0.2 m).
  """
  means = jnp.stack([jnp.mean(logits) for logits in disparity_logits])
  return jnp.mean(jnp.maximum(jnp.abs(means + 2) - 2, 0) ** 2)


def segment_prior(
  point_logits: Float[Array, 'B K 1'],
  inside_logits: Float[Array, 'B K 1'],
  mask: Bool[Array, 'B K'],
  *,
  num_pixels: int,
) -> Scalar:
  """Measures how far SEEM's points are from the inside of their own segments.

  Where two classes meet, depth steps, but the coarse disparity is a smooth
  surface. Near a border, a pixel's own segment is a better guide to its depth
  than the photometric loss with its occlusions and windows of 3 x 3 pixels.
  `inside_logits` are those of `edges.from_inside`. The sum of the absolute
  differences is divided by the number of pixels of the batch, so that a point
  weighs as much as a pixel.
  """
  distances = jnp.abs(point_logits - inside_logits)[..., 0]
  return jnp.sum(jnp.where(mask, distances, 0)) / num_pixels


def _mean_cross_entropy(labelled, class_weights):
  """Averages over all pairs of logits and labels; 0 if nothing is labelled."""
  sums = [
    cross_entropy(*pair, class_weights=class_weights) for pair in labelled
  ]
  total, weight = map(sum, zip(*sums, strict=True))
  return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0)


def _ssim(x, y, mean):
  """Computes the SSIM distance of planes; `mean` averages over windows.

  Uses at least float32: with fewer bits the variances, which are differences
  of means, would be pure rounding errors.
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
  """Gives every pixel the mean over the windows that contain it."""
  edges = ((0, 0), (0, 0), (2, 2), (2, 2))
  padded = jax.lax.optimization_barrier(jnp.pad(gradient, edges))
  return (_window_mean(padded),)


_window_mean.defvjp(
  lambda planes: (_window_mean(planes), None), _window_mean_gradient
)


def _patches(points, height, width):
  """The 3 x 3 pixels around points, reflected: x and y `[B, K, 9]`."""

  def reflect(index, size):
    return size - 1 - jnp.abs(size - 1 - jnp.abs(index))

  step_y, step_x = jnp.mgrid[-1:2, -1:2].reshape(2, 1, 1, 9)
  x = reflect(points[..., :1] + step_x, width)
  return x, reflect(points[..., 1:] + step_y, height)


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
