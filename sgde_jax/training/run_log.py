"""A run's log: scalars, progress with ETA, pictures, evaluations."""

import contextlib
import datetime
import json
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from input_pipeline import files
from sgde_jax import parallel, run_files, visualization
from sgde_jax.evaluation import panels, tables

_PREVIEWS = 2  # Examples of a batch that are drawn.
_CONSTANT = 1e-3  # A disparity's relative spread; fresh weights have .03.


class RunLog:
  """Writes a run's `metrics.jsonl`, pictures and progress, on process 0 only.

  TensorBoard events are also written where clu is installed.

  Attributes:
    evaluations: step -> summary of every evaluation by the same protocol,
      including those before a restart.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    protocol: str,
    start_step: int,
    num_steps: int,
    batch_size: int,
    explain: Callable[[int], str],
    tensorboard: Any = None,
  ):
    """Opens the log.

    Args:
      workdir: the run's folder.
      protocol: a description of the evaluations' data and settings.
      start_step: steps already done; entries after it, which an interrupted run
        left, are dropped.
      num_steps: the last step, for the ETA.
      batch_size: examples per step.
      explain: maps a step whose loss is not finite to advice.
      tensorboard: a clu metric writer, or None.
    """
    self._workdir = pathlib.Path(workdir)
    self._protocol = protocol
    self._num_steps = num_steps
    self._batch_size = batch_size
    self._explain = explain
    self._tensorboard = tensorboard
    self._active = jax.process_index() == 0
    self._unread = []  # Scalars still on the device: (step, dict of arrays).
    self._start = (start_step, None)  # Step and time the clock started at.
    self._data_seconds = 0.0
    self._warned = False
    self.evaluations = {}
    self._keep_until(start_step)

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    """Measures the time that the next batch takes.

    The clock of `write` starts at the first batch after it, so that
    evaluations, pictures and checkpoints do not count as training. On an
    accelerator the wait overlaps with steps still to be computed: a large share
    is harmless as long as `ms_per_step` stays the same.
    """
    start = time.monotonic()
    if self._start[1] is None:
      self._start = (self._start[0], start)
    yield
    self._data_seconds += time.monotonic() - start

  def add(self, step: int, scalars: Mapping[str, jax.Array]) -> None:
    """Takes a step's scalars without waiting for them."""
    self._unread.append((step, scalars))

  def write(self, step: int) -> None:
    """Writes the mean scalars since the last call, and the progress.

    This is the loop's only wait for the device.

    Raises:
      FloatingPointError: if a loss or gradient is not finite, naming the step.
    """
    scalars = _read_means(self._unread, self._explain)
    self._unread = []
    last_step, last_time = self._start
    duration = time.monotonic() - last_time
    seconds = duration / (step - last_step)
    rate = {
      'ms_per_step': 1e3 * seconds,
      'images_per_second': self._batch_size / seconds,
      'data_share': self._data_seconds / duration,
    }
    self._start, self._data_seconds = (step, None), 0.0
    entry = {f'train/{name}': v for name, v in (scalars | rate).items()}
    self._write(step, entry)
    logging.info(
      'step %d/%d  loss %.4f  %.0f ms/step  %.1f images/s  ETA %s',
      step,
      self._num_steps,
      scalars['loss'],
      rate['ms_per_step'],
      rate['images_per_second'],
      datetime.timedelta(seconds=round(seconds * (self._num_steps - step))),
    )
    self._warn_if_constant(step, scalars)

  def evaluation(self, step: int, summary: Mapping[str, float]) -> None:
    """Writes an evaluation's summary."""
    self.evaluations[step] = summary
    entry = {f'eval/{name}': value for name, value in summary.items()}
    self._write(step, entry, protocol=self._protocol)
    logging.info(
      'step %d  abs_rel %.4f  rmse %.3f  a1 %.3f',
      step,
      summary['abs_rel'],
      summary['rmse'],
      summary['a1'],
    )

  def pictures(self, step: int, arrays: Mapping[str, jax.Array]) -> None:
    """Writes panels of a training batch: `steps.preview_step` on the mesh."""
    if not self._active:
      return
    rows = {k: parallel.local_rows(v, _PREVIEWS) for k, v in arrays.items()}
    for row in range(len(rows['frame'])):
      panel = panels.training_panel({k: v[row] for k, v in rows.items()})
      path = self._workdir / 'pictures' / f'train_{step:06d}_{row}.png'
      visualization.write_png(path, panel)
      if self._tensorboard:
        images = {f'train/example_{row}': panel[None] / 255.0}
        self._tensorboard.write_images(step, images)
        self._tensorboard.flush()

  def close(self) -> dict[str, float]:
    """Closes the writers, prints all evaluations, returns the newest."""
    if self._tensorboard:
      self._tensorboard.close()
    if self._active:
      logging.info(
        'wrote %s: pictures, metrics.jsonl, checkpoints', self._workdir
      )
    if not self.evaluations:
      return {}
    if self._active:
      print(tables.format_depth(self.evaluations, self._protocol))
    return self.evaluations[max(self.evaluations)]

  def _warn_if_constant(self, step, scalars):
    """Warns once that depth has collapsed, which the loss does not show."""
    if self._warned or scalars.get('disparity_spread', 1.0) > _CONSTANT:
      return
    self._warned = True
    logging.warning(
      'step %d: the disparity is constant over every image (its spread is %.1e'
      ' of its mean) and will not recover: start again in another workdir with'
      ' a larger config.loss.scale_weight (0.01 is usual), a smaller'
      ' config.optimizer.learning_rate or another config.seed',
      step,
      scalars['disparity_spread'],
    )

  def _write(self, step, scalars, **texts):
    if not self._active:
      return
    scalars = {name: float(value) for name, value in scalars.items()}
    with open(self._workdir / 'metrics.jsonl', 'a') as file:
      file.write(json.dumps({'step': step} | texts | scalars) + '\n')
    if self._tensorboard:
      self._tensorboard.write_scalars(step, scalars)
      self._tensorboard.flush()

  def _keep_until(self, start_step):
    """Drops the entries that the restored state has not seen.

    Every process reads the file, so that all agree on what remains to be
    evaluated; it is replaced atomically, since others may be reading it. A
    start at step 0 keeps nothing: the weights may differ.
    """
    entries = run_files.read_entries(self._workdir) if start_step else []
    kept = [entry for entry in entries if entry['step'] <= start_step]
    self.evaluations = run_files.find_evaluations(
      entry for entry in kept if entry.get('protocol') == self._protocol
    )
    others = len(run_files.find_evaluations(kept)) - len(self.evaluations)
    if others:
      logging.warning(
        'earlier evaluations by another protocol than (%s), left out of the'
        ' table: %d; the best checkpoint may be one of theirs',
        self._protocol,
        others,
      )
    path = self._workdir / 'metrics.jsonl'
    if self._active and path.is_file():
      files.write_text(path, ''.join(f'{json.dumps(e)}\n' for e in kept))


