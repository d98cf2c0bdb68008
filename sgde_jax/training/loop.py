"""Training: `train_and_evaluate`, the one loop."""

import functools
import itertools
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
import optax
from flax import linen as nn

import input_pipeline
from input_pipeline import files
from sgde_jax import configuration, models, parallel, run_files
from sgde_jax.evaluation import depth, report
from sgde_jax.ops import augmentation, losses
from sgde_jax.training import preemption, run_log, steps, workdirs
from sgde_jax.weights import (
  checkpoints,
  initial,
  optimizer,
  published,
  train_state,
)

_LOGGED = ('log_every', 'picture_every', 'eval_every', 'checkpoint_every')


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> dict[str, float]:
  """Trains in a workdir, from its latest checkpoint if it holds one.

  Args:
    config: the whole config; stored in the workdir.
    workdir: the run's folder, shared by all processes.

  Returns:
    The summary of the last evaluation; empty without ground truth.

  Raises:
    FileNotFoundError: if data or weights are absent.
    ValueError: if they do not fit the config, or another job trains here.
    FloatingPointError: if the loss is not finite.
    KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM; the last step is
      saved.
  """
  with workdirs.claim(workdir):
    return _train(config, pathlib.Path(workdir))


def _train(config, workdir):
  mesh = parallel.create_mesh()
  model = models.create_model(
    config.model, frame_offsets=config.data.frame_offsets
  )
  weights, data = _open_inputs(config, workdir, model, mesh)
  per_epoch = data.train_examples / config.batch_size
  end = config.num_steps or math.ceil(config.num_epochs * per_epoch)
  adam = optimizer.create_optimizer(config.optimizer)
  saved = checkpoints.Checkpoints(workdir, keep=config.keep_checkpoints)
  with saved, preemption.Signals() as signals:
    state = _start_state(config, model, adam, mesh, saved, weights, end)
    start = int(state.step)
    evaluator = None
    if config.data.ground_truth != 'none':
      evaluator = depth.Evaluator(config, data, model=model, mesh=mesh)
    log = _open_log(config, data, workdir, state, evaluator, saved, end)
    if start < end:
      logging.info(
        '%s',
        optimizer.describe_schedule(
          config.optimizer, steps_per_epoch=per_epoch, num_steps=end
        ),
      )
      if jax.process_index() == 0:
        configuration.save(config, workdir)
        configuration.record_start(config, workdir, start)
      batches = data.train_batches(
        seed=config.seed,
        start_step=start,
        batch_size=config.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
      )
      batches = (parallel.to_devices(batch, mesh) for batch in batches)
      train_step, preview_step, batches = compile_steps(
        config, model, adam, mesh, state, batches, steps_per_epoch=per_epoch
      )
    else:
      batches = iter(())
      logging.info(
        'already at step %d of %d: raise config.num_steps (or num_epochs) to'
        ' train on; other changes of the config have no effect',
        start,
        end,
      )

    def evaluate(step):
      logging.info('step %d: evaluating', step)
      evaluation = evaluator.run(state.variables, step=step)
      log.evaluation(step, evaluation.summary)
      if jax.process_index() == 0:
        run_files.write_evaluation(workdir, evaluation)
      evaluator.draw(workdir / 'pictures')

    is_new = evaluator and start not in log.evaluations
    if is_new and _is_due(start, end, config.eval_every):
      evaluate(start)
    profiler = run_log.Profiler(workdir, enabled=config.profile)
    for step in range(start + 1, end + 1):
      profiler.before(step - start, state)
      with log.waiting_for_data():
        batch = next(batches)
      state, scalars = train_step(state, batch)
      log.add(step, scalars)
      stop = signals.stop_after(step) and step < end
      is_due = functools.partial(_is_due, step, end)
      if stop or any(is_due(config[name]) for name in _LOGGED):
        log.write(step)  # Before slow work, so that step timing excludes it.
        saved.check_saved()
      if is_due(config.picture_every):
        log.pictures(step, preview_step(state.variables, batch))
      if evaluator and is_due(config.eval_every) and not stop:
        evaluate(step)
      if stop or is_due(config.eval_every) or is_due(config.checkpoint_every):
        saved.save(state, step=step, metrics=log.evaluations.get(step))
      if stop:
        signals.stop(step)
    logging.info('waiting for the last checkpoint')
  summary = log.close()
  if config.report and jax.process_count() == 1:
    report.write(config, workdir)
  return summary


