"""The state that training starts from, and that the other modes use."""

import logging
import pathlib

import flax.traverse_util
import jax
import jax.numpy as jnp
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

  `config.init_from` is another workdir or published weights, see
  `published.read_parts`. If it is '', `config.model.encoder_weights` and
  `pose_weights` are files of ImageNet weights.

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
  weights = _read_published(config, config.init_from, wanted.variables)
  if weights:
    return weights
  with checkpoints.Checkpoints(config.init_from, read_only=True) as other:
    step = other.find_step(config.init_checkpoint)
    if step is None:
      raise FileNotFoundError(
        f'config.init_from: no checkpoint in {config.init_from}, and no'
        f' published weights ({published.MODEL_FILE}, or encoder.pth and'
        ' depth.pth)'
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

  The state has no optimizer's. If the workdir holds no checkpoint, uses
  published weights there, such as `--mode=publish` writes, else those of
  `config.init_from`, if it is set.

  Raises:
    FileNotFoundError: if there is no checkpoint.
    ValueError: if it does not fit the config.
  """
  model = models.create_model(
    config.model, frame_offsets=config.data.frame_offsets
  )
  if checkpoints.latest_step(workdir) is None:
    wanted = template(config, model, mesh)
    weights = _read_published(config, workdir, wanted.variables)
    if not weights and config.init_from:
      logging.info(
        'no checkpoint in %s: using config.init_from=%s',
        workdir,
        config.init_from,
      )
      weights = read_weights(config, model, mesh)
    if weights:
      return model, _state_of(config, model, mesh, weights, wanted)
  with checkpoints.Checkpoints(workdir, read_only=True) as saved:
    wanted = None
    if not configuration.has_own_model(config, workdir):
      wanted = template(config, model, mesh).variables
    step = saved.find_step(config.eval.checkpoint)
    state = saved.restore_variables(wanted, step=step)
    return model, parallel.replicate(state, mesh)


def _state_of(config, model, mesh, weights, wanted):
  """Returns a state of the weights, without an optimizer if they are all."""
  if len(weights) < len(jax.tree.leaves(wanted.variables)):
    adam = optimizer.create_optimizer(config.optimizer)
    return new_state(config, model, adam, mesh, weights)
  step = jnp.zeros((), jnp.int32)
  variables = flax.traverse_util.unflatten_dict(weights, sep='/')
  state = train_state.TrainState(step, opt_state=(), **variables)
  return parallel.replicate(state, mesh)


def _read_published(config, source, variables):
  """Reads the published weights at `source`; {} if there are none."""
  parts = published.read_parts(source)
  if not parts:
    return {}
  weights = published.match_weights(parts, variables)
  _warn_of_differences(config, source, parts, variables)
  return weights


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


def _warn_of_differences(config, source, parts, variables):
  """Warns where published weights do not match the config."""
  others = published.list_others(parts, variables)
  if others:
    logging.warning(
      '%s has no weights for %s, which are initialized at random',
      source,
      ', '.join(others),
    )
  size = published.trained_size(parts)
  if size not in (None, (config.data.height, config.data.width)):
    logging.warning(
      '%s was trained at %dx%d, and the images are resized to %dx%d: for best'
      ' results use --config.data.height=%d --config.data.width=%d',
      source,
      *size[::-1],
      config.data.width,
      config.data.height,
      *size,
    )
