"""What a run tells: progress with ETA, scalars, pictures, evaluations."""

import contextlib
import json
import logging
import pathlib
import time

import jax
import numpy as np

from input_pipeline import files
from sgde_jax import parallel, visualization
from sgde_jax.evaluation import panels, tables

_PROFILE = (10, 20)
_PREVIEWS = 2  # Examples of a batch that are drawn.
_CONSTANT = 1e-3  # A disparity's relative spread; fresh weights have .03.


class Reporter:
  """Writes a run's `metrics.jsonl`, pictures and progress; process 0 only.

  The file is always written; TensorBoard where its writer is at hand.

  Attributes:
    workdir: the run's folder.
    evaluations: dict of step -> summary of every evaluation so far that was
      made by the same protocol.
  """

  def __init__(
    self, workdir, *, protocol, start_step, num_steps, tensorboard=None
  ):
    """Opens the log.

    Args:
      workdir: the run's folder.
      protocol: how and on what evaluations are made, for the line under their
        table.
      start_step: steps already done; later entries of an earlier, broken-off
        run are dropped.
      num_steps: the last step, for the ETA.
      tensorboard: a clu metric writer, or None.
    """
    self.workdir = pathlib.Path(workdir)
    self._active = jax.process_index() == 0
    self._protocol = protocol
    self._num_steps = num_steps
    self._tensorboard = tensorboard
    self._last = (start_step, time.monotonic())
    self._data_seconds = 0.0
    self._tracing = False
    self._warned = False
    self.evaluations = {}
    self._entries = self.workdir / 'metrics.jsonl'
    if self._active:
      self.workdir.mkdir(parents=True, exist_ok=True)
    self._drop_after(start_step)

  def wait_for_data(self, batches):
    """Takes the next batch, and counts the time as waiting for data.

    On an accelerator it overlaps with steps that are still to be computed: a
    large share there is no loss as long as `ms_per_step` stays.

    Args:
      batches: an iterator of batches.

    Returns:
      The batch.
    """
    start = time.monotonic()
    batch = next(batches)
    self._data_seconds += time.monotonic() - start
    return batch

  def profile(self, count, state, *, enabled):
    """Traces ten steps, from the tenth of this process on, if enabled.

    Args:
      count: steps since this process started.
      state: what the last step returned; waited for where the trace starts and
        ends, so that it holds these steps and no others.
      enabled: whether to.
    """
    if not (enabled and self._active and count in _PROFILE):
      return
    jax.block_until_ready(state)
    if count == _PROFILE[0]:
      jax.profiler.start_trace(self.workdir / 'profile')
      self._tracing = True
    else:
      self._stop_trace()

  def training(self, step, scalars, *, batch_size):
    """Reports the mean scalars since the last call, and the progress.

    Args:
      step: steps done.
      scalars: dict of floats.
      batch_size: examples per step.
    """
    last_step, last_time = self._last
    now = time.monotonic()
    seconds = (now - last_time) / max(step - last_step, 1)
    self._last = (step, now)
    rate = {
      'ms_per_step': 1e3 * seconds,
      'images_per_second': batch_size / seconds,
      'data_share': self._data_seconds / (now - last_time),
    }
    self._data_seconds = 0.0
    self._write(step, {f'train/{k}': v for k, v in (scalars | rate).items()})
    left = seconds * (self._num_steps - step)
    logging.info(
      'step %d/%d  loss %.4f  %.0f ms/step  %.1f images/s  ETA %s',
      step,
      self._num_steps,
      scalars['loss'],
      rate['ms_per_step'],
      rate['images_per_second'],
      format_duration(left),
    )
    self._warn_if_constant(step, scalars)

  def evaluation(self, step, summary):
    """Reports an evaluation's summary."""
    self.evaluations[step] = summary
    self._write(
      step,
      {f'eval/{name}': value for name, value in summary.items()},
      protocol=self._protocol,
    )
    logging.info(
      'step %d  abs_rel %.4f  rmse %.3f  a1 %.3f',
      step,
      summary['abs_rel'],
      summary['rmse'],
      summary['a1'],
    )
    self.restart_clock()

  def previews(self, step, pictures):
    """Writes panels of a training batch.

    Args:
      step: steps done.
      pictures: arrays on the mesh, as `steps.preview_step` returns them.
    """
    if not self._active:
      return
    pictures = jax.tree.map(
      lambda array: parallel.local_rows(array, _PREVIEWS), pictures
    )
    for row in range(len(pictures['frame'])):
      panel = panels.training_panel(
        {name: array[row] for name, array in pictures.items()}
      )
      path = self.workdir / 'pictures' / f'train_{step:06d}_{row}.png'
      visualization.write_png(path, panel)
      if self._tensorboard:
        self._tensorboard.write_images(
          step, {f'train/example_{row}': panel[None] / 255.0}
        )
        self._tensorboard.flush()
    self.restart_clock()

  def restart_clock(self):
    """Keeps the time since the last report out of the steps' rate."""
    self._last = (self._last[0], time.monotonic())

  def close(self):
    """Flushes the writers and prints every evaluation as one table.

    Returns:
      The newest evaluation's summary; {} where there was none.
    """
    self._stop_trace()
    if self._tensorboard:
      self._tensorboard.close()
    if self._active:
      logging.info(
        'wrote %s: pictures, metrics.jsonl, checkpoints', self.workdir
      )
    if not self.evaluations:
      return {}
    if self._active:
      print(tables.format_depth(self.evaluations, self._protocol))
    return self.evaluations[max(self.evaluations)]

  def _warn_if_constant(self, step, scalars):
    """Says once that depth is lost, which no loss that falls would tell."""
    if self._warned or scalars.get('disparity_spread', 1.0) > _CONSTANT:
      return
    self._warned = True
    logging.warning(
      'step %d: the disparity is constant over every image (its spread is %.1e'
      ' of its mean); it will not recover: start again in another workdir with'
      ' a larger config.loss.scale_weight (0.01 is usual), a smaller'
      ' config.optimizer.learning_rate or another config.seed',
      step,
      scalars['disparity_spread'],
    )

  def _stop_trace(self):
    if self._tracing:
      self._tracing = False
      jax.profiler.stop_trace()

  def _write(self, step, scalars, **texts):
    if not self._active:
      return
    scalars = {name: float(value) for name, value in scalars.items()}
    with open(self._entries, 'a') as file:
      file.write(json.dumps({'step': step} | texts | scalars) + '\n')
    if self._tensorboard:
      self._tensorboard.write_scalars(step, scalars)
      self._tensorboard.flush()

  def _drop_after(self, start_step):
    """Keeps what the restored state has seen, and its evaluations.

    Every process reads them, so that all agree on what is still to evaluate;
    the file changes at once, for the others may be reading it. A start at 0
    keeps nothing: no state was restored, and the weights may be others.
    """
    entries = read_entries(self.workdir) if start_step else []
    kept = [entry for entry in entries if entry['step'] <= start_step]
    self.evaluations = find_evaluations(
      entry for entry in kept if entry.get('protocol') == self._protocol
    )
    others = len(find_evaluations(kept)) - len(self.evaluations)
    if others:
      logging.warning(
        'evaluations so far that are not of this protocol (%s) and left out of'
        ' the table: %d; the best checkpoint may be one of theirs',
        self._protocol,
        others,
      )
    if self._active and self._entries.is_file():
      lines = ''.join(f'{json.dumps(entry)}\n' for entry in kept)
      files.write_text(self._entries, lines)


