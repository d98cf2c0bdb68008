"""Measures whether the photometric loss can teach depth at semantic edges.

  python -m analysis.edge_points --workdir=W --widths=1,2 --points=512,2048

Draws points on the predicted classes' edges of a run's training frames, as a
training step does, and prints the mean photometric loss there with the coarse
disparity, with SEEM's and with the true depth at these points (the rest stays
coarse, motions are the predicted ones), and abs_rel of the first two. SEEM
cannot learn where true depth does not lower the loss. `share of edges` is the
points over all edge pixels with known depth. Needs dense truth (the street).
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags, logging

import input_pipeline
from analysis import tables
from sgde_jax import configuration, models, parallel
from sgde_jax.configs import default
from sgde_jax.models import depth_model, seem
from sgde_jax.ops import edges, geometry, losses, warping
from sgde_jax.weights import initial

FLAGS = flags.FLAGS

_FARTHEST = 80.0  # metres


def perfect_disparity(
  depth: jax.Array, coarse: jax.Array, to_depth: Callable
) -> tuple[jax.Array, jax.Array]:
  """Returns the disparity of the true depth, and a mask of where it is known.

  All maps are `[B, H, W, 1]`, depth in metres, 0 = none. The median depth of
  the coarse disparity sets the scale.
  """
  known = (depth > 0) & (depth < _FARTHEST)

  def median(x):
    return jnp.nanmedian(jnp.where(known, x, jnp.nan), (1, 2), keepdims=True)

  scale = median(depth) / median(to_depth(coarse))
  inverse = scale / jnp.where(known, depth, 1)
  farthest, nearest = 1 / to_depth(jnp.array([0.0, 1.0]))
  return jnp.clip((inverse - farthest) / (nearest - farthest), 0, 1), known


def measure_points(
  outputs: depth_model.DepthOutputs,
  batch: Mapping[str, jax.Array],
  transforms: jax.Array,
  key: jax.Array,
  to_depth: Callable,
  automask: bool,
  width: int,
  count: int,
) -> jax.Array:
  """Draws `count` points per image on edges `width` pixels wide on each side.

  Frames of the batch are float, transforms `[B, F - 1, 4, 4]` T_source_target.

  Returns:
    `[7]`, sums over the points with known depth: their number; the losses with
    the coarse, SEEM's and perfect disparity; abs_rel of the first two. Last is
    the number of edge pixels with known depth.
  """
  coarse = outputs.disparities[0]
  depth = batch['depth'][..., None]
  perfect, known = perfect_disparity(depth, coarse, to_depth)
  found = edges.semantic_edges(jnp.argmax(outputs.logits, -1), width=width)
  points, mask = edges.sample_edge_points(key, found, count)
  mask &= warping.gather_points(known, points)[..., 0]

  target, sources = batch['frames'][:, 0], batch['frames'][:, 1:]
  identity = losses.identity_distances(target, sources) if automask else None

  def loss(disparity):
    values = warping.gather_points(disparity, points)
    mixed = seem.scatter_points(coarse, points, values, mask)
    near = to_depth(losses.neighbourhoods(mixed, points)[..., 0])
    views = target, sources, near, batch['intrinsics'], transforms
    return losses.point_minimum(*views, points, identity)

  disparities = coarse, outputs.enhanced_disparity, perfect
  depths = [
    to_depth(warping.gather_points(x, points))[..., 0] for x in disparities
  ]
  errors = [jnp.abs(depth - depths[2]) / depths[2] for depth in depths[:2]]
  values = [*map(loss, disparities), *errors]
  sums = [jnp.sum(mask), *(jnp.sum(jnp.where(mask, x, 0)) for x in values)]
  return jnp.stack([*sums, jnp.sum(found & known[..., 0])])


def measure_run(
  config: ml_collections.ConfigDict,
  workdir: str,
  choices: Sequence[tuple[int, int]],
) -> dict[tuple[int, int], np.ndarray]:
  """Returns (width, count) -> totals of `measure_points` over the split."""
  if not config.model.seem.enabled or config.data.ground_truth != 'dense':
    raise ValueError(f'{workdir} is not a run with SEEM and dense truth')
  model, state = initial.load_trained(config, workdir, parallel.create_mesh())
  config.data.eval_split = config.data.train_split
  data = input_pipeline.open_data(
    config.data, train=False, eval_offsets=config.data.frame_offsets
  )
  limits = {'min_depth': model.min_depth, 'max_depth': model.max_depth}
  to_depth = functools.partial(geometry.disparity_to_depth, **limits)

  @parallel.jit
  def measure(variables, batch, key):
    batch = batch | {'frames': models.to_float(batch['frames'])}
    outputs = model.apply(variables, batch['frames'], train=False)
    transforms = geometry.source_transforms(
      outputs.axis_angle, outputs.translation, model.frame_offsets
    )
    arguments = outputs, batch, transforms, key, to_depth, config.loss.automask
    return jnp.stack([measure_points(*arguments, *c) for c in choices])

  totals = 0
  batches = data.eval_batches(batch_size=config.eval.batch_size)
  for number, batch in enumerate(batches):
    batch['depth'] = batch['depth'] * batch['mask'][:, None, None]
    sums = measure(state.variables, batch, jax.random.key(number))
    totals += np.asarray(sums, float)
  return dict(zip(choices, totals, strict=True))


def define_flags() -> None:
  flags.DEFINE_string('workdir', None, 'A run with SEEM.', required=True)
  flags.DEFINE_list('widths', ['1', '2'], 'Widths of an edge, see the config.')
  flags.DEFINE_list('points', ['512', '2048'], 'Points per image.')


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)
  config = configuration.resolve(default.get_config(), FLAGS.workdir, {})
  choices = itertools.product(map(int, FLAGS.widths), map(int, FLAGS.points))
  figures = measure_run(config, FLAGS.workdir, list(choices))
  rows = []
  for (width, points), (count, *sums, edge_pixels) in figures.items():
    means = [f'{value / count:.4f}' for value in sums]
    rows.append([str(width), str(points), f'{count / edge_pixels:.0%}', *means])
  header = 'edge width | points | share of edges'
  header += ' | loss, coarse | SEEM | perfect | abs_rel, coarse | SEEM'
  print(tables.markdown(header, rows))


if __name__ == '__main__':
  define_flags()
  app.run(main)
