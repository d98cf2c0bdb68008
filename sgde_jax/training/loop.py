"""Training: `train_and_evaluate`, the one loop."""

import functools
import logging
import math
import pathlib

import jax

import input_pipeline
from input_pipeline import files
from sgde_jax import configuration, parallel
from sgde_jax.evaluation import depth
from sgde_jax.training import log, preemption
from sgde_jax.weights import checkpoints as checkpointing
from sgde_jax.weights import initial

# A report comes before whatever else takes time, which it must not count.
_REPORTED = ('log_every', 'picture_every', 'eval_every', 'checkpoint_every')


def train_and_evaluate(config, workdir):
  """Trains in a workdir, from its latest checkpoint on if it holds one.

  Args:
    config: the whole config; stored in the workdir.
    workdir: the run's folder, shared by all processes.

  Returns:
    The last summary of `evaluate.Evaluator.run`; {} without ground truth.

  Raises:
    FileNotFoundError, ValueError: what was given does not fit; before any work.
    FloatingPointError: the loss is not finite.
    KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM; the last step is saved.
  """
  mesh = parallel.create_mesh()
  data = _check(config, workdir, mesh)
  model = initial.create_model(config)
  num_steps, optimizer = _plan(config, data.train_examples)
  checkpoints = checkpointing.Checkpoints(workdir, keep=config.keep_checkpoints)
  explain = functools.partial(log.explain_loss, config, data, checkpoints)
  with checkpoints, preemption.Signals() as signals:
    state = initial.start_state(
      config, model, optimizer, mesh, checkpoints, num_steps=num_steps
    )
    start_step = int(state.step)
    evaluator = depth.open_evaluator(config, data, model=model, mesh=mesh)
    reporter = _open_report(config, workdir, state, evaluator, num_steps)
    if start_step < num_steps:
      batches = initial.open_batches(config, data, mesh, start_step)
      train_step, preview_step, batches = initial.compile_steps(
        config, model, optimizer, mesh, state, batches
      )
    if _is_due(start_step, num_steps, config.eval_every):
      evaluator.report(state, reporter, start_step)
    reporter.restart_clock()
    unread = []  # Scalars still on the device: (step, dict of arrays).
    for step in range(start_step + 1, num_steps + 1):
      reporter.profile(step - start_step, state, enabled=config.profile)
      batch = reporter.wait_for_data(batches)
      state, scalars = train_step(state, batch)
      unread.append((step, scalars))
      due = functools.partial(_is_due, step, num_steps)
      ending = signals.end_after(step) and step < num_steps
      if ending or any(due(config[name]) for name in _REPORTED):
        means = log.read_scalars(unread, explain)
        reporter.training(step, means, batch_size=config.batch_size)
        checkpoints.refuse_failed()
        unread = []
      if due(config.picture_every):
        reporter.previews(step, preview_step(state.variables, batch))
      if due(config.eval_every) and not ending:
        evaluator.report(state, reporter, step)
      if ending or due(config.eval_every) or due(config.checkpoint_every):
        measures = reporter.evaluations.get(step)
        checkpoints.save(state, step=step, metrics=measures)
        reporter.restart_clock()
      if ending:
        signals.end(step)
  return reporter.close()


def _check(config, workdir, mesh):
  """Refuses what cannot be trained; returns what the data holds."""
  with parallel.failing_together():
    configuration.check(config)
    for folder in (workdir, pathlib.Path(workdir, 'checkpoints')):
      files.check_writable(folder)
    for part, name in ((config, 'config'), (config.eval, 'config.eval')):
      parallel.check_batch_size(part.batch_size, mesh, f'{name}.batch_size')
  initial.check_weights(config, workdir)
  with parallel.failing_together():
    data = input_pipeline.open_data(config.data)
    parallel.check_batch_size(
      data.stills_per_batch(config.batch_size),
      mesh,
      'stills by config.data.semantic_share',
    )
    initial.check_labels(config.model, data)
  parallel.check_same({'data': data.digest})
  logging.info('%s', data)
  return data


def _plan(config, num_examples):
  """Returns the steps to train and the optimizer."""
  per_epoch = num_examples / config.batch_size
  num_steps = config.num_steps or math.ceil(config.num_epochs * per_epoch)
  logging.info(
    '%s',
    initial.describe_schedule(
      config.optimizer, steps_per_epoch=per_epoch, num_steps=num_steps
    ),
  )
  optimizer = initial.create_optimizer(
    config.optimizer, steps_per_epoch=per_epoch
  )
  return num_steps, optimizer


def _is_due(step, num_steps, every):
  """Whether something that happens every so many steps happens now."""
  return step % every == 0 or step == num_steps


def _open_report(config, workdir, state, evaluator, num_steps):
  """Stores the config and opens the log; TensorBoard where clu is there."""
  start_step, workdir = int(state.step), pathlib.Path(workdir)
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  logging.info('%d parameters, steps %d to %d', count, start_step, num_steps)
  tensorboard = None
  # What is finished keeps the config that it was trained with.
  if jax.process_index() == 0 and start_step < num_steps:
    configuration.save(config, workdir)
    try:
      import tensorflow as tf
      from clu import metric_writers, parameter_overview

      tf.config.set_visible_devices([], 'GPU')  # They are JAX's.
      tensorboard = metric_writers.SummaryWriter(str(workdir))
      overview = parameter_overview.get_parameter_overview(
        jax.device_get(state.params), include_stats=False
      )
      files.write_text(workdir / 'parameters.txt', overview + '\n')
    except ImportError as error:
      logging.info('no TensorBoard events (%s); see metrics.jsonl', error)
  return log.Reporter(
    workdir,
    protocol=f'{evaluator.protocol()}, list {config.data.eval_split}',
    start_step=start_step,
    num_steps=num_steps,
    tensorboard=tensorboard,
  )
