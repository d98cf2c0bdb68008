"""The state that training starts from, and that the other modes use."""

import logging
import pathlib

import flax.traverse_util
import jax
import ml_collections
import optax
from flax import linen as nn

from sgde_jax import configuration, models, parallel
from sgde_jax.weights import checkpoints, optimizer, published, train_state


def read_weights(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  mesh: jax.sharding.Mesh,
) -> dict[str, jax.Array]:
  """Reads the weights that a new run starts from.

  `config.init_from` is another workdir or a folder of published weights. If it
  is '', `config.model.encoder_weights` and `pose_weights` are files of ImageNet
  weights.

  Returns:
    Variables by their slash-separated names; those that are absent start from
    their initializers.

  Raises:
    FileNotFoundError: if a file is absent, or `init_from` has neither a
      checkpoint nor published weights.
    ValueError: if they do not fit the config or cannot be read.
  """
  files = config.model.encoder_weights or config.model.pose_weights
  if not (config.init_from or files):
    return {}
  wanted = template(config, model, mesh)
  if not config.init_from:
    return published.read_imagenet_weights(config.model, wanted.variables)
  parts = published.read_parts(config.init_from)
  if parts:
    weights = published.match_weights(parts, wanted.variables)
    _warn_of_differences(config, parts, wanted.variables)
    return weights
  with checkpoints.Checkpoints(config.init_from, read_only=True) as other:
    step = other.find_step(config.init_checkpoint)
    if step is None:
      raise FileNotFoundError(
        f'config.init_from: no checkpoint in {config.init_from}, and no'
        ' published weights (encoder.pth, depth.pth, or .npz)'
      )
    variables = other.restore(wanted, step=step).variables
  return flax.traverse_util.flatten_dict(variables, sep='/')


def new_state(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  adam: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  weights: dict[str, jax.Array],
) -> train_state.TrainState:
  """Initializes a state at step 0 on the mesh, with the given weights.

  `weights` is the result of `read_weights`.
  """
  logging.info('initializing the parameters')
  new = train_state.create_state(
    jax.random.key(config.seed),
    model=model,
    optimizer=adam,
    image_size=(config.data.height, config.data.width),
  )
  flat = flax.traverse_util.flatten_dict(new.variables, sep='/')
  variables = flax.traverse_util.unflatten_dict(flat | weights, sep='/')
  return parallel.replicate(new.replace(**variables), mesh)


def restore(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  mesh: jax.sharding.Mesh,
  saved: checkpoints.Checkpoints,
  which: str = 'latest',
) -> train_state.TrainState:
  """Restores a run's `latest` or `best` checkpoint onto the mesh."""
  return saved.restore(
    template(config, model, mesh), step=saved.find_step(which)
  )


def load_trained(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  mesh: jax.sharding.Mesh,
) -> tuple[nn.Module, train_state.TrainState]:
  """Builds the network and restores the checkpoint `config.eval.checkpoint`.

  The state has no optimizer's. If the workdir holds no checkpoint, uses the
  weights of `config.init_from`, if it is set.

  Raises:
    FileNotFoundError: if there is no checkpoint.
    ValueError: if it does not fit the config.
  """
  model = models.create_model(
    config.model, frame_offsets=config.data.frame_offsets
  )
  with checkpoints.Checkpoints(workdir, read_only=True) as saved:
    if saved.latest_step() is not None or not config.init_from:
      wanted = None
      if not configuration.has_own_model(config, workdir):
        wanted = template(config, model, mesh).variables
      step = saved.find_step(config.eval.checkpoint)
      state = saved.restore_variables(wanted, step=step)
      return model, parallel.replicate(state, mesh)
  logging.info(
    'no checkpoint in %s: using config.init_from=%s', workdir, config.init_from
  )
  weights = read_weights(config, model, mesh)
  adam = optimizer.create_optimizer(config.optimizer)
  return model, new_state(config, model, adam, mesh, weights)


def template(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  mesh: jax.sharding.Mesh,
) -> train_state.TrainState:
  """Returns shapes, dtypes and shardings of a run's state."""
  return train_state.abstract_state(
    model=model,
    optimizer=optimizer.create_optimizer(config.optimizer),
    image_size=(config.data.height, config.data.width),
    mesh=mesh,
  )


def _warn_of_differences(config, parts, variables):
  """Warns where published weights do not match the config."""
  others = published.list_others(parts, variables)
  if others:
    logging.warning(
      '%s has no weights for %s, which are initialized at random',
      config.init_from,
      ', '.join(others),
    )
  size = published.trained_size(parts)
  if size not in (None, (config.data.height, config.data.width)):
    logging.warning(
      '%s was trained at %dx%d, and the images are resized to %dx%d: for best'
      ' results use --config.data.height=%d --config.data.width=%d',
      config.init_from,
      *size[::-1],
      config.data.width,
      config.data.height,
      *size,
    )
