"""Depth errors by the field's protocol, in NumPy float64.

Every number here follows the public evaluation of Monodepth2: the inverse
depth is resized to the truth's own size and inverted, the truth is
masked by range and crop, the prediction is scaled by the ratio of medians
and clipped, and the errors of the images are averaged.

References:
  Eigen et al., Depth Map Prediction from a Single Image (2014): the errors.
  Garg et al., Unsupervised CNN for Single View Depth Estimation (2016): the
    crop.
  Godard et al., Digging Into Self-Supervised Monocular Depth Estimation
    (2019): the protocol.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

# The order in which every publication prints them.
DEPTH_ERRORS = ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'a1', 'a2', 'a3')

# Top, bottom, left and right as fractions of the truth's height and width.
CROPS = {
  'garg': (0.40810811, 0.99189189, 0.03594771, 0.96405229),
  'eigen': (0.3324324, 0.91351351, 0.0359477, 0.96405229),
  'none': (0.0, 1.0, 0.0, 1.0),
}


@dataclasses.dataclass(frozen=True)
class AlignedDepth:
  """A prediction made comparable with its truth.

  Attributes:
    prediction: `[H, W]` float64, metres, scaled and clipped. Meaningless
      where `valid` is False.
    valid: `[H, W]` bool, the pixels that count.
    ratio: the scale that was applied, 1.0 without median scaling.
  """

  prediction: np.ndarray
  valid: np.ndarray
  ratio: float


def align_depth(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  *,
  crop: str = 'garg',
  min_depth: float = 1e-3,
  max_depth: float = 80.0,
  median_scaling: bool = True,
  cap_truth: bool = True,
) -> AlignedDepth:
  """Masks the truth, scales the prediction to it and clips it.

  Args:
    ground_truth: `[H, W]`, metres, 0 = no measurement.
    prediction: `[H, W]`, positive depth; metres unless `median_scaling`.
      Only the pixels that count are read.
    crop: 'garg', 'eigen' or 'none'.
    min_depth: metres; truth at or below is left out, predictions are clipped.
    max_depth: metres; truth at or above is left out, predictions are clipped.
    median_scaling: scale by median(truth) / median(prediction).
    cap_truth: False counts every measured pixel (truth > 0) at any range, as
      the improved ground truth is evaluated, with crop 'none'.

  Raises:
    ValueError: if nothing in the truth counts, or a prediction that counts is
      not finite and positive.
  """
  truth = np.asarray(ground_truth, np.float64)
  depth = np.asarray(prediction, np.float64)
  valid = (truth > 0) & _crop_mask(truth.shape, crop)
  if cap_truth:
    valid &= (truth > min_depth) & (truth < max_depth)
  if not valid.any():
    span = f' between {min_depth} and {max_depth} m' if cap_truth else ''
    raise ValueError(
      f'no pixel of the {truth.shape} ground truth is measured{span} inside '
      f"the crop '{crop}' ({np.count_nonzero(truth > 0)} are measured at all); "
      f'leave the image out or widen {"the range or " if span else ""}the crop.'
    )
  chosen = depth[valid]
  bad = np.count_nonzero(~(np.isfinite(chosen) & (chosen > 0)))
  if bad:
    raise ValueError(
      f'prediction has {bad} of {chosen.size} evaluated pixels that are NaN, '
      'infinite or not positive; it must be a depth, not a disparity or a '
      'diverged output.'
    )
  ratio = 1.0
  if median_scaling:
    ratio = float(np.median(truth[valid]) / np.median(chosen))
  aligned = np.clip(depth * ratio, min_depth, max_depth)
  return AlignedDepth(aligned, valid, ratio)


def depth_errors(
  ground_truth: np.ndarray,
  prediction: np.ndarray,
  *,
  crop: str = 'garg',
  min_depth: float = 1e-3,
  max_depth: float = 80.0,
  median_scaling: bool = True,
  cap_truth: bool = True,
) -> dict[str, float]:
  """The seven errors of one image; the arguments are those of `align_depth`.

  Returns:
    abs_rel, sq_rel (metres), rmse (metres), rmse_log, a1, a2, a3 (shares of
    pixels within 1.25, 1.25^2, 1.25^3) and ratio (the median scale).
  """
  aligned = align_depth(
    ground_truth,
    prediction,
    crop=crop,
    min_depth=min_depth,
    max_depth=max_depth,
    median_scaling=median_scaling,
    cap_truth=cap_truth,
  )
  return aligned_errors(ground_truth, aligned)


def aligned_errors(
  ground_truth: np.ndarray, aligned: AlignedDepth
) -> dict[str, float]:
  """Computes `depth_errors` of an aligned prediction."""
  truth = np.asarray(ground_truth, np.float64)[aligned.valid]
  depth = aligned.prediction[aligned.valid]
  difference = truth - depth
  worse_ratio = np.maximum(truth / depth, depth / truth)
  return {
    'abs_rel': float(np.mean(np.abs(difference) / truth)),
    'sq_rel': float(np.mean(difference**2 / truth)),
    'rmse': float(np.sqrt(np.mean(difference**2))),
    'rmse_log': float(np.sqrt(np.mean(np.log(truth / depth) ** 2))),
    'a1': float(np.mean(worse_ratio < 1.25)),
    'a2': float(np.mean(worse_ratio < 1.25**2)),
    'a3': float(np.mean(worse_ratio < 1.25**3)),
    'ratio': aligned.ratio,
  }


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes with half-pixel centres, clamped edges and no antialiasing.

  Output pixel i reads input position (i + 0.5) h / H - 0.5, as OpenCV's
  linear interpolation and the field's evaluation do; a library's
  antialiased resize would differ wherever the output is smaller. Maps `[h, w]`
  to `[H, W]` float64, where `size` is (H, W).
  """
  source = np.asarray(image, np.float64)
  low, high, weight = _linear_taps(source.shape[0], int(size[0]))
  rows = _blend(source[low], source[high], weight[:, None])
  low, high, weight = _linear_taps(source.shape[1], int(size[1]))
  # Columns by `take`: indexing them takes twice as long.
  return _blend(np.take(rows, low, 1), np.take(rows, high, 1), weight)


