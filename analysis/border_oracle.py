"""What sharper borders alone could gain: an oracle that knows the classes.

  python -m analysis.border_oracle --workdir=W

Predicts a run's evaluation split and gives every pixel near a semantic border
the disparity of its own segment's nearest pixel farther inside, as if each
border had been found and cut perfectly while nothing else changed: near the
true borders, and near those of the predicted classes, which is as far as a
network that copies its own classes' shapes can get. What error remains lies in
the depth of the objects themselves, or at borders within a class. Of a run
with SEEM the row without it shows what SEEM changed.
"""

import numpy as np
from absl import flags, logging
from scipy import ndimage

from benchmarks import command_line
from input_pipeline import images
from sgde_jax import configuration, metrics, parallel
from sgde_jax.configs import default
from sgde_jax.evaluation import depth as evaluate
from sgde_jax.metrics import segmentation
from sgde_jax.weights import initial

FLAGS = flags.FLAGS

_GROUPS = ('border_1', 'border_3', 'away', 'thin')


def cut_borders(disparity, labels, width):
  """Replaces the disparity near semantic borders from inside each segment.

  Args:
    disparity: `[H, W]` float.
    labels: `[H, W]` uint8 train ids.
    width: pixels on each side of a border that are replaced.

  Returns:
    `[H, W]`. A segment (connected, of one class) without a pixel farther than
    `width` from its border takes the values of those farthest inside.
  """
  distance = segmentation.border_distance(labels, limit=width)
  cut = disparity.copy()
  for label in np.unique(labels):
    segments, _ = ndimage.label(labels == label)
    for index, window in enumerate(ndimage.find_objects(segments), start=1):
      inside = segments[window] == index
      depth = np.where(inside, distance[window], 0)
      rows, columns = ndimage.distance_transform_edt(
        depth < depth.max(), return_distances=False, return_indices=True
      )
      near = inside & (depth <= width)
      cut[window][near] = disparity[window][rows, columns][near]
  return cut


def measure(truth, disparity, labels, options):
  """Depth errors of one image at borders, away from them and per class.

  Args:
    truth: `[H, W]` depth in metres, 0 = none.
    disparity: `[H, W]` float, of any scale.
    labels: `[H, W]` uint8 train ids.
    options: keyword arguments of `metrics.align_depth`.

  Returns:
    `semantic_metrics.Totals`.
  """
  aligned = metrics.align_depth(truth, 1 / disparity, **options)
  depths = truth, aligned.prediction, aligned.valid, labels
  errors = metrics.border_errors(*depths)
  return errors.merge(metrics.class_errors(*depths))


def apply_oracle(config, workdir, widths):
  """Pools the errors as predicted, without SEEM, and with the borders cut.

  Returns:
    Row's name -> figure -> value.

  Raises:
    FileNotFoundError, ValueError: as `evaluate.evaluate`; no labels or truth.
  """
  if config.data.labels == 'none':
    raise ValueError('config.data.labels is none: there are no borders')
  if config.data.ground_truth == 'none':
    raise ValueError('config.data.ground_truth is none: there are no errors')
  mesh = parallel.create_mesh()
  model, state = initial.load_trained(config, workdir, mesh)
  models = {'as predicted': model}
  if model.seem:
    models['without SEEM'] = model.clone(seem=None)
  totals = {}
  for name, model in models.items():
    evaluator = evaluate.Evaluator(config, model=model, mesh=mesh)
    for example, prediction in evaluator.examples(state.variables):
      height, width = example['native_size']
      truth = example['depth'][:height, :width]
      labels = example['native_labels'][:height, :width]
      rows = {name: 1 / evaluator.native_depth(example, prediction)}
      if name == 'as predicted':
        rows |= cut_by_all(rows[name], labels, prediction.labels, widths)
      for row, disparity in rows.items():
        errors = measure(truth, disparity, labels, evaluator.alignment())
        totals[row] = totals.get(row, segmentation.Totals()).merge(errors)
  return {row: total.finalize() for row, total in totals.items()}


def cut_by_all(disparity, labels, predicted, widths):
  """Cuts the borders of the labels and of the predicted classes.

  Args:
    disparity: `[H, W]` float.
    labels: `[H, W]` uint8 train ids.
    predicted: `[h, w]` uint8 train ids, or None.
    widths: pixels on each side of a border.

  Returns:
    Row's name -> `[H, W]`.
  """
  shapes = {'labels': labels}
  if predicted is not None:
    height, width = labels.shape
    shapes['predicted classes'] = images.resize_nearest(
      predicted, height=height, width=width
    )
  return {
    f'cut by {name}, {pixels} px': cut_borders(disparity, shape, pixels)
    for name, shape in shapes.items()
    for pixels in widths
  }


def define_flags():
  """Defines what the command line takes."""
  flags.DEFINE_string('workdir', None, 'A trained run.', required=True)
  flags.DEFINE_list('widths', ['1', '2', '3'], 'Pixels each side of a border.')
  command_line.require_integers('widths', 1)


def main(_):
  """Prints the table."""
  widths = [int(width) for width in FLAGS.widths]
  logging.set_verbosity(logging.ERROR)
  config = configuration.resolve(default.get_config(), FLAGS.workdir, {})
  figures = apply_oracle(config, FLAGS.workdir, widths)
  print('| abs_rel |', ' | '.join(_GROUPS), '|')
  print('|' + '---|' * (1 + len(_GROUPS)))
  for name, values in figures.items():
    row = (f'{values.get(f"abs_rel/{g}", np.nan):.4f}' for g in _GROUPS)
    print(f'| {name} |', ' | '.join(row), '|')


if __name__ == '__main__':
  command_line.run(main, define_flags)