def read_entries(workdir):
  """Reads a run's `metrics.jsonl`.

  Args:
    workdir: the run's folder.

  Returns:
    A list of dicts, a line each: `step`, and figures by name; [] without the
    file. Lines that are no entry, as the last of a run that was killed while
    writing, are left out.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  entries = []
  if path.is_file():
    for line in path.read_text(errors='replace').splitlines():
      with contextlib.suppress(json.JSONDecodeError):
        entries.append(json.loads(line))
  return [e for e in entries if isinstance(e, dict) and 'step' in e]


def find_evaluations(entries):
  """Returns step -> summary of the evaluations among a run's entries."""
  return {
    entry['step']: {
      name.removeprefix('eval/'): value
      for name, value in entry.items()
      if name.startswith('eval/')
    }
    for entry in entries
    if 'eval/abs_rel' in entry
  }


def read_scalars(unread, explain):
  """Fetches the scalars of several steps, the loop's only wait.

  Args:
    unread: list of (step, dict of scalars on the device).
    explain: maps a step to what to look at if it was not finite.

  Returns:
    A dict of floats, means over the steps.

  Raises:
    FloatingPointError: a loss or gradient is not finite; names the step.
  """
  rows = jax.device_get([scalars for _, scalars in unread])
  for (step, _), row in zip(unread, rows, strict=True):
    if not all(map(np.isfinite, row.values())):
      raise FloatingPointError(
        f'step {step} is not finite: loss {row["loss"]}, gradient norm'
        f' {row["gradient_norm"]}; {explain(step)}'
      )
  return {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}


def explain_loss(config, data, checkpoints, step):
  """Says what to look at when the update to a step was not finite.

  Args:
    config: the whole config.
    data: an `input_pipeline.Data`.
    checkpoints: the run's `checkpointing.Checkpoints`; closed.
    step: the step.

  Returns:
    The end of a message.
  """
  checkpoints.close()  # The one that the message names is on disk.
  described = data.describe_step(
    step, seed=config.seed, batch_size=config.batch_size
  )
  return (
    f'{described}; last good'
    f' checkpoint: step {checkpoints.latest_step()}; look at the examples,'
    ' change config.optimizer.learning_rate or clip_norm (unchanged, the same'
    ' happens again), and start again in the same workdir'
  )


def format_duration(seconds):
  """Formats seconds as `2h03m`, `4m05s` or `6s`."""
  seconds = round(seconds)
  hours, minutes, rest = (seconds // 3600, seconds // 60 % 60, seconds % 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{rest:02d}s' if minutes else f'{rest}s'
