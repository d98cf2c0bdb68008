"""Random flip and colour jitter, on the accelerator.

One draw per example, or for the whole batch, shared by all frames. The draws
are a pure function of the key, so a step can be repeated exactly.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sgde_jax.ops import geometry

_GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma.
_RGB_TO_YIQ = (
  _GREY,
  (0.595716, -0.274453, -0.321263),
  (0.211456, -0.522591, 0.311135),
)


def flip(images, intrinsics, labels, flipped):
  """Mirrors examples left to right, their cameras with them.

  Args:
    images: `[B, F, H, W, 3]`.
    intrinsics: `[B, 3, 3]`; cx becomes W - 1 - cx where flipped.
    labels: `[B, H, W]`.
    flipped: `[B]` bool, or `[1]` for the whole batch.

  Returns:
    images, intrinsics and labels.
  """
  chex.assert_rank([images, intrinsics, labels], [5, 3, 3])
  width = images.shape[3]
  return (
    jnp.where(_expand(flipped, 5), images[:, :, :, ::-1], images),
    jnp.where(
      _expand(flipped, 3),
      geometry.flip_intrinsics(intrinsics, width),
      intrinsics,
    ),
    jnp.where(_expand(flipped, 3), labels[:, :, ::-1], labels),
  )


def jitter(images, brightness, contrast, saturation, hue):
  """Changes colours: brightness, contrast, saturation and hue, in this order.

  Contrast blends with the frame's mean luma and saturation with each pixel's,
  clipping after each change as torchvision does; hue turns the chroma plane
  (YIQ).

  Args:
    images: `[B, F, H, W, 3]` float in [0, 1].
    brightness: `[B]` factor, 1 changes nothing; likewise below, `[1]` serves
      the whole batch.
    contrast: `[B]` factor.
    saturation: `[B]` factor.
    hue: `[B]` part of a full turn, 0 changes nothing.

  Returns:
    Images in [0, 1].
  """
  chex.assert_rank(
    [images, brightness, contrast, saturation, hue], [5, 1, 1, 1, 1]
  )

  # One plane `[B, F, H, W]` per channel: with the width innermost the changes
  # run over many pixels at once, an order of magnitude faster on the CPU.
  channels = jnp.unstack(images, axis=-1)

  def blend(channels, other, factor):
    factor = _expand(factor, 4)
    return [
      jnp.clip(factor * channel + (1 - factor) * other, 0, 1)
      for channel in channels
    ]

  channels = blend(channels, 0.0, brightness)
  mean = jnp.mean(_luma(channels), axis=(2, 3), keepdims=True)
  channels = blend(channels, mean, contrast)
  channels = blend(channels, _luma(channels), saturation)
  turn = _hue_matrix(hue, images.dtype)
  turned = [
    sum(
      _expand(turn[:, row, column], 4) * channel
      for column, channel in enumerate(channels)
    )
    for row in range(3)
  ]
  return jnp.clip(jnp.stack(turned, axis=-1), 0, 1)


def augment(
  key,
  images,
  intrinsics,
  labels,
  *,
  flip_probability,
  jitter_probability,
  brightness,
  contrast,
  saturation,
  hue,
  whole_batch,
):
  """Draws and applies one augmentation per example, or one for all of them.

  Args:
    key: a JAX random key; the draws depend on nothing else.
    images: `[B, F, H, W, 3]` float in [0, 1].
    intrinsics: `[B, 3, 3]` float.
    labels: `[B, H, W]` integers.
    flip_probability: of mirroring an example.
    jitter_probability: of changing an example's colours.
    brightness: half-width of the factor's range around 1; likewise
      `contrast` and `saturation`.
    contrast: see `brightness`.
    saturation: see `brightness`.
    hue: half-width of the turn's range around 0, in full turns.
    whole_batch: one draw for all examples instead of one for each.

  Returns:
    The clean images (for the losses), the jittered ones (for the networks),
    intrinsics and labels.
  """
  draws = (1 if whole_batch else len(images),)
  keys = jax.random.split(key, 6)
  flipped = jax.random.bernoulli(keys[0], flip_probability, draws)
  jittered = jax.random.bernoulli(keys[1], jitter_probability, draws)
  images, intrinsics, labels = flip(images, intrinsics, labels, flipped)

  def draw(key, centre, half_width):
    change = jax.random.uniform(
      key, draws, images.dtype, -half_width, half_width
    )
    return centre + change

  coloured = jitter(
    images,
    draw(keys[2], 1.0, brightness),
    draw(keys[3], 1.0, contrast),
    draw(keys[4], 1.0, saturation),
    draw(keys[5], 0.0, hue),
  )
  coloured = jnp.where(_expand(jittered, 5), coloured, images)
  return images, coloured, intrinsics, labels


def _luma(channels):
  return sum(
    weight * channel for weight, channel in zip(_GREY, channels, strict=True)
  )


def _hue_matrix(hue, dtype):
  """RGB -> RGB matrices `[B, 3, 3]` that turn the chroma plane."""
  angle = 2 * jnp.pi * hue
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  zero, one = jnp.zeros_like(angle), jnp.ones_like(angle)
  turn = jnp.stack(
    [one, zero, zero, zero, cosine, -sine, zero, sine, cosine], axis=-1
  ).reshape(-1, 3, 3)
  to_yiq = np.array(_RGB_TO_YIQ)
  to_rgb = np.linalg.inv(to_yiq)
  return jnp.einsum(
    'ij,bjk,kl->bil',
    to_rgb.astype(dtype),
    turn,
    to_yiq.astype(dtype),
    precision='highest',
  )


def _expand(values, rank):
  """Appends axes to `[B]` up to `rank`."""
  return values.reshape(values.shape + (1,) * (rank - 1))
