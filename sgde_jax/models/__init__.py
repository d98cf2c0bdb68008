"""The networks. `create_model` assembles them from a config."""

import jax.numpy as jnp

from sgde_jax.models import depth_model
from sgde_jax.ops import edges

semantic_edges = edges.semantic_edges
DepthModel = depth_model.DepthModel
DepthOutputs = depth_model.DepthOutputs

_DTYPES = ('float32', 'bfloat16', 'float64')


def create_model(config, *, frame_offsets=(0, -1, 1)):
  """Builds the network that `config` describes.

  Args:
    config: the `model` part of a config.
    frame_offsets: time of each frame relative to the target, 0 first.

  Returns:
    A Flax module; `.apply(variables, frames, train=...)` returns
    `DepthOutputs`.

  Raises:
    ValueError: if the config asks for something that does not exist, or for
      attention or SEEM without semantics.
  """
  if config.dtype not in _DTYPES:
    raise ValueError(
      f'config.model.dtype = {config.dtype!r}: use one of {_DTYPES}'
    )
  attention, seem = config.attention.to_dict(), config.seem.to_dict()
  levels = tuple(attention.pop('levels'))
  enabled = seem.pop('enabled')
  if not config.semantics and (levels or enabled):
    raise ValueError(
      'config.model.attention.levels and config.model.seem.enabled need'
      ' config.model.semantics = True: set the one to () and the other to False'
    )
  return DepthModel(
    encoder_layers=config.encoder_layers,
    pose_layers=config.pose_layers,
    frame_offsets=tuple(frame_offsets),
    semantics=config.semantics,
    attention_levels=levels,
    attention=depth_model.AttentionOptions(**attention),
    seem=depth_model.SeemOptions(**seem) if enabled else None,
    dtype=jnp.dtype(config.dtype),
  )
