"""Priors on disparity, ours: neither the paper nor Monodepth2 has them."""

import jax.numpy as jnp


def scale_prior(disparity_logits):
  """Squared excess of the mean logit over [-4, 0], mean over scales.

  Monocular video leaves the scale of depth free: while the motions are wrong it
  drifts, until the sigmoid is 1 or 0 everywhere and has no gradient. This is a
  scalar, 0 for mean disparities of 0.02 to 0.5 (depths of 5 m to 0.2 m).

  Args:
    disparity_logits: one `[B, h, w, 1]` float per scale.
  """
  means = jnp.stack([jnp.mean(logits) for logits in disparity_logits])
  return jnp.mean(jnp.maximum(jnp.abs(means + 2) - 2, 0) ** 2)


def segment_prior(point_logits, inside_logits, mask, *, num_pixels):
  """How far SEEM's points are from the inside of their own segments.

  Where two classes meet, depth steps, and the coarse disparity is a smooth
  surface. So near a border a pixel's own segment says more of its depth than
  the photometric loss does, which sees occlusions and windows of 3 x 3 pixels.

  Args:
    point_logits: `[B, K, 1]` float, SEEM's disparity logits.
    inside_logits: `[B, K, 1]` float, see `edges.from_inside`.
    mask: `[B, K]` bool, the points that count.
    num_pixels: number of all pixels of the batch.

  Returns:
    Scalar: the sum of the absolute differences over the number of pixels, so
    that a point weighs as a pixel does.
  """
  distances = jnp.abs(point_logits - inside_logits)[..., 0]
  return jnp.sum(jnp.where(mask, distances, 0)) / num_pixels