class Profiler:
  """Traces ten steps, from the tenth of this process on.

  The trace goes to `WORKDIR/profile`, for TensorBoard's profiler.
  """

  def __init__(self, workdir: str | pathlib.Path, *, enabled: bool):
    self._folder = pathlib.Path(workdir) / 'profile'
    self._enabled = enabled and jax.process_index() == 0

  def before(self, count: int, state: Any) -> None:
    """Starts or stops the trace before this process's `count`-th step, from 1.

    Waits for `state`, the result of the last step, so that the trace holds
    whole steps.
    """
    if self._enabled and count in (10, 20):
      jax.block_until_ready(state)
      if count == 10:
        jax.profiler.start_trace(self._folder)
      else:
        jax.profiler.stop_trace()


def open_tensorboard(workdir: str | pathlib.Path, params: Any) -> Any:
  """Opens clu's TensorBoard writer and writes `parameters.txt`.

  Returns:
    The writer; None on processes other than 0 and if clu is not installed.
  """
  if jax.process_index() != 0:
    return None
  logging.info('importing TensorFlow for TensorBoard events')
  try:
    import tensorflow as tf
    from clu import metric_writers, parameter_overview
  except ImportError as error:
    logging.info('no TensorBoard events (%s); see metrics.jsonl', error)
    return None
  tf.config.set_visible_devices([], 'GPU')  # They are JAX's.
  overview = parameter_overview.get_parameter_overview(
    jax.device_get(params), include_stats=False
  )
  files.write_text(pathlib.Path(workdir) / 'parameters.txt', overview + '\n')
  return metric_writers.SummaryWriter(str(workdir))


def _read_means(unread, explain):
  """Fetches the scalars of several steps and averages them."""
  rows = jax.device_get([scalars for _, scalars in unread])
  for (step, _), row in zip(unread, rows, strict=True):
    if not all(map(np.isfinite, row.values())):
      raise FloatingPointError(
        f'step {step} is not finite: loss {row["loss"]}, gradient norm'
        f' {row["gradient_norm"]}; {explain(step)}'
      )
  return {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
