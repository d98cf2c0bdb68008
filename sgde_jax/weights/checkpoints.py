"""Checkpoints by Orbax: the only module that imports it."""

import contextlib
import logging
import pathlib

import jax
import orbax.checkpoint as ocp

from input_pipeline import files

_STATE = 'state'
_managers = ocp.checkpoint_managers


class Checkpoints:
  """The checkpoints of one workdir: the latest ones and the best by abs_rel.

  Saving is asynchronous; `close` waits for it.
  """

  def __init__(self, workdir, *, keep=2, read_only=False):
    """Opens `workdir/checkpoints`.

    Args:
      workdir: the run's folder.
      keep: how many of the latest checkpoints stay, beside the best.
      read_only: refuse to save, and create nothing.
    """
    self._folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    self._saving = None  # The step whose saving may not have ended.
    self._manager = ocp.CheckpointManager(
      self._folder,
      handler_registry=_handler_registry(),
      options=ocp.CheckpointManagerOptions(
        read_only=read_only,
        create=not read_only,
        cleanup_tmp_directories=not read_only,  # Of saves broken off.
        enable_background_delete=True,
        # Makes Orbax store the metrics; the policy decides what stays.
        best_fn=_abs_rel,
        best_mode='min',
        preservation_policy=_managers.AnyPreservationPolicy(
          [
            _managers.LatestN(keep),
            _managers.BestN(
              get_metric_fn=_abs_rel,
              reverse=True,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
      ),
    )

  def latest_step(self):
    """The newest checkpoint's step, or None."""
    return self._manager.latest_step()

  def find_step(self, which):
    """The step of the `latest` or of the `best` checkpoint, or None.

    The best has the lowest abs_rel; without any it is the latest.
    """
    best = self._manager.best_step() if which == 'best' else None
    return self.latest_step() if best is None else best

  def save(self, state, *, step, metrics=None):
    """Starts saving a state.

    Args:
      state: a `TrainState` on the mesh.
      step: its step.
      metrics: dict with `abs_rel`, by which the best is kept; or None.

    Raises:
      OSError: it, or the one before, could not be written.
    """
    args = ocp.args.Composite(**{_STATE: ocp.args.StandardSave(state)})
    self._wait()  # What is wrong now is wrong with the step before.
    self._saving = step
    with self._writing():
      self._manager.save(step, args=args, metrics=metrics, force=True)

  def refuse_failed(self):
    """Raises what ended a save in the background, once it has ended.

    Raises:
      OSError: it could not be written.
    """
    if not self._manager.is_saving_in_progress():
      self._wait()

  def check(self, template, *, step=None):
    """Refuses what `restore` would refuse before it reads any tensor.

    Args:
      template: as for `restore`.
      step: as for `restore`.

    Returns:
      The checkpoint's step.

    Raises:
      FileNotFoundError, ValueError: as `restore`.
    """
    step = self.latest_step() if step is None else step
    if step is None or step not in self._manager.all_steps():
      raise FileNotFoundError(
        f'no checkpoint{"" if step is None else f" of step {step}"} in'
        f' {self._folder}: train first, or pass the --workdir of a trained run'
      )
    self._refuse_mismatch(template, step)
    return step

  def restore(self, template, *, step=None):
    """Loads a state into the shapes, dtypes and shardings of `template`.

    Args:
      template: pytree of `jax.Array` or `jax.ShapeDtypeStruct` with sharding.
      step: which checkpoint; None for the latest.

    Returns:
      The restored pytree.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: the checkpoint holds other parameters than the config asks
        for, every difference is named; or it is damaged.
    """
    step = self.check(template, step=step)
    logging.info('restoring step %d from %s', step, self._folder)
    args = ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(template)})
    with self._reading(step):
      return self._manager.restore(step, args=args)[_STATE]

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    """Closes; what ended the body is raised, whatever else goes wrong."""
    if error and self._manager.is_saving_in_progress():
      logging.info('%s; waiting for what is being saved', kind.__name__)
    try:
      self.close()
    except OSError as unsaved:
      if error is None:
        raise
      logging.warning('%s', unsaved)

  def close(self):
    """Waits until everything is on disk; raises as `save`. May be repeated."""
    self._wait()
    self._manager.close()

  def _wait(self):
    with self._writing():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _writing(self):
    """Makes one message of what Orbax and TensorStore raise."""
    try:
      yield
    except Exception as error:  # As in _reading.
      reason = _first_line(error).split(': ')[-1]
      raise OSError(
        f'checkpoint {self._folder}/{self._saving} could not be written'
        f' ({reason}); the last whole one is of step {self.latest_step()}: make'
        ' room, and the same command goes on from there'
      ) from error

  @contextlib.contextmanager
  def _reading(self, step):
    """Tells a damaged checkpoint from one that this process cannot read."""
    try:
      yield
    except (MemoryError, PermissionError):
      raise
    except Exception as error:  # Of Orbax, TensorStore, JSON: no common class.
      if 'RESOURCE_EXHAUSTED' in str(error):
        raise
      if not (self._folder / str(step)).exists():
        raise FileNotFoundError(
          f'checkpoint {self._folder}/{step} gave way to a newer one while it'
          ' was read: give the same command again'
        ) from error
      raise self._damaged(step, _first_line(error)[:200]) from error

  def _refuse_mismatch(self, template, step):
    """Compares names and shapes before Orbax reads anything."""
    with self._reading(step):
      metadata = self._manager.item_metadata(step)[_STATE]
      saved = _shapes(getattr(metadata, 'tree', metadata))
    if not saved:
      raise self._damaged(step, 'no list of its tensors')
    wanted = _shapes(template)
    problems = [
      f'{name}: the checkpoint has {saved.get(name, "nothing")}, the config'
      f' asks for {wanted.get(name, "nothing")}'
      for name in sorted(saved.keys() | wanted.keys(), key=_parameters_first)
      if saved.get(name) != wanted.get(name)
    ]
    if problems:
      raise ValueError(
        f'checkpoint {self._folder}/{step} does not fit the config; use the'
        ' config it was trained with, or another folder:'
        + files.list_first(problems, 20)
      )

  def _damaged(self, step, reason):
    """The error for a checkpoint that is there and cannot be read."""
    earlier = [other for other in self._manager.all_steps() if other != step]
    other = f'step {max(earlier)}' if earlier else 'step 0, there is no other'
    return ValueError(
      f'checkpoint {self._folder}/{step} is damaged ({reason}): move that'
      f' folder away to go on from {other}'
    )


def latest_step(workdir):
  """The newest whole checkpoint's step, or None, without opening any.

  Unlike `Checkpoints` it waits for no other process of the job.
  """
  folder = pathlib.Path(workdir) / 'checkpoints'
  steps = (path.name for path in folder.glob('[0-9]*'))
  return max((int(step) for step in steps if step.isdecimal()), default=None)


def _handler_registry():
  """Names the item, so that a manager that never saved can read it too."""
  registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
  handler = ocp.StandardCheckpointHandler()
  registry.add(_STATE, ocp.args.StandardSave, handler)
  registry.add(_STATE, ocp.args.StandardRestore, handler)
  return registry


def _first_line(error):
  return (str(error).strip() or type(error).__name__).splitlines()[0]


def _parameters_first(name):
  """Sorts Adam's copies, which differ whenever parameters do, to the end."""
  return name.startswith('opt_state'), name


def _abs_rel(metrics):
  return metrics['abs_rel']


def _shapes(tree):
  """Flattens a pytree to slash-separated name -> shape."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
    for path, leaf in leaves
  }
