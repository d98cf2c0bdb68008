"""Checkpoints, by Orbax, which is imported when they are opened.

Its import takes longer than reading published weights.
"""

import contextlib
import logging
import operator
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from input_pipeline import files
from sgde_jax.weights import train_state

_STATE = 'state'
_VARIABLES = ('step', 'params', 'batch_stats')
_abs_rel = operator.itemgetter('abs_rel')


class Checkpoints:
  """The checkpoints of one workdir: the latest ones and the best by abs_rel.

  Saving is asynchronous; `close` waits for it.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    keep: int = 1,
    read_only: bool = False,
  ):
    """Opens `workdir/checkpoints`.

    Args:
      workdir: the run's folder.
      keep: how many of the latest checkpoints to keep in addition to the best.
      read_only: whether to create and delete nothing.
    """
    import orbax.checkpoint as ocp

    self._ocp, managers = ocp, ocp.checkpoint_managers
    self._folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    self._saving = None  # The step whose saving may not have ended.
    self._manager = ocp.CheckpointManager(
      self._folder,
      # So that a manager that never saved can also read the item.
      item_handlers={_STATE: ocp.StandardCheckpointHandler()},
      options=ocp.CheckpointManagerOptions(
        read_only=read_only,
        create=not read_only,
        cleanup_tmp_directories=not read_only,  # Of interrupted saves.
        enable_background_delete=True,
        # Makes Orbax store the metrics; the policy decides what stays.
        best_fn=_abs_rel,
        best_mode='min',
        preservation_policy=managers.AnyPreservationPolicy(
          [
            managers.LatestN(keep),
            managers.BestN(
              get_metric_fn=_abs_rel,
              reverse=True,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
      ),
    )

  def latest_step(self) -> int | None:
    """Returns the newest checkpoint's step."""
    return self._manager.latest_step()

  def find_step(self, which: str) -> int | None:
    """Returns the step of the `latest` or of the `best` checkpoint.

    The best has the lowest abs_rel; if none was evaluated, it is the latest.
    """
    best = self._manager.best_step() if which == 'best' else None
    return self.latest_step() if best is None else best

  def save(
    self,
    state: train_state.TrainState,
    *,
    step: int,
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Starts saving a state in the background.

    Args:
      state: the state, on the mesh.
      step: its step.
      metrics: has `abs_rel`, by which the best is kept; None if not evaluated.

    Raises:
      OSError: if this or the previous checkpoint could not be written.
    """
    args = self._ocp.args.Composite(
      **{_STATE: self._ocp.args.StandardSave(state)}
    )
    self._wait()  # An error here belongs to the previous asynchronous save.
    self._saving = step
    with self._writing():
      self._manager.save(step, args=args, metrics=metrics, force=True)

  def check_saved(self) -> None:
    """Raises OSError if a save in the background has failed."""
    if not self._manager.is_saving_in_progress():
      self._wait()

  def restore(
    self, template: train_state.TrainState, *, step: int | None = None
  ) -> train_state.TrainState:
    """Loads a state into the shapes, dtypes and shardings of `template`.

    Args:
      template: pytree of `jax.Array` or `jax.ShapeDtypeStruct` with sharding.
      step: which checkpoint; None for the latest.

    Raises:
      FileNotFoundError: if there is no such checkpoint.
      ValueError: if the checkpoint is damaged, or holds other parameters than
        the template; the message names every difference.
    """
    step = self._find(step)
    self._check_shapes(self._read_metadata(step), template, step)
    logging.info('restoring step %d from %s', step, self._folder)
    args = self._ocp.args.Composite(
      **{_STATE: self._ocp.args.StandardRestore(template)}
    )
    with self._reading(step):
      return self._manager.restore(step, args=args)[_STATE]

  def restore_variables(
    self, template: Mapping | None, *, step: int | None = None
  ) -> train_state.TrainState:
    """Loads a state without the optimizer's, a third of the data.

    Args:
      template: the network's variables as `jax.ShapeDtypeStruct`; None to load
        whatever the checkpoint holds.
      step: as for `restore`, whose exceptions are raised.

    Returns:
      The state as NumPy arrays, its `opt_state` empty.
    """
    step = self._find(step)
    saved = self._read_metadata(step)
    saved = {name: saved[name] for name in _VARIABLES if name in saved}
    if template is not None:
      wanted = dict(template) | {'step': jax.ShapeDtypeStruct((), np.int32)}
      self._check_shapes(saved, wanted, step)
    logging.info('restoring step %d from %s', step, self._folder)
    args = self._ocp.args.PyTreeRestore(
      jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), saved),
      restore_args=jax.tree.map(
        lambda x: self._ocp.RestoreArgs(restore_type=np.ndarray), saved
      ),
      partial_restore=True,
    )
    with self._reading(step):
      reader = self._ocp.Checkpointer(self._ocp.PyTreeCheckpointHandler())
      variables = reader.restore(self._folder / str(step) / _STATE, args=args)
      return train_state.TrainState(opt_state=(), **variables)

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    """Closes; an error of the body takes precedence over one of saving."""
    if error and self._manager.is_saving_in_progress():
      logging.info('%s; waiting for the checkpoint', kind.__name__)
    try:
      self.close()
    except OSError as unsaved:
      if error is None:
        raise
      logging.warning('%s', unsaved)

  def close(self) -> None:
    """Waits until everything is on disk; raises as `save`. Idempotent."""
    self._wait()
    self._manager.close()

  def _wait(self):
    with self._writing():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _writing(self):
    """Turns errors of Orbax and TensorStore into one OSError."""
    try:
      yield
    except Exception as error:  # As in _reading.
      reason = _first_line(error).split(': ')[-1]
      # From the disk: the manager already dropped those it was going to delete.
      last = latest_step(self._folder.parent)
      raise OSError(
        f'checkpoint {self._folder}/{self._saving} could not be written'
        f' ({reason}); the last complete one is of step {last}:'
        ' free some space and run the same command to continue from there'
      ) from error

  @contextlib.contextmanager
  def _reading(self, step):
    """Names the damaged checkpoint; errors of the machine pass through."""
    try:
      yield
    except (MemoryError, PermissionError):
      raise
    except Exception as error:  # Of Orbax, TensorStore, JSON: no common class.
      if 'RESOURCE_EXHAUSTED' in str(error):
        raise
      if not (self._folder / str(step)).exists():
        raise FileNotFoundError(
          f'checkpoint {self._folder}/{step} was replaced by a newer one while'
          ' it was read: run the same command again'
        ) from error
      raise self._damaged(step, _first_line(error)[:200]) from error

  def _find(self, step):
    """Returns `step`, for None the latest; raises if it does not exist."""
    step = self.latest_step() if step is None else step
    if step is None or step not in self._manager.all_steps():
      raise FileNotFoundError(
        f'no checkpoint{"" if step is None else f" of step {step}"} in'
        f' {self._folder}: train first, or pass the --workdir of a trained run'
      )
    return step

  def _read_metadata(self, step):
    """Returns a pytree with the shapes of a checkpoint's tensors."""
    with self._reading(step):
      metadata = self._manager.item_metadata(step)[_STATE]
    metadata = getattr(metadata, 'tree', metadata)
    if not metadata:
      raise self._damaged(step, 'no list of its tensors')
    return metadata

  def _check_shapes(self, saved, template, step):
    """Compares names and shapes before Orbax reads any tensor."""
    saved, wanted = _shapes(saved), _shapes(template)
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
    """Returns the error for a checkpoint that exists and cannot be read."""
    earlier = [other for other in self._manager.all_steps() if other != step]
    other = f'step {max(earlier)}' if earlier else 'step 0, there is no other'
    return ValueError(
      f'checkpoint {self._folder}/{step} is damaged ({reason}): move that'
      f' folder away to continue from {other}'
    )


def latest_step(workdir: str | pathlib.Path) -> int | None:
  """Returns the newest complete checkpoint's step without opening any.

  Unlike `Checkpoints`, this waits for no other process of the job.
  """
  folder = pathlib.Path(workdir) / 'checkpoints'
  steps = (path.name for path in folder.glob('[0-9]*'))
  return max((int(step) for step in steps if step.isdecimal()), default=None)


def _first_line(error):
  return (str(error).strip() or type(error).__name__).splitlines()[0]


def _parameters_first(name):
  """Sorts Adam's copies, which differ whenever parameters do, to the end."""
  return name.startswith('opt_state'), name


def _shapes(tree):
  """Flattens a pytree to slash-separated name -> shape."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
    for path, leaf in leaves
  }
