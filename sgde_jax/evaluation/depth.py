"""Evaluation by the field's protocol: `--mode=evaluate`, and while training."""

import csv
import functools
import io
import logging
import operator
import pathlib

import jax
import numpy as np

import input_pipeline
from input_pipeline import files
from sgde_jax import metrics, parallel, visualization
from sgde_jax.evaluation import borders, odometry, panels, segmentation
from sgde_jax.inference import steps
from sgde_jax.training import log
from sgde_jax.weights import initial


class Evaluator:
  """Measures variables on every example of a split.

  The batches are opened once and the prediction is compiled once; `run` can
  be called as often as training likes.

  Attributes:
    split: the list of examples, `config.data.eval_split`.
    lines: its lines, one per example.
  """

  def __init__(self, config, data, *, model, mesh):
    """Opens the evaluation batches.

    Args:
      config: the whole config.
      data: an `input_pipeline.Data` with its evaluation part.
      model: the network.
      mesh: the mesh.

    Raises:
      ValueError: if the batch size does not fit the mesh, or an example cannot
        be read.
    """
    parallel.check_batch_size(
      config.eval.batch_size, mesh, 'config.eval.batch_size'
    )
    self._config = config.eval
    self.split = config.data.eval_split
    self._truth = config.data.ground_truth
    self._truth_file = config.data.ground_truth_file
    self._names = ['index', *metrics.DEPTH_ERRORS, 'ratio']
    if config.data.labels != 'none':
      self._names += borders.column_names(
        semantics=config.model.semantics, dense=self._truth == 'dense'
      )
    self.lines = data.eval_lines
    self._batches = data.eval_batches(
      batch_size=config.eval.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    self._predict = parallel.jit_by_rows(
      functools.partial(steps.predict_step, model=model, flip=config.eval.flip),
      mesh,
    )

  def run(self, variables, *, pictures=None):
    """Evaluates.

    Args:
      variables: the model's variables, replicated.
      pictures: folder for PNG panels of process 0's first examples, or None.

    Returns:
      The summary (means over images, see `metrics.summarize`, and with labels
      `evidence.summarize`) and a list of one dict per image: `index`,
      `example` (its line of the split list), the seven errors, `ratio` and
      with labels the columns of `evidence.measure`.
    """
    rows, lines = [], self.lines
    panels = self._config.panels if jax.process_index() == 0 else 0
    for example, prediction in self.examples(variables):
      try:
        measured = self._measure(example, prediction)
      except ValueError as error:
        raise ValueError(
          f'{lines[example["index"]]} of {self.split}: {error}'
        ) from error
      rows.append({name: measured[name] for name in self._names})
      if pictures and example['index'] < panels:
        self._draw(example, measured, pathlib.Path(pictures))
    if pictures and panels:
      _remove_panels(pathlib.Path(pictures), drawn=min(panels, len(lines)))
    rows = [
      {'index': row['index'], 'example': str(lines[row['index']])} | row
      for row in _gather(rows, self._names)
    ]
    return metrics.summarize(rows) | borders.summarize(rows), rows

  def examples(self, variables):
    """Yields this process' examples and their predictions, one by one.

    Args:
      variables: the model's variables, replicated.

    Yields:
      A row of the batch, name -> array, and of `predict`'s result.
    """
    for batch in self._batches:
      predictions = self._predict(variables, batch['frames'][:, 0])
      for row in np.flatnonzero(batch['mask']):
        example = {name: array[row] for name, array in batch.items()}
        yield example, jax.tree.map(operator.itemgetter(row), predictions)

  def report(self, state, reporter, step):
    """Reports the errors of a training state, with panels; a step's once."""
    if step in reporter.evaluations:  # Before this process started.
      return
    pictures = reporter.workdir / 'pictures'
    summary, _ = self.run(state.variables, pictures=pictures)
    reporter.evaluation(step, summary)

  def protocol(self):
    """One line that says how the figures were made."""
    scaling = 'median scaling' if self._config.median_scaling else 'no scaling'
    flip = ', flip post-processing' if self._config.flip else ''
    source = f' of {self._truth_file}' if self._truth_file else ''
    crop = self._config.crop
    span = f'{self._config.min_depth:g} to {self._config.max_depth:g} m'
    if self._truth == 'improved':
      span = f'truth at any depth, predictions clipped to {span}'
      crop += '' if crop == 'none' else ' (usual with this truth: none)'
    return f'truth {self._truth}{source}, crop {crop}, {span}, {scaling}{flip}'

  def native_depth(self, example, prediction):
    """The predicted depth `[H, W]` at the truth's size, up to its scale."""
    inverse_depth = prediction.inverse_depth
    if self._config.flip:
      inverse_depth = metrics.flip_post_process(*inverse_depth)
    return metrics.native_depth(inverse_depth, example['native_size'])

  def alignment(self):
    """The protocol's keyword arguments of `metrics.align_depth`."""
    return {
      'crop': self._config.crop,
      'min_depth': self._config.min_depth,
      'max_depth': self._config.max_depth,
      'median_scaling': self._config.median_scaling,
      # KITTI's improved truth counts wherever it is measured.
      'cap_truth': self._truth != 'improved',
    }

  def _measure(self, example, prediction):
    """Errors of an image by name; `aligned` and `labels` for its picture."""
    height, width = example['native_size']
    truth = example['depth'][:height, :width]
    depth = self.native_depth(example, prediction)
    aligned = metrics.align_depth(truth, depth, **self.alignment())
    measured = {'index': int(example['index']), 'aligned': aligned}
    measured |= metrics.aligned_errors(truth, aligned)
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


def _remove_panels(folder, *, drawn):
  """Removes those of earlier evaluations that had more images."""
  for path in folder.glob('eval_*.png'):
    number = path.stem.removeprefix('eval_')
    if number.isdecimal() and int(number) >= drawn:
      path.unlink()


class NoEvaluator:
  """In the place of an `Evaluator` where there is no ground truth."""

  def report(self, state, reporter, step):
    """Reports nothing."""

  def protocol(self):
    """See `Evaluator.protocol`."""
    return 'no ground truth'


def open_evaluator(config, data, *, model, mesh):
  """Returns what evaluates while training; raises as `Evaluator`."""
  if config.data.ground_truth == 'none':
    return NoEvaluator()
  return Evaluator(config, data, model=model, mesh=mesh)


def evaluate(config, workdir):
  """Evaluates a checkpoint of a workdir, the latest or the best.

  Of data with depth it prints the table and writes `evaluation/metrics.json`,
  `evaluation/per_image.csv` and panels in `pictures/`. With
  `config.eval.semantic_root` it measures the classes on stills, see
  `segmentation.evaluate`, and with `config.eval.odometry` the camera's motion,
  see `odometry.evaluate`; both also where there is no depth.

  Args:
    config: the whole config.
    workdir: folder of a trained run.

  Returns:
    The summary.

  Raises:
    FileNotFoundError, ValueError: no checkpoint, data that does not fit.
  """
  workdir = pathlib.Path(workdir)
  mesh = parallel.create_mesh()
  with parallel.failing_together():
    _check(config, workdir, mesh)
  model, state = initial.load_trained(config, workdir, mesh)
  stills = segmentation.open_table(config)
  sequences = odometry.open_sequences(config)
  run = {'model': model, 'state': state, 'mesh': mesh}
  folder, summary = workdir / 'evaluation', {}
  if odometry.has_depth(config):
    with parallel.failing_together():
      data = input_pipeline.open_data(config.data, train=False)
    evaluator = Evaluator(config, data, model=model, mesh=mesh)
    summary = _evaluate_images(evaluator, workdir, state)
  if stills:
    summary |= segmentation.evaluate(config, stills, folder, **run)
  if sequences:
    summary |= odometry.evaluate(config, sequences, folder, **run)
  return summary


def _check(config, workdir, mesh):
  """Refuses what cannot be measured, before anything is read."""
  others = config.eval.odometry or config.eval.semantic_root
  if not (others or odometry.has_depth(config)):
    raise ValueError(
      "config.data.ground_truth is 'none': there is nothing to evaluate"
      ' against; name the kind that the root holds'
    )
  parallel.check_batch_size(
    config.eval.batch_size, mesh, 'config.eval.batch_size'
  )
  files.check_writable(workdir)


def _evaluate_images(evaluator, workdir, state):
  """Prints the table and writes its files; returns the summary."""
  parallel.check_same({'evaluation lists': repr(evaluator.lines)})
  summary, rows = evaluator.run(state.variables, pictures=workdir / 'pictures')
  if jax.process_index() == 0:
    made = {
      'step': int(state.step),
      'protocol': evaluator.protocol(),
      'list': str(evaluator.split),
    }
    _write_results(workdir / 'evaluation', made | summary, rows)
    protocol = f'{made["protocol"]}, list {made["list"]}'
    print(log.table({made['step']: summary}, protocol))
  return summary


def _write_results(folder, result, rows):
  """Writes `metrics.json` and `per_image.csv` into a folder."""
  files.write_json(folder / 'metrics.json', result)
  table = io.StringIO(newline='')
  writer = csv.DictWriter(table, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  files.write_text(folder / 'per_image.csv', table.getvalue())
  logging.info('wrote %s, and pictures beside it', folder)


def _gather(rows, names):
  """Collects every process' rows, ordered by index, on each process."""
  table = np.array([[row[name] for name in names] for row in rows])
  if jax.process_count() > 1:
    # Processes may hold fewer real rows in the last batch: pad to the most.
    most = int(parallel.gather_rows(np.array([len(rows)])).max())
    padded = np.full((most, len(names)), -1.0)
    padded[: len(rows)] = table.reshape(-1, len(names))
    table = parallel.gather_rows(padded)
    table = table[table[:, 0] >= 0]
  table = table[np.argsort(table[:, 0])]
  return [
    {'index': int(row[0])} | dict(zip(names[1:], row[1:], strict=True))
    for row in table.tolist()
  ]
