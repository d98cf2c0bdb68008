"""The networks. `create_model` assembles them from a config."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sgde_jax.models import depth_model

DepthModel = depth_model.DepthModel
DepthOutputs = depth_model.DepthOutputs


def create_model(
  model_config: Any, *, frame_offsets: Sequence[int] = (0, -1, 1)
) -> DepthModel:
  """Builds the network that a config describes.

  Args:
    model_config: the `model` part of a config.
    frame_offsets: time of each frame relative to the target, 0 first.

  Raises:
    ValueError: if attention or SEEM is on without semantics.
  """
  attention = model_config.attention.to_dict()
  seem = model_config.seem.to_dict()
  levels, enabled = tuple(attention.pop('levels')), seem.pop('enabled')
  if not model_config.semantics and (levels or enabled):
    raise ValueError(
      'config.model.attention.levels and config.model.seem.enabled need'
      ' config.model.semantics = True: set the first to (), the second to False'
    )
  return DepthModel(
    encoder_layers=model_config.encoder_layers,
    pose_layers=model_config.pose_layers,
    frame_offsets=tuple(frame_offsets),
    semantics=model_config.semantics,
    attention_levels=levels,
    attention=attention,
    seem=seem if enabled else None,
    min_depth=model_config.min_depth,
    max_depth=model_config.max_depth,
    dtype=jnp.dtype(model_config.dtype),
  )


def to_float(images: jax.Array) -> jax.Array:
  """Maps uint8 images to float32 in [0, 1]."""
  return images.astype(jnp.float32) / 255


def most_likely(logits: jax.Array) -> jax.Array:
  """Maps logits `[..., C]` to train ids `[...]` uint8."""
  return jnp.argmax(logits, axis=-1).astype(jnp.uint8)
