"""How training starts: optimizer, first state, batches, compiled steps."""

import contextlib
import functools
import itertools
import logging
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgde_jax import models, parallel
from sgde_jax.training import steps
from sgde_jax.weights import checkpoints as checkpointing
from sgde_jax.weights import published

_NEVER = 2**31 - 1  # The optimizer counts steps in 32 bits.


def start_state(config, model, optimizer, mesh, checkpoints, *, num_steps):
  """Restores the latest checkpoint, or initialises at step 0.

  Args:
    config: the whole config; a new run starts from the weights of `init_from`,
      if that is set.
    model: the network.
    optimizer: an Optax transformation.
    mesh: the mesh, on which the state is replicated.
    checkpoints: of this run's workdir.
    num_steps: where training will end.

  Returns:
    A `steps.TrainState` on the mesh.

  Raises:
    FileNotFoundError: a checkpoint or weights are absent.
    ValueError: they do not fit the config, or the run is beyond its end.
  """
  template = abstract_train_state(config, model, mesh)
  latest = checkpoints.latest_step()
  if latest is not None:
    if latest > num_steps:
      raise ValueError(
        f'this run is at step {latest}, and with config.num_steps (or'
        f' num_epochs) it ends at {num_steps}: ask for more, or use another'
        ' --workdir'
      )
    return checkpoints.restore(template)
  return new_state(config, model, optimizer, mesh)


def new_state(config, model, optimizer, mesh):
  """Initialises a state at step 0, with other weights if they are asked for.

  Args:
    config: the whole config.
    model: the network.
    optimizer: an Optax transformation.
    mesh: the mesh, on which the state is replicated.

  Returns:
    A `steps.TrainState` on the mesh.

  Raises:
    FileNotFoundError, ValueError: weights are absent or do not fit.
  """
  state = create_train_state(
    jax.random.key(config.seed),
    model=model,
    optimizer=optimizer,
    image_size=(config.data.height, config.data.width),
    config=None if config.init_from else config.model,
  )
  if config.init_from:
    template = abstract_train_state(config, model, mesh)
    with _other_weights(config.init_from) as (parts, other):
      if parts:
        new = published.load_torch_weights(parts, state.variables)
        _warn_of_differences(config, parts, state.variables)
      else:
        step = other.find_step(config.eval.checkpoint)
        new = other.restore(template, step=step).variables
    state = state.replace(**new)
  return parallel.replicate(state, mesh)


def load_trained(config, workdir, mesh):
  """Builds the model and restores a checkpoint onto the mesh.

  Args:
    config: the whole config.
    workdir: folder of a trained run; or of none yet, which then has the weights
      that it would start from, if `config.init_from` names some.
    mesh: the mesh.

  Returns:
    The model and a `steps.TrainState`.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it does not fit the config.
  """
  model = create_model(config)
  with checkpointing.Checkpoints(workdir, read_only=True) as checkpoints:
    if config.init_from and checkpoints.latest_step() is None:
      logging.info(
        'no checkpoint in %s: weights of config.init_from=%s',
        workdir,
        config.init_from,
      )
      optimizer = create_optimizer(config.optimizer, steps_per_epoch=1)
      return model, new_state(config, model, optimizer, mesh)
    template = abstract_train_state(config, model, mesh)
    step = checkpoints.find_step(config.eval.checkpoint)
    return model, checkpoints.restore(template, step=step)


def check_weights(config, workdir):
  """Refuses a new run that cannot start from the weights it asks for.

  Args:
    config: the whole config.
    workdir: the run's folder; a run that goes on needs no other weights.

  Raises:
    FileNotFoundError: `init_from` has no checkpoint and no published weights;
      or a file of ImageNet weights is absent, the message says which to get.
    ValueError: the weights do not fit the config, or cannot be read.
  """
  files = config.model.encoder_weights or config.model.pose_weights
  new = checkpointing.latest_step(workdir) is None
  if not new or not (config.init_from or files):
    return
  model = create_model(config)
  template = abstract_train_state(config, model, parallel.create_mesh())
  if config.init_from:
    _check_init_from(config, template)
  else:
    _check_imagenet_files(config.model, template)


