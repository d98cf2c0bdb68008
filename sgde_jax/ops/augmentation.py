"""Random flip and colour jitter, on the accelerator.

One draw per example, or one for the whole batch, shared by all frames. The
draws are a pure function of the key, so a step can be repeated exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, Key

from sgde_jax.ops import geometry

Images = Float[Array, 'B F H W 3']
Intrinsics = Float[Array, 'B 3 3']
Labels = Integer[Array, 'B H W']
Draws = Float[Array, ' draws']

_GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma.
_RGB_TO_YIQ = (
  _GREY,
  (0.595716, -0.274453, -0.321263),
  (0.211456, -0.522591, 0.311135),
)


def flip(
  images: Images,
  intrinsics: Intrinsics,
  labels: Labels,
  flipped: Bool[Array, ' draws'],
) -> tuple[Images, Intrinsics, Labels]:
  """Mirrors examples left to right, together with their cameras.

  `flipped` has one value per example, or one for the whole batch.
  """

  def choose(mirrored, original):
    return jnp.where(_expand(flipped, original.ndim), mirrored, original)

  cameras = geometry.flip_intrinsics(intrinsics, images.shape[3])
  return (
    choose(images[:, :, :, ::-1], images),
    choose(cameras, intrinsics),
    choose(labels[:, :, ::-1], labels),
  )


def jitter(
  images: Images,
  brightness: Draws,
  contrast: Draws,
  saturation: Draws,
  hue: Draws,
) -> Images:
  """Changes brightness, contrast, saturation and hue, in this order.

  Images are in [0, 1]. The first three are factors, where 1 changes nothing;
  hue is a fraction of a full turn. There is one draw per example or per batch.
  Contrast blends with the frame's mean luma and saturation with each pixel's
  own, clipping after each change as torchvision does; hue turns the chroma
  plane (YIQ).
  """
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
  key: Key[Array, ''],
  images: Images,
  intrinsics: Intrinsics,
  labels: Labels,
  *,
  flip_probability: ArrayLike,
  jitter_probability: ArrayLike,
  brightness: ArrayLike,
  contrast: ArrayLike,
  saturation: ArrayLike,
  hue: ArrayLike,
  whole_batch: bool,
) -> tuple[Images, Images, Intrinsics, Labels]:
  """Draws and applies one augmentation per example, or one for all of them.

  The draws depend on the key alone. Images are in [0, 1]. Brightness, contrast
  and saturation are half-widths of the factors' ranges around 1, hue that of
  the turn's range around 0, in full turns.

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
  """Returns RGB -> RGB matrices `[B, 3, 3]` that turn the chroma plane."""
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