def native_depth(
  inverse_depth: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
  """Returns depth `[H, W]` float64 at the truth's size from inverse depth.

  The inverse depth `[h, w]` is resized, then inverted: resizing depth instead
  would yield a different result.
  """
  return 1.0 / resize_bilinear(inverse_depth, size)


def flip_post_process(
  inverse_depth: np.ndarray, flipped_back: np.ndarray
) -> np.ndarray:
  """Blends a prediction with that of the mirrored image (Monodepth).

  The left 5% come from the mirrored image's prediction, the right 5% from the
  plain one: each saw that side at its own right border, where networks trained
  on stereo pairs are best. The mean of both from 10% on, ramps between.

  Both inputs are `[..., h, w]`, and so is the result, in float64;
  `flipped_back` was predicted on the mirrored image and mirrored back.
  """
  left = np.asarray(inverse_depth, np.float64)
  right = np.asarray(flipped_back, np.float64)
  ramp = np.linspace(0.0, 1.0, left.shape[-1])
  left_weight = 1.0 - np.clip(20.0 * (ramp - 0.05), 0.0, 1.0)
  right_weight = left_weight[::-1]
  mean_weight = 1.0 - left_weight - right_weight
  return (
    right_weight * left
    + left_weight * right
    + mean_weight * 0.5 * (left + right)
  )


def summarize(images: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Averages the errors of the images.

  Args:
    images: one `depth_errors` result per image, at least one.

  Returns:
    The means of the seven errors in the field's order; `ratio`, the median
    scale over the images; `ratio_std`, the deviation of ratio / median; and
    `images`, their number.
  """
  summary = {
    name: float(np.mean([image[name] for image in images]))
    for name in DEPTH_ERRORS
  }
  ratios = np.array([image['ratio'] for image in images])
  median = float(np.median(ratios))
  summary['ratio'] = median
  summary['ratio_std'] = float(np.std(ratios / median))
  summary['images'] = len(images)
  return summary


def _crop_mask(shape, crop):
  height, width = shape
  top, bottom, left, right = CROPS[crop]
  rows = slice(int(top * height), int(bottom * height))
  mask = np.zeros(shape, bool)
  mask[rows, int(left * width) : int(right * width)] = True
  return mask


def _blend(low, high, weight):
  """Returns low + (high - low) * weight, in the memory of `high`."""
  high -= low
  high *= weight
  high += low
  return high


def _linear_taps(length, new_length):
  position = (np.arange(new_length) + 0.5) * (length / new_length) - 0.5
  position = np.clip(position, 0.0, length - 1.0)
  low = position.astype(int)
  return low, np.minimum(low + 1, length - 1), position - low