def _warn_of_differences(config, parts, variables):
  """Warns where published weights are not all that the config describes."""
  others = published.list_others(parts, variables)
  if others:
    logging.warning(
      '%s has no weights of %s, which start afresh',
      config.init_from,
      ', '.join(others),
    )
  size = published.trained_size(parts)
  if size not in (None, (config.data.height, config.data.width)):
    logging.warning(
      '%s learnt from frames of %dx%d, and these are %dx%d: they come out best'
      ' with --config.data.height=%d --config.data.width=%d',
      config.init_from,
      *size[::-1],
      config.data.width,
      config.data.height,
      *size,
    )


def _check_init_from(config, template):
  with _other_weights(config.init_from) as (parts, other):
    if parts:  # Names and shapes are compared, whatever the template's values.
      published.load_torch_weights(parts, template.variables)
    else:
      other.check(template, step=other.find_step(config.eval.checkpoint))


@contextlib.contextmanager
def _other_weights(folder):
  """Yields a folder's published weights, by part, and its checkpoints."""
  other = checkpointing.Checkpoints(folder, read_only=True)
  try:
    yield published.read_parts(folder), other
  except (FileNotFoundError, ValueError) as error:
    raise type(error)(f'config.init_from: {error}') from error
  finally:
    other.close()


def _check_imagenet_files(config, template):
  try:  # Names and shapes are compared, whatever the template's values.
    published.load_imagenet_weights(config, template.variables)
  except ValueError as error:
    raise ValueError(
      'config.model.encoder_weights and pose_weights, for'
      f' ResNet-{config.encoder_layers} and -{config.pose_layers}: {error}'
    ) from error


def check_labels(config, data):
  """Refuses to train semantics without a single label.

  Args:
    config: the `model` part of a config.
    data: an `input_pipeline.Data`.

  Raises:
    ValueError: there is no label.
  """
  if config.semantics and not data.train_labelled + data.stills:
    raise ValueError(
      'config.model.semantics: no training frame has a mask in'
      ' DRIVE/semantic_02/data; add masks (config.data.labels is their coding),'
      ' set config.data.semantic_root, or train configs/ablation.py:baseline'
    )


def create_model(config):
  """Builds the network of a whole config; see `models.create_model`."""
  return models.create_model(
    config.model, frame_offsets=config.data.frame_offsets
  )


def create_optimizer(config, *, steps_per_epoch):
  """Adam with step decay and optional clipping by global norm.

  Args:
    config: the `optimizer` part of a config.
    steps_per_epoch: updates in one pass over the data.

  Returns:
    An Optax transformation.
  """
  schedule = optax.piecewise_constant_schedule(
    config.learning_rate, _decays(config, steps_per_epoch)
  )
  clip = (
    optax.clip_by_global_norm(config.clip_norm)
    if config.clip_norm
    else optax.identity()
  )
  return optax.chain(clip, optax.adam(schedule))


def describe_schedule(config, *, steps_per_epoch, num_steps):
  """Says when the learning rate changes.

  Args:
    config: the `optimizer` part of a config.
    steps_per_epoch: updates in one pass over the data.
    num_steps: the last step.

  Returns:
    One line of text; it names decays that training ends before.
  """
  rate, parts = config.learning_rate, []
  for step, factor in sorted(_decays(config, steps_per_epoch).items()):
    rate *= factor
    beyond = ', which is never reached' if step >= num_steps else ''
    parts.append(f', {rate:.3g} after step {step}{beyond}')
  return f'learning rate {config.learning_rate:.3g}{"".join(parts)}'


