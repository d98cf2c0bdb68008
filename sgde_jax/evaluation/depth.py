"""Evaluation of depth by the field's protocol, also while training."""

import functools
import operator
import os
import pathlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

import input_pipeline
from sgde_jax import metrics, parallel, visualization
from sgde_jax.evaluation import borders, panels
from sgde_jax.inference import steps


class Evaluator:
  """Evaluates variables on all evaluation examples; compiles once."""

  def __init__(
    self, config, data: input_pipeline.Data, *, model, mesh: jax.sharding.Mesh
  ):
    """Takes the whole config, data with its evaluation part, and the network.

    `config.eval.batch_size` must be a multiple of the mesh's size.
    """
    self._config, self._data = config.eval, data
    self._truth = config.data.ground_truth
    self._truth_file = config.data.ground_truth_file
    self._names = ['index', *metrics.depth.DEPTH_ERRORS, 'ratio']
    if config.data.labels != 'none':
      self._names += borders.column_names(
        semantics=config.model.semantics, dense=self._truth == 'dense'
      )
    self._batches = data.eval_batches(
      batch_size=config.eval.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    self._predict = parallel.jit_by_rows(
      functools.partial(steps.predict_step, model=model, flip=config.eval.flip),
      mesh,
    )

  def run(
    self, variables: dict, pictures: str | os.PathLike | None = None
  ) -> tuple[dict[str, float], list[dict]]:
    """Evaluates; writes panels of the first examples to the folder `pictures`.

    Returns:
      The summary, see `metrics.depth.summarize` and, with labels,
      `borders.summarize`; and a dict per image: `index`, `example` (its line of
      the split list), the seven errors, `ratio` and, with labels, the columns
      of `borders.measure`.
    """
    rows, lines = [], self._data.eval_lines
    drawn = self._config.panels if jax.process_index() == 0 and pictures else 0
    for example, prediction in self.examples(variables):
      try:
        measured = self._measure(example, prediction)
      except ValueError as error:
        raise ValueError(
          f'{lines[example["index"]]} of {self._data.eval_split}: {error}'
        ) from error
      rows.append({name: measured[name] for name in self._names})
      if example['index'] < drawn:
        self._draw(example, measured, pathlib.Path(pictures))
    if drawn:
      _remove_panels(pathlib.Path(pictures), min(drawn, len(lines)))
    rows = [
      {'index': row['index'], 'example': str(lines[row['index']])} | row
      for row in self._gather(rows)
    ]
    return metrics.depth.summarize(rows) | borders.summarize(rows), rows

  def examples(
    self, variables: dict
  ) -> Iterator[tuple[Mapping[str, np.ndarray], steps.BatchPrediction]]:
    """Yields this process' examples and their predictions, one by one."""
    for batch in self._batches:
      predictions = self._predict(variables, batch['frames'][:, 0])
      for row in np.flatnonzero(batch['mask']):
        example = {name: array[row] for name, array in batch.items()}
        yield example, jax.tree.map(operator.itemgetter(row), predictions)

  def protocol(self) -> str:
    """Describes in one line how the figures were made."""
    scaling = 'median scaling' if self._config.median_scaling else 'no scaling'
    flip = ', flip post-processing' if self._config.flip else ''
    source = f' of {self._truth_file}' if self._truth_file else ''
    crop = self._config.crop
    span = f'{self._config.min_depth:g} to {self._config.max_depth:g} m'
    if self._truth == 'improved':
      span = f'truth at any depth, predictions clipped to {span}'
      crop += '' if crop == 'none' else ' (usual with this truth: none)'
    return f'truth {self._truth}{source}, crop {crop}, {span}, {scaling}{flip}'

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

  def _measure(self, example, prediction):
    """Returns an image's errors, and `aligned` and `labels` for its picture."""
    height, width = example['native_size']
    truth = example['depth'][:height, :width]
    depth = self.native_depth(example, prediction)
    aligned = metrics.depth.align_depth(truth, depth, **self.alignment())
    measured = {'index': int(example['index']), 'aligned': aligned}
    measured |= metrics.depth.aligned_errors(truth, aligned)
    if 'native_labels' in example:
      measured |= borders.measure(
        truth,
        depth,
        aligned,
        example['native_labels'][:height, :width],
        predicted_labels=prediction.labels,
        dense=self._truth == 'dense',
      )
    return measured | {'labels': prediction.labels}

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
