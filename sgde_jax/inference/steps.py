"""Predictions of a trained network for a batch: functions to compile."""

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from sgde_jax import models
from sgde_jax.ops import geometry

# Pixels whose attention is drawn, as fractions of width and height.
_QUERIES = ((0.5, 0.85), (0.2, 0.6), (0.8, 0.6))


@flax.struct.dataclass
class BatchPrediction:
  """The output of `predict_step`.

  Attributes:
    inverse_depth: `[B, H, W]` float32 in 1/metres, up to the training's unknown
      scale; with `flip` `[B, 2, H, W]`, the second predicted on the mirrored
      frames and mirrored back.
    labels: `[B, H, W]` uint8 train ids; None without semantics.
  """

  inverse_depth: jax.Array
  labels: jax.Array | None = None


def predict_step(
  variables: dict, frames: jax.Array, *, model: nn.Module, flip: bool = False
) -> BatchPrediction:
  """Predicts frames `[B, H, W, 3]` uint8, with `flip` also mirrored."""
  images = models.to_float(frames)
  limits = {'min_depth': model.min_depth, 'max_depth': model.max_depth}

  def predict(images):
    outputs = model.apply(variables, images[:, None], train=False)
    disparity = outputs.disparity[..., 0]
    inverse_depth = geometry.disparity_to_inverse_depth(disparity, **limits)
    return inverse_depth, outputs.logits

  inverse_depth, logits = predict(images)
  labels = None if logits is None else models.most_likely(logits)
  if flip:
    mirrored = predict(images[:, :, ::-1])[0][:, :, ::-1]
    inverse_depth = jnp.stack([inverse_depth, mirrored], axis=1)
  return BatchPrediction(inverse_depth, labels)


def label_step(
  variables: dict, frames: jax.Array, *, model: nn.Module
) -> jax.Array:
  """Predicts the classes `[B, H, W]` uint8 of frames `[B, H, W, 3]` alone."""
  images = models.to_float(frames)
  logits = model.apply(variables, images, train=False, method='segment')
  return models.most_likely(logits)


def attention_maps(
  variables: dict, images: jax.Array, *, model: nn.Module
) -> dict[str, jax.Array]:
  """Returns where some pixels of images `[B, H, W, 3]` in [0, 1] look.

  Returns:
    `queries` `[B, P, 2]` pixels (x, y) and, for each level, `attention_I`
    `[B, P, h, w]`, their attention maps; {} without attention.
  """
  if not model.attention_levels:
    return {}
  height, width = images.shape[1:3]
  queries = jnp.array([(f * width, g * height) for f, g in _QUERIES], int)
  queries = jnp.tile(queries[None], (len(images), 1, 1))
  maps = model.apply(variables, images, queries, method='attention_maps')
  return {'queries': queries} | {
    f'attention_{level}': weights for level, weights in maps.items()
  }


def motion_step(
  variables: dict, frames: jax.Array, *, model: nn.Module
) -> jax.Array:
  """Predicts the motion between frames `[B, 2, H, W, 3]` in temporal order.

  Returns:
    `[B, 4, 4]` float32, T_first_second: the pose of the second camera in the
    first one, metres up to the training's unknown scale.
  """
  images = models.to_float(frames)
  axis_angle, translation = model.apply(
    variables, images[:, 0], images[:, 1], train=False, method='pair_motion'
  )
  return geometry.pose_vector_to_matrix(axis_angle, translation, invert=True)