def _decays(config, steps_per_epoch):
  """Step -> the factor that the learning rate is multiplied by after it."""
  factors = {}
  for epoch in config.decay_epochs:
    step = round(min(epoch * steps_per_epoch, _NEVER))
    factors[step] = factors.get(step, 1.0) * config.decay_factor
  return factors


def create_train_state(key, *, model, optimizer, image_size, config):
  """Initialises parameters (ImageNet weights if asked for) and optimizer.

  Args:
    key: a JAX random key.
    model: the network.
    optimizer: an Optax transformation.
    image_size: (height, width) of the training images.
    config: the `model` part of a config, for its weight files, or None.

  Returns:
    A `steps.TrainState` at step 0, on the host's default device.

  Raises:
    FileNotFoundError, ValueError: if weights are absent or do not fit.
  """
  # On the CPU XLA's full optimization takes four times as long here, over some
  # hundred small random number generators, for a program that runs once.
  state = parallel.jit(
    lambda key: _initialise(key, model, optimizer, image_size),
    cpu_options={'xla_backend_optimization_level': 1},
  )(key)
  if config is None:
    return state
  return state.replace(
    **published.load_imagenet_weights(config, state.variables)
  )


def abstract_train_state(config, model, mesh):
  """Shapes, dtypes and shardings of a `TrainState`, nothing computed.

  Args:
    config: the whole config.
    model: the network.
    mesh: the mesh that will hold the state, replicated.

  Returns:
    A `TrainState` of `jax.ShapeDtypeStruct`.
  """
  optimizer = create_optimizer(config.optimizer, steps_per_epoch=1)
  state = jax.eval_shape(
    lambda key: _initialise(
      key, model, optimizer, (config.data.height, config.data.width)
    ),
    jax.random.key(0),
  )
  placement = parallel.replicated(mesh)
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=placement
    ),
    state,
  )


def open_batches(config, data, mesh, start_step):
  """Global training batches on the mesh, from a step on."""
  batches = data.train_batches(
    seed=config.seed,
    start_step=start_step,
    batch_size=config.batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  return parallel.device_batches(batches, mesh)


def compile_steps(config, model, optimizer, mesh, state, batches):
  """Compiles the training step, so that nothing can recompile it later.

  Args:
    config: the whole config.
    model: the network.
    optimizer: an Optax transformation.
    mesh: the mesh.
    state: a `steps.TrainState` on the mesh; the step takes it over (donated).
    batches: iterator of batches on the mesh.

  Returns:
    The compiled `steps.train_step`, a function of state and batch; the jitted
    `steps.preview_step`, a function of variables and batch; and the batches,
    none of them used up.
  """
  replicated, rows = parallel.replicated(mesh), parallel.batch_sharded(mesh)
  loss_options = config.loss.to_dict()
  train_step = parallel.jit(
    functools.partial(
      steps.train_step,
      model=model,
      optimizer=optimizer,
      augmentation_options=config.augmentation.to_dict(),
      loss_options=loss_options,
    ),
    in_shardings=(replicated, replicated, rows),
    out_shardings=(replicated, replicated),
    donate_argnums=1,
  )
  preview_step = parallel.jit(
    functools.partial(
      steps.preview_step, model=model, loss_options=loss_options
    ),
    in_shardings=(replicated, rows),
    out_shardings=rows,
  )
  logging.info('compiling the training step')
  start = time.monotonic()
  first = next(batches)
  # An argument, so that JAX's compilation cache serves every seed.
  seed = parallel.replicate(np.uint32(config.seed % 2**32), mesh)
  compiled = train_step.lower(seed, state, first).compile()
  logging.info('compiled in %.0f s', time.monotonic() - start)
  train_step = functools.partial(compiled, seed)
  return train_step, preview_step, itertools.chain([first], batches)


def _initialise(key, model, optimizer, image_size):
  frames = jnp.zeros((1, len(model.frame_offsets), *image_size, 3))
  variables = model.init(key, frames, train=False)
  return steps.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=optimizer.init(variables['params']),
  )
