"""Evaluation of camera motion: trajectories of whole sequences.

The pose network sees every two consecutive frames of a sequence; its motions,
chained, are the trajectory. Measured are the field's snippet error and the
error of the whole trajectory after the best similarity.
"""

import functools
import logging
from collections.abc import Sequence

import jax
import numpy as np

import input_pipeline
from sgde_jax import parallel
from sgde_jax.inference import steps
from sgde_jax.metrics import trajectories


def open_sequences(config) -> list:
  """Reads the true poses that an evaluation needs.

  Args:
    config: the whole config.

  Returns:
    A list of `input_pipeline.sources.odometry.Sequence`; empty without
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
      'config.eval.odometry measures motions from frame to frame, but this run'
      ' was trained on those to the offsets %s alone',
      tuple(config.data.frame_offsets[1:]),
    )
  for sequence in sequences:
    if len(sequence.poses) < trajectories.SNIPPET:
      raise ValueError(
        f'config.eval.odometry: {sequence.name} has {len(sequence.poses)}'
        f' frames, and a snippet needs {trajectories.SNIPPET}: name longer ones'
        ' in config.eval.odometry_sequences'
      )
  return sequences


class MotionPredictor:
  """Predicts trajectories; compiled once, at one batch size."""

  def __init__(self, config, *, model, mesh: jax.sharding.Mesh):
    """Takes the whole config and the network."""
    self._config = config
    self._mesh = mesh
    replicated = parallel.replicated(mesh)
    # Every process feeds its rows and gets all motions.
    self._predict = parallel.jit(
      functools.partial(steps.motion_step, model=model),
      in_shardings=(replicated, parallel.batch_sharded(mesh)),
      out_shardings=replicated,
    )

  def run(self, variables: dict, sequence) -> np.ndarray:
    """Predicts the trajectory of a sequence.

    Args:
      variables: the model's variables, replicated.
      sequence: an `input_pipeline.sources.odometry.Sequence` of N frames.

    Returns:
      `[N, 4, 4]` float64, camera to world, up to the training's unknown scale;
      the world is the first frame's camera.

    Raises:
      ValueError: a frame cannot be read.
      FloatingPointError: a motion is not finite.
    """
    logging.info('motion of %s', sequence.name)
    batches = input_pipeline.pair_batches(
      self._config.data,
      sequence,
      batch_size=self._config.eval.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    motions = []
    for batch in batches:
      frames = parallel.to_devices(batch['frames'], self._mesh)
      motions.append(np.asarray(self._predict(variables, frames)))
    # The last batch ends with padding.
    motions = np.concatenate(motions)[: len(sequence.poses) - 1]
    wrong = np.flatnonzero(~np.isfinite(motions).all(axis=(1, 2)))
    if len(wrong):
      raise FloatingPointError(
        f'the motion of {sequence.name} after frame {wrong[0]} is not finite:'
        ' evaluate an earlier checkpoint, see config.eval.checkpoint'
      )
    return trajectories.chain(motions)


def measure(sequences: Sequence, predicted: Sequence[np.ndarray]) -> dict:
  """Measures predicted trajectories.

  Args:
    sequences: what `open_sequences` returns, not empty.
    predicted: `[N, 4, 4]` camera to world per sequence, any scale.

  Returns:
    `snippet_frames`; `sequences`, figures by the sequence's name; and `all`,
    those of all sequences together. Lengths and errors are in metres.
  """
  figures, snippets = {}, []
  for sequence, poses in zip(sequences, predicted, strict=True):
    snippets.append(
      (
        trajectories.snippet_errors(sequence.poses, poses),
        trajectories.monodepth2_errors(sequence.poses, poses),
      )
    )
    aligned, scale = trajectories.align(sequence.poses, poses)
    figures[sequence.name] = _summarize([sequence], *snippets[-1]) | {
      'rmse': trajectories.trajectory_error(sequence.poses, aligned),
      'scale': scale,
    }
  total = _summarize(
    sequences, *map(np.concatenate, zip(*snippets, strict=True))
  )
  return {
    'snippet_frames': trajectories.SNIPPET,
    'sequences': figures,
    'all': total,
  }


def _summarize(sequences, errors, monodepth2_errors):
  """Figures of sequences together, from true poses and snippet errors."""
  poses = [sequence.poses for sequence in sequences]
  return {
    'frames': sum(map(len, poses)),
    'path_length': sum(map(trajectories.path_length, poses)),
    'snippet_error': float(errors.mean()),
    'snippet_deviation': float(errors.std()),
    'monodepth2_error': float(monodepth2_errors.mean()),
    'monodepth2_deviation': float(monodepth2_errors.std()),
  }
