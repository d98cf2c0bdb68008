"""Evaluation of camera motion: `--mode=evaluate --config.eval.odometry=true`.

The pose network sees every two consecutive frames of whole sequences; its
motions, chained, are the trajectory. Reported are the field's snippet error and
the error of the whole trajectory after the best similarity.
"""

import functools
import logging
import pathlib

import jax
import numpy as np

import input_pipeline
from input_pipeline import files
from sgde_jax import parallel, visualization
from sgde_jax.inference import steps
from sgde_jax.metrics import trajectories as trajectory

# Figure -> its head in the table.
_COLUMNS = {
  'frames': 'frames',
  'path_length': 'length',
  'snippet_error': 'snippet',
  'snippet_deviation': 'deviation',
  'monodepth2_error': 'monodepth2',
  'rmse': 'rmse',
  'scale': 'scale',
}


def has_depth(config):
  """Whether an evaluation has depth to measure, too.

  Args:
    config: the whole config.

  Returns:
    False where `config.data.ground_truth` is `none`, and where motion is asked
    for and the data is KITTI odometry.
  """
  if config.data.ground_truth == 'none':
    return False
  benchmark = input_pipeline.is_odometry_root(config.data.root)
  return not (config.eval.odometry and benchmark)


def open_sequences(config):
  """Reads the true poses that an evaluation needs.

  Args:
    config: the whole config.

  Returns:
    A list of `input_pipeline.odometry.Sequence`; empty without
    `config.eval.odometry`.

  Raises:
    FileNotFoundError, ValueError: as `input_pipeline.open_sequences`, or a
      sequence is shorter than a snippet.
  """
  if not config.eval.odometry:
    return []
  sequences = input_pipeline.open_sequences(
    config.data, config.eval.odometry_sequences
  )
  if not {1, -1} & set(config.data.frame_offsets):
    logging.warning(
      'config.eval.odometry: motions from frame to frame are asked for, and'
      ' this run learnt those to the offsets %s alone',
      tuple(config.data.frame_offsets[1:]),
    )
  for sequence in sequences:
    if len(sequence.poses) < trajectory.SNIPPET:
      raise ValueError(
        f'config.eval.odometry: {sequence.name} has {len(sequence.poses)}'
        f' frames, and a snippet needs {trajectory.SNIPPET}: name longer ones'
        ' in config.eval.odometry_sequences'
      )
  return sequences


