"""Evaluation of camera motion: trajectories of whole sequences.

A trajectory is the chain of the motions between consecutive frames.
"""

import functools
import logging
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
from flax import linen as nn

import input_pipeline
from input_pipeline.sources import odometry
from sgde_jax import parallel
from sgde_jax.inference import steps
from sgde_jax.metrics import trajectories

_Sequences = Sequence[odometry.Sequence]


def open_sequences(
  config: ml_collections.ConfigDict,
) -> list[odometry.Sequence]:
  """Reads the sequences with true poses; none without `config.eval.odometry`.

  Raises:
    ValueError: if a sequence is shorter than a snippet.
  """
  if not config.eval.odometry:
    return []
  names = config.eval.odometry_sequences
  sequences = input_pipeline.open_sequences(config.data, names)
  if not {1, -1} & set(config.data.frame_offsets):
    logging.warning(
      'config.eval.odometry measures motions from frame to frame, but this run'
      ' was trained only on motions to the offsets %s',
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


def predict_trajectories(
  config: ml_collections.ConfigDict,
  variables: dict,
  sequences: _Sequences,
  *,
  model: nn.Module,
  mesh: jax.sharding.Mesh,
) -> list[np.ndarray]:
  """Predicts the trajectories of sequences, from the whole config.

  Returns:
    `[N, 4, 4]` float64 per sequence of N frames, camera to world, up to the
    training's unknown scale; the world is the first frame's camera.

  Raises:
    FloatingPointError: if a motion is not finite.
  """
  replicated = parallel.replicated(mesh)
  # Every process feeds its rows and gets all motions.
  predict = parallel.jit(
    functools.partial(steps.motion_step, model=model),
    in_shardings=(replicated, parallel.batch_sharded(mesh)),
    out_shardings=replicated,
  )
  predicted = []
  for sequence in sequences:
    logging.info('motion of %s', sequence.name)
    batches = input_pipeline.pair_batches(
      config.data,
      sequence,
      batch_size=config.eval.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    motions = [
      np.asarray(predict(variables, parallel.to_devices(b['frames'], mesh)))
      for b in batches
    ]
    # The last batch ends with padding.
    motions = np.concatenate(motions)[: len(sequence.poses) - 1]
    wrong = np.flatnonzero(~np.isfinite(motions).all(axis=(1, 2)))
    if len(wrong):
      raise FloatingPointError(
        f'the motion of {sequence.name} after frame {wrong[0]} is not finite:'
        ' evaluate an earlier checkpoint, see config.eval.checkpoint'
      )
    predicted.append(trajectories.chain(motions))
  return predicted


def measure(
  sequences: _Sequences, predicted: Sequence[np.ndarray]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
  """Returns the figures, in metres, of each sequence and of all together."""
  figures, snippets = {}, []
  for sequence, poses in zip(sequences, predicted, strict=True):
    true = sequence.poses
    errors = (
      trajectories.snippet_errors(true, poses),
      trajectories.monodepth2_errors(true, poses),
    )
    snippets.append(errors)
    aligned, scale = trajectories.align(true, poses)
    figures[sequence.name] = _summarize([true], *errors) | {
      'rmse': trajectories.trajectory_error(true, aligned),
      'scale': scale,
    }
  poses = [sequence.poses for sequence in sequences]
  errors = map(np.concatenate, zip(*snippets, strict=True))
  return figures, _summarize(poses, *errors)


def _summarize(poses, errors, monodepth2_errors):
  return {
    'frames': sum(map(len, poses)),
    'path_length': sum(map(trajectories.path_length, poses)),
    'snippet_error': float(errors.mean()),
    'snippet_deviation': float(errors.std()),
    'monodepth2_error': float(monodepth2_errors.mean()),
    'monodepth2_deviation': float(monodepth2_errors.std()),
  }
