"""Whether the photometric loss knows the depth at semantic edges.

  python -m analysis.edge_points --workdir=W --widths=1,2 --points=512,2048

Draws points on the predicted classes' edges of a run's training frames, as a
training step does, and measures the photometric loss there with the coarse
disparity, with SEEM's and with perfect depth at these points, all else left
coarse; motions are the predicted ones. What perfect depth does not lower, SEEM
cannot learn. Beside it the depth errors there. Needs dense truth (the street).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

import input_pipeline
from benchmarks import command_line
from sgde_jax import configuration, parallel
from sgde_jax.configs import default
from sgde_jax.inference import steps as inference
from sgde_jax.models import seem
from sgde_jax.ops import edges, geometry, losses, warping
from sgde_jax.training import steps
from sgde_jax.weights import initial

FLAGS = flags.FLAGS

_FARTHEST = 80.0  # metres
_COLUMNS = (
  'edge width',
  'points',
  'share of edges',
  'loss, coarse',
  'SEEM',
  'perfect',
  'abs_rel, coarse',
  'SEEM',
)


def perfect_disparity(depth, coarse):
  """The true depth as the network would have to predict it.

  Args:
    depth: `[B, H, W, 1]` metres, 0 = none.
    coarse: `[B, H, W, 1]` float in (0, 1), whose median depth sets the scale.

  Returns:
    The disparity `[B, H, W, 1]`, and where it is known, bool.
  """
  known = (depth > 0) & (depth < _FARTHEST)
  predicted = geometry.disparity_to_depth(coarse)
  medians = [
    jnp.nanmedian(jnp.where(known, x, jnp.nan), axis=(1, 2), keepdims=True)
    for x in (predicted, depth)
  ]
  inverse = medians[1] / medians[0] / jnp.where(known, depth, 1)
  farthest, nearest = map(geometry.scale_disparity, (0.0, 1.0))
  return jnp.clip((inverse - farthest) / (nearest - farthest), 0, 1), known


def measure_points(outputs, batch, transforms, key, *, width, count, automask):
  """Sums over the drawn points with known depth.

  Args:
    outputs: `DepthOutputs` of prediction.
    batch: `frames` `[B, F, H, W, 3]` float, `intrinsics` `[B, 3, 3]`, `depth`
      `[B, H, W]`.
    transforms: `[B, S, 4, 4]`, T_source_target.
    key: a JAX random key.
    width: width of an edge.
    count: points per image.
    automask: whether unwarped sources compete in the loss' minimum.

  Returns:
    `[7]`: the number of points; the losses with the coarse, SEEM's and perfect
    disparity; the absolute relative errors of the first two; and the number of
    edge pixels with known depth.
  """
  coarse = outputs.disparities[0]
  perfect, known = perfect_disparity(batch['depth'][..., None], coarse)
  found = edges.semantic_edges(jnp.argmax(outputs.logits, -1), width=width)
  points, mask = edges.sample_edge_points(key, found, count)
  mask &= warping.gather_points(known, points)[..., 0]

  target, sources = batch['frames'][:, 0], batch['frames'][:, 1:]
  identity = losses.identity_distances(target, sources) if automask else None

  def loss(disparity):
    values = warping.gather_points(disparity, points)
    return losses.point_minimum(
      target,
      sources,
      seem.scatter_points(coarse, points, values, mask),
      batch['intrinsics'],
      transforms,
      points,
      identity,
    )

  def error(disparity):
    predicted, true = (
      geometry.disparity_to_depth(warping.gather_points(x, points))[..., 0]
      for x in (disparity, perfect)
    )
    return jnp.abs(predicted - true) / true

  enhanced = outputs.enhanced_disparity
  maps = [loss(coarse), loss(enhanced), loss(perfect)]
  maps += [error(coarse), error(enhanced)]
  sums = [jnp.sum(mask), *(jnp.sum(jnp.where(mask, x, 0)) for x in maps)]
  return jnp.stack([*sums, jnp.sum(found & known[..., 0])])


def measure_run(config, workdir, choices):
  """Totals of `measure_points` over the training split, per choice.

  Raises:
    FileNotFoundError, ValueError: as `evaluate.evaluate`; the run has no SEEM
      or no dense truth.
  """
  if not config.model.seem.enabled or config.data.ground_truth != 'dense':
    raise ValueError(f'{workdir}: needs a run with SEEM and dense truth')
  model, state = initial.load_trained(config, workdir, parallel.create_mesh())
  batches = input_pipeline.create_eval_batches(
    config.data,
    split=config.data.train_split,
    batch_size=config.eval.batch_size,
    frame_offsets=config.data.frame_offsets,
  )

  @parallel.jit
  def measure(variables, batch, key):
    batch = batch | {'frames': inference.to_float(batch['frames'])}
    outputs = model.apply(variables, batch['frames'], train=False)
    transforms = steps.source_transforms(outputs, model.frame_offsets)
    count = functools.partial(
      measure_points,
      outputs,
      batch,
      transforms,
      key,
      automask=config.loss.automask,
    )
    return jnp.stack([count(width=w, count=k) for w, k in choices])

  totals = 0
  for number, batch in enumerate(batches):
    if batch['depth'].shape[1:] != batch['frames'].shape[2:4]:
      raise ValueError(f"{workdir}: its truth is not of the frames' size")
    batch['depth'] = batch['depth'] * batch['mask'][:, None, None]
    sums = measure(state.variables, batch, jax.random.key(number))
    totals += np.asarray(sums, float)
  return dict(zip(choices, totals, strict=True))


def define_flags():
  """Defines what the command line takes."""
  flags.DEFINE_string('workdir', None, 'A run with SEEM.', required=True)
  flags.DEFINE_list('widths', ['1', '2'], 'Widths of an edge, see the config.')
  flags.DEFINE_list('points', ['512', '2048'], 'Points per image.')
  command_line.require_integers('widths', 1)
  command_line.require_integers('points', 1)


def main(_):
  """Prints the table."""
  logging.set_verbosity(logging.ERROR)
  config = configuration.resolve(default.get_config(), FLAGS.workdir, {})
  choices = [
    (int(width), int(points))
    for width in FLAGS.widths
    for points in FLAGS.points
  ]
  figures = measure_run(config, FLAGS.workdir, choices)
  print('|', ' | '.join(_COLUMNS), '|')
  print('|' + '---|' * len(_COLUMNS))
  for (width, points), (count, *sums, edge_pixels) in figures.items():
    means = ' | '.join(f'{value / count:.4f}' for value in sums)
    print(f'| {width} | {points} | {count / edge_pixels:.0%} | {means} |')


if __name__ == '__main__':
  command_line.run(main, define_flags)