class MotionPredictor:
  """Predicts trajectories; compiled once, at one batch size."""

  def __init__(self, config, *, model, mesh):
    """Prepares the prediction.

    Args:
      config: the whole config.
      model: the network.
      mesh: the mesh.
    """
    self._config = config
    self._mesh = mesh
    replicated = parallel.replicated(mesh)
    # Every process feeds its rows and gets all motions.
    self._predict = parallel.jit(
      functools.partial(steps.motion_step, model=model),
      in_shardings=(replicated, parallel.batch_sharded(mesh)),
      out_shardings=replicated,
    )

  def run(self, variables, sequence):
    """Predicts the trajectory of a sequence.

    Args:
      variables: the model's variables, replicated.
      sequence: an `input_pipeline.odometry.Sequence` of N frames.

    Returns:
      `[N, 4, 4]` float64, camera to world, up to the training's unknown scale;
      the world is the first frame's camera.

    Raises:
      ValueError: a frame cannot be read.
      FloatingPointError: a motion is not finite.
    """
    batches = input_pipeline.pair_batches(
      self._config.data,
      sequence,
      batch_size=self._config.eval.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    motions = [
      np.asarray(
        self._predict(
          variables, parallel.to_devices(batch['frames'], self._mesh)
        )
      )
      for batch in batches
    ]
    # The padding stands at the end.
    motions = np.concatenate(motions)[: len(sequence.poses) - 1]
    wrong = np.flatnonzero(~np.isfinite(motions).all(axis=(1, 2)))
    if len(wrong):
      raise FloatingPointError(
        f'the motion of {sequence.name} after frame {wrong[0]} is not finite:'
        ' evaluate an earlier checkpoint, see config.eval.checkpoint'
      )
    return trajectory.chain(motions)


def evaluate(config, sequences, folder, *, model, state, mesh):
  """Measures a trained run's motion on sequences.

  Prints a table and writes into the folder `odometry.json` and of every
  sequence `trajectory_NAME.txt`, the predicted poses aligned to the true ones
  in KITTI's format, and `trajectory_NAME.png`, both from above.

  Args:
    config: the whole config.
    sequences: what `open_sequences` returns, not empty.
    folder: folder for the results.
    model: the network.
    state: a `steps.TrainState` on the mesh.
    mesh: the mesh.

  Returns:
    `odometry/NAME` for the figures of all sequences together; lengths and
    errors in metres.

  Raises:
    ValueError, FloatingPointError: as `MotionPredictor`.
  """
  predictor = MotionPredictor(config, model=model, mesh=mesh)
  folder = pathlib.Path(folder)
  figures, snippets = {}, []
  for sequence in sequences:
    logging.info('motion of %s', sequence.name)
    predicted = predictor.run(state.variables, sequence)
    snippets.append(
      (
        trajectory.snippet_errors(sequence.poses, predicted),
        trajectory.monodepth2_errors(sequence.poses, predicted),
      )
    )
    aligned, scale = trajectory.align(sequence.poses, predicted)
    figures[sequence.name] = _summarize([sequence.poses], *snippets[-1]) | {
      'rmse': trajectory.trajectory_error(sequence.poses, aligned),
      'scale': scale,
    }
    if jax.process_index() == 0:
      _write_trajectory(folder, sequence, aligned)
  total = _summarize(
    [sequence.poses for sequence in sequences],
    *map(np.concatenate, zip(*snippets, strict=True)),
  )
  if jax.process_index() == 0:
    result = {'step': int(state.step), 'snippet_frames': trajectory.SNIPPET}
    result |= {'sequences': figures, 'all': total}
    files.write_json(folder / 'odometry.json', result)
    print(format_table(figures, total))
  return {f'odometry/{name}': value for name, value in total.items()}


def format_table(figures, total):
  """Formats the figures of sequences as an aligned text table.

  Args:
    figures: name -> figures of the sequence, as in `odometry.json`.
    total: those of all sequences together.

  Returns:
    A header, a line per sequence, that of all if there are several, and how
    the figures were made.
  """
  rows = figures | ({'all': total} if len(figures) > 1 else {})
  width = max(map(len, rows))
  lines = [' ' * width + ''.join(f'{name:>11}' for name in _COLUMNS.values())]
  for label, row in rows.items():
    cells = (_format(name, row.get(name)) for name in _COLUMNS)
    lines.append(f'{label:<{width}}' + ''.join(f'{c:>11}' for c in cells))
  lines.append(
    f'metres; snippets of {trajectory.SNIPPET} frames, each scaled, mean and'
    " deviation, and the mean that Monodepth2's code finds; rmse of the"
    ' trajectory after the best similarity, of this scale'
  )
  return '\n'.join(lines)


def _format(name, value):
  if value is None:
    return '-'
  return str(value) if name == 'frames' else f'{value:.4f}'


def _summarize(trajectories, errors, monodepth2_errors):
  """Figures of sequences together, from true poses and snippet errors."""
  return {
    'frames': sum(map(len, trajectories)),
    'path_length': sum(map(trajectory.path_length, trajectories)),
    'snippet_error': float(errors.mean()),
    'snippet_deviation': float(errors.std()),
    'monodepth2_error': float(monodepth2_errors.mean()),
    'monodepth2_deviation': float(monodepth2_errors.std()),
  }


def _write_trajectory(folder, sequence, aligned):
  rows = aligned[:, :3].reshape(-1, 12)
  text = ''.join(' '.join(f'{v:.9e}' for v in row) + '\n' for row in rows)
  path = folder / f'trajectory_{sequence.name}.txt'
  files.write_text(path, text)
  picture = visualization.draw_trajectories(
    {'truth': sequence.poses, 'prediction, aligned': aligned},
    title=sequence.name,
  )
  visualization.write_png(path.with_suffix('.png'), picture)
