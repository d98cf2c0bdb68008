"""Measures the gain of perfectly sharp borders by an oracle of the classes.

  python -m analysis.border_oracle --workdir=W

Predicts a run's evaluation split and gives every pixel near a semantic border
the depth of the nearest pixel farther inside the same segment, as if
each border had been found and cut perfectly while nothing else changed. Rows:

  without SEEM                    shows what SEEM changed
  cut by labels, N px             at the true borders, N pixels on each side
  cut by predicted classes, N px  the best for a network that copies the shapes
                                  of its own classes

Columns are abs_rel (no unit) over groups of pixels. The error that remains is
in the depth of the objects themselves, or at borders within a class.
"""

import collections
from collections.abc import Sequence

import ml_collections
import numpy as np
from absl import app, flags, logging
from scipy import ndimage

import input_pipeline
from analysis import tables
from input_pipeline import images
from sgde_jax import configuration, metrics, parallel
from sgde_jax.configs import default
from sgde_jax.evaluation import borders, depth
from sgde_jax.weights import initial

FLAGS = flags.FLAGS

_GROUPS = ('border_1', 'border_3', 'away', 'thin')


def cut_borders(
  depth_map: np.ndarray, labels: np.ndarray, width: int
) -> np.ndarray:
  """Replaces `width` pixels on each side of semantic borders in maps `[H, W]`.

  They take the nearest depth farther inside their segment (connected, of one
  class) or, where all of it is near a border, the depth farthest inside.
  """
  distance = metrics.borders.border_distance(labels, limit=width)
  cut = depth_map.copy()
  for label in np.unique(labels):
    segments, _ = ndimage.label(labels == label)
    for index, window in enumerate(ndimage.find_objects(segments), start=1):
      inside = segments[window] == index
      inward = np.where(inside, distance[window], 0)
      rows, columns = ndimage.distance_transform_edt(
        inward < inward.max(), return_distances=False, return_indices=True
      )
      near = inside & (inward <= width)
      cut[window][near] = depth_map[window][rows, columns][near]
  return cut


def cut_by_all(
  depth_map: np.ndarray,
  labels: np.ndarray,
  predicted: np.ndarray | None,
  widths: Sequence[int],
) -> dict[str, np.ndarray]:
  """Returns row's name -> depth; `predicted` may have another size."""
  shapes = {'labels': labels}
  if predicted is not None:
    height, width = labels.shape
    resized = images.resize_nearest(predicted, height=height, width=width)
    shapes['predicted classes'] = resized
  return {
    f'cut by {name}, {pixels} px': cut_borders(depth_map, shape, pixels)
    for name, shape in shapes.items()
    for pixels in widths
  }


def apply_oracle(
  config: ml_collections.ConfigDict, workdir: str, widths: Sequence[int]
) -> dict[str, dict[str, float]]:
  """Returns row's name -> figure -> value, pooled over the images."""
  if 'none' in (config.data.labels, config.data.ground_truth):
    raise ValueError('needs config.data.labels and config.data.ground_truth')
  mesh = parallel.create_mesh()
  data = input_pipeline.open_data(config.data, train=False)
  model, state = initial.load_trained(config, workdir, mesh)
  models = {'as predicted': model}
  if model.seem:
    models['without SEEM'] = model.clone(seem=None)
  measured = collections.defaultdict(list)
  for name, model in models.items():
    evaluator = depth.Evaluator(config, data, model=model, mesh=mesh)
    for example, prediction in evaluator.examples(state.variables):
      height, width = example['native_size']
      truth = example['depth'][:height, :width]
      labels = example['native_labels'][:height, :width]
      rows = {name: evaluator.native_depth(example, prediction)}
      if name == 'as predicted':
        rows |= cut_by_all(rows[name], labels, prediction.labels, widths)
      for row, depth_map in rows.items():
        depths = truth, depth_map
        aligned = metrics.depth.align_depth(*depths, **evaluator.alignment())
        columns = borders.measure(
          *depths, aligned, labels, matrix=None, dense=False
        )
        measured[row].append(columns)
  return {row: borders.summarize(columns) for row, columns in measured.items()}


def define_flags() -> None:
  flags.DEFINE_string('workdir', None, 'A trained run.', required=True)
  flags.DEFINE_list('widths', ['1', '2', '3'], 'Pixels each side of a border.')


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)
  config = configuration.resolve(default.get_config(), FLAGS.workdir, {})
  figures = apply_oracle(config, FLAGS.workdir, list(map(int, FLAGS.widths)))
  rows = [
    [name, *(f'{values.get(f"abs_rel/{g}", np.nan):.4f}' for g in _GROUPS)]
    for name, values in figures.items()
  ]
  print(tables.markdown(' | '.join(['abs_rel', *_GROUPS]), rows))


if __name__ == '__main__':
  define_flags()
  app.run(main)
