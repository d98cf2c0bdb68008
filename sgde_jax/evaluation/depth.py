"""Evaluation of depth by the field's protocol, also while training."""

import functools
import operator
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import jax
import ml_collections
import numpy as np

import input_pipeline
from input_pipeline import cityscapes
from sgde_jax import metrics, parallel, run_files, visualization
from sgde_jax.evaluation import borders, panels
from sgde_jax.inference import steps


def describe(config: ml_collections.ConfigDict) -> dict[str, str]:
  """Returns `protocol`, how the figures are made, in one line, and `list`."""
  options, truth = config.eval, config.data.ground_truth
  scaling = 'median scaling' if options.median_scaling else 'no scaling'
  flip = ', flip post-processing' if options.flip else ''
  source = config.data.ground_truth_file
  source = f' of {source}' if source else ''
  crop, span = options.crop, f'{options.min_depth:g} to {options.max_depth:g} m'
  if truth == 'improved':
    span = f'truth at any depth, predictions clipped to {span}'
    crop += '' if crop == 'none' else ' (usual with this truth: none)'
  protocol = f'truth {truth}{source}, crop {crop}, {span}, {scaling}{flip}'
  return {'protocol': protocol, 'list': config.data.eval_split}


class Evaluator:
  """Evaluates variables on evaluation examples; compiles once."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    data: input_pipeline.Data,
    *,
    model,
    mesh: jax.sharding.Mesh,
    indices: Sequence[int] | None = None,
  ):
    """Opens the examples.

    Args:
      config: the whole config; its `eval.batch_size` must be a multiple of the
        mesh's size.
      data: with its evaluation part.
      model: the network.
      mesh: the mesh.
      indices: which examples; all by default.
    """
    self._config, self._data = config.eval, data
    self._truth = config.data.ground_truth
    self._made = describe(config)
    self._shown = []  # What `draw` draws.
    self._names = ['index', *metrics.depth.DEPTH_ERRORS, 'ratio']
    has_labels = config.data.labels != 'none'
    self._has_classes = has_labels and config.model.semantics
    if has_labels:
      self._names += borders.column_names(
        semantics=self._has_classes, dense=self._truth == 'dense'
      )
    self._batches = data.eval_batches(
      indices=indices,
      batch_size=config.eval.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    self._predict = parallel.jit_by_rows(
      functools.partial(steps.predict_step, model=model, flip=config.eval.flip),
      mesh,
    )

  def run(self, variables: dict, *, step: int) -> run_files.Evaluation:
    """Evaluates the variables of a step."""
    rows, lines = [], self._data.eval_lines
    confusion = np.zeros((cityscapes.NUM_CLASSES,) * 2, np.int64)
    self._shown = []
    for example, prediction in self.examples(variables):
      try:
        measured = self.measure(example, prediction)
      except ValueError as error:
        raise ValueError(
          f'{lines[example["index"]]} of {self._data.eval_split}: {error}'
        ) from error
      rows.append({name: measured[name] for name in self._names})
      if self._has_classes:
        confusion += measured['confusion']
      if example['index'] < self._config.panels:
        self._shown.append((example, measured))
    rows = [
      {'index': row['index'], 'example': str(lines[row['index']])} | row
      for row in self._gather(rows)
    ]
    confusion = parallel.gather_rows(confusion[None]).sum(axis=0)
    return run_files.Evaluation(
      {'step': step, **self._made},
      metrics.depth.summarize(rows) | borders.summarize(rows),
      rows,
      confusion if self._has_classes else None,
    )

  def draw(self, folder: str | os.PathLike) -> None:
    """Writes panels of the first examples of the last run, on process 0."""
    if jax.process_index() == 0 and self._config.panels:
      for example, measured in self._shown:
        self._draw(example, measured, pathlib.Path(folder))
      drawn = min(self._config.panels, len(self._data.eval_lines))
      _remove_panels(pathlib.Path(folder), drawn)

  def examples(
    self, variables: dict
  ) -> Iterator[tuple[Mapping[str, np.ndarray], steps.BatchPrediction]]:
    """Yields this process' examples and their predictions, one by one."""
    for batch in self._batches:
      predictions = self._predict(variables, batch['frames'][:, 0])
      for row in np.flatnonzero(batch['mask']):
        example = {name: array[row] for name, array in batch.items()}
        yield example, jax.tree.map(operator.itemgetter(row), predictions)

  def native_depth(
    self, example: Mapping[str, np.ndarray], prediction: steps.BatchPrediction
  ) -> np.ndarray:
    """Returns the predicted depth `[H, W]` at the truth's size, unscaled."""
    inverse_depth = prediction.inverse_depth
    if self._config.flip:
      inverse_depth = metrics.depth.flip_post_process(*inverse_depth)
    return metrics.depth.native_depth(inverse_depth, example['native_size'])

  def alignment(self) -> dict:
    """Returns the protocol as arguments of `metrics.depth.align_depth`."""
    return {
      'crop': self._config.crop,
      'min_depth': self._config.min_depth,
      'max_depth': self._config.max_depth,
      'median_scaling': self._config.median_scaling,
      # KITTI's improved truth counts wherever it is measured.
      'cap_truth': self._truth != 'improved',
    }

  def measure(
    self,
    example: Mapping[str, np.ndarray],
    prediction: steps.BatchPrediction,
  ) -> dict:
    """Measures an image.

    Returns:
      Its entry of `run_files.Evaluation.images`, except `example`; `aligned`,
      the prediction on the truth's scale; `labels` and `confusion`, None
      without classes.
    """
    height, width = example['native_size']
    truth = example['depth'][:height, :width]
    depth = self.native_depth(example, prediction)
    aligned = metrics.depth.align_depth(truth, depth, **self.alignment())
    measured = {'index': int(example['index']), 'aligned': aligned}
    measured |= metrics.depth.aligned_errors(truth, aligned)
    matrix = None
    if 'native_labels' in example:
      labels = example['native_labels'][:height, :width]
      if prediction.labels is not None:
        matrix = borders.confusion(labels, prediction.labels)
      measured |= borders.measure(
        truth,
        depth,
        aligned,
        labels,
        matrix=matrix,
        dense=self._truth == 'dense',
      )
    return measured | {'labels': prediction.labels, 'confusion': matrix}

  def _gather(self, rows):
    """Collects the rows of all processes on each process, ordered by index."""
    # Processes may hold different numbers of rows: pad to the maximum.
    most = len(self._batches) * self._config.batch_size
    table = np.full((most, len(self._names)), -1.0)
    values = [[row[name] for name in self._names] for row in rows]
    table[: len(rows)] = np.reshape(values, (len(rows), len(self._names)))
    table = parallel.gather_rows(table)
    table = table[table[:, 0] >= 0]
    return [
      dict(zip(self._names, row, strict=True)) | {'index': int(row[0])}
      for row in table[np.argsort(table[:, 0])].tolist()
    ]

  def _draw(self, example, measured, folder):
    height, width = example['native_size']
    labels = example.get('native_labels')
    panel = panels.evaluation_panel(
      example['frames'][0],
      example['depth'][:height, :width],
      measured['aligned'],
      labels=measured['labels'],
      true_labels=None if labels is None else labels[:height, :width],
      captions=(f'{measured["index"]}', f'{measured["abs_rel"]:.3f}'),
    )
    visualization.write_png(folder / f'eval_{measured["index"]:06d}.png', panel)


def _remove_panels(folder, drawn):
  """Removes panels of earlier evaluations with more images."""
  for path in folder.glob('eval_*.png'):
    number = path.stem.removeprefix('eval_')
    if number.isdecimal() and int(number) >= drawn:
      path.unlink()