def compile_steps(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  adam: optax.GradientTransformationExtraArgs,
  mesh: jax.sharding.Mesh,
  state: train_state.TrainState,
  batches: Iterator,
  *,
  steps_per_epoch: float,
) -> tuple[Callable, Callable, Iterator]:
  """Compiles the training step, so that nothing can recompile it later.

  The step donates `state`; `batches` are on the mesh.

  Returns:
    The compiled `steps.train_step`, a function of state and batch; the jitted
    `steps.preview_step`, a function of variables and batch; and the batches,
    none of them consumed.
  """
  replicated, rows = parallel.replicated(mesh), parallel.batch_sharded(mesh)
  parts = {'model': model, 'loss': bind_loss(config.loss, model)}
  augment = functools.partial(augmentation.augment, **config.augmentation)
  train = parallel.jit(
    functools.partial(
      steps.train_step, optimizer=adam, augment=augment, **parts
    ),
    in_shardings=(replicated, replicated, rows),
    out_shardings=(replicated, replicated),
    donate_argnums=1,
  )
  preview = parallel.jit(
    functools.partial(steps.preview_step, **parts),
    in_shardings=(replicated, rows),
    out_shardings=rows,
  )
  logging.info(
    'compiling the training step (minutes on a slow machine; XLA may warn)'
  )
  start = time.monotonic()
  first = next(batches)
  # Arguments, so that JAX's compilation cache serves every seed and data set.
  run = {
    'seed': np.uint32(config.seed % 2**32),
    'decay_steps': optimizer.decay_steps(
      config.optimizer, steps_per_epoch=steps_per_epoch
    ),
  }
  run = parallel.replicate(run, mesh)
  compiled = train.lower(run, state, first).compile()
  logging.info('compiled in %.0f s', time.monotonic() - start)
  train = functools.partial(compiled, run)
  return train, preview, itertools.chain([first], batches)


def bind_loss(
  loss_config: ml_collections.ConfigDict, model: nn.Module
) -> Callable:
  """Returns `losses.weighted_terms` with the options of config and network."""
  return functools.partial(
    losses.weighted_terms,
    frame_offsets=model.frame_offsets,
    min_depth=model.min_depth,
    max_depth=model.max_depth,
    **loss_config,
  )


def _open_inputs(config, workdir, model, mesh):
  """Validates and opens weights and data before any long work."""
  with parallel.failing_together():
    files.check_writable(pathlib.Path(workdir, 'checkpoints'))
    for part, name in ((config, 'config'), (config.eval, 'config.eval')):
      parallel.check_batch_size(part.batch_size, mesh, f'{name}.batch_size')
  weights = {}
  if checkpoints.latest_step(workdir) is None:
    if (workdir / published.MODEL_FILE).exists():
      raise ValueError(
        f'{workdir} holds published weights: to train from them, use another'
        f' --workdir and --config.init_from={workdir}'
      )
    weights = initial.read_weights(config, model, mesh)
  with parallel.failing_together():
    data = input_pipeline.open_data(config.data)
    if config.model.semantics and not data.train_labelled + data.stills:
      raise ValueError(
        'config.model.semantics: no training frame has a mask in'
        ' DRIVE/semantic_02/data; add masks (config.data.labels is their'
        ' coding), set config.data.semantic_root, or train --config=baseline'
      )
    stills = data.stills_per_batch(config.batch_size)
    name = 'stills by config.data.semantic_share'
    parallel.check_batch_size(stills, mesh, name)
  parallel.check_same({'data': data.digest})
  logging.info('%s', data)
  return weights, data


def _start_state(config, model, adam, mesh, saved, weights, end):
  """Restores the latest checkpoint, or initializes at step 0."""
  latest = saved.latest_step()
  if latest is None:
    return initial.new_state(config, model, adam, mesh, weights)
  if latest > end:
    raise ValueError(
      f'this run is at step {latest}, and config.num_steps (or num_epochs) ends'
      f' it at {end}: raise it, or use another --workdir'
    )
  return initial.restore(config, model, mesh, saved)


def _open_log(config, data, workdir, state, evaluator, saved, end):
  """Opens the log, with TensorBoard where there is something to train."""
  start = int(state.step)
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  logging.info('%d parameters, steps %d to %d', count, start, end)
  protocol = 'no ground truth'
  if evaluator:
    protocol = '{protocol}, list {list}'.format_map(depth.describe(config))
  tensorboard = None
  if start < end:
    tensorboard = run_log.open_tensorboard(workdir, state.params)
  return run_log.RunLog(
    workdir,
    protocol=protocol,
    start_step=start,
    num_steps=end,
    batch_size=config.batch_size,
    explain=functools.partial(_explain_loss, config, data, saved),
    tensorboard=tensorboard,
  )


def _explain_loss(config, data, saved, step):
  """Returns advice for a loss that is not finite after the update to `step`."""
  saved.close()  # So that the step named below is on disk.
  examples = data.describe_step(
    step, seed=config.seed, batch_size=config.batch_size
  )
  return (
    f'{examples}; last good checkpoint: step {saved.latest_step()}; check the'
    ' examples, change config.optimizer.learning_rate or clip_norm (without a'
    ' change the same happens again), and start again in the same workdir'
  )


def _is_due(step, num_steps, every):
  """Returns whether `step` is a multiple of `every`, or the last one."""
  return step % every == 0 or step == num_steps
