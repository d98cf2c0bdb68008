"""`--mode=evaluate`: measures a checkpoint, prints tables and writes files."""

import csv
import functools
import logging
import os
import pathlib

import jax
import ml_collections

import input_pipeline
from input_pipeline import files
from sgde_jax import parallel, visualization
from sgde_jax.evaluation import depth, odometry, segmentation, tables
from sgde_jax.inference import steps
from sgde_jax.metrics import trajectories
from sgde_jax.weights import initial


def evaluate(
  config: ml_collections.ConfigDict, workdir: str | os.PathLike
) -> dict[str, float]:
  """Evaluates a checkpoint of a workdir, see `config.eval`.

  Prints a table for each part and writes into `evaluation/`:

    depth, where the data has it: `metrics.json`, `per_image.csv`, and panels in
      `pictures/`;
    classes on stills, with `config.eval.semantic_root`: `stills.json`;
    camera motion, with `config.eval.odometry`: `odometry.json`, and for every
      sequence `trajectory_NAME.txt`, the predicted poses aligned to the true
      ones in KITTI's format, and `trajectory_NAME.png`, both from above.

  Returns:
    The figures by name; those of stills and motion as `stills/...` and
    `odometry/...`.
  """
  workdir, mesh = pathlib.Path(workdir), parallel.create_mesh()
  with parallel.failing_together():
    _check(config, workdir, mesh)
  model, state = initial.load_trained(config, workdir, mesh)
  stills = segmentation.open_stills(config)
  sequences = odometry.open_sequences(config)
  folder, step = workdir / 'evaluation', {'step': int(state.step)}
  summary = {}
  if _has_depth(config):
    with parallel.failing_together():
      data = input_pipeline.open_data(config.data, train=False)
    parallel.check_same({'evaluation data': data.digest})
    evaluator = depth.Evaluator(config, data, model=model, mesh=mesh)
    summary, rows = evaluator.run(state.variables, workdir / 'pictures')
    protocol, split = evaluator.protocol(), config.data.eval_split
    table = tables.format_depth(
      {step['step']: summary}, f'{protocol}, list {split}'
    )
    made = step | {'protocol': protocol, 'list': split}
    _report(folder / 'metrics.json', made | summary, table)
    _write_images(folder / 'per_image.csv', rows)
  if stills:
    label = functools.partial(steps.label_step, model=model)
    label = parallel.jit_by_rows(label, mesh)
    predict = functools.partial(label, state.variables)
    figures = segmentation.measure(stills, predict, config.eval.batch_size)
    place = os.path.commonpath(list(map(os.path.dirname, stills.frame_files)))
    table = tables.format_stills(figures, place)
    _report(folder / 'stills.json', step | {'folder': place} | figures, table)
    summary |= {f'stills/{name}': value for name, value in figures.items()}
  if sequences:
    predicted = odometry.predict_trajectories(
      config, state.variables, sequences, model=model, mesh=mesh
    )
    figures, total = odometry.measure(sequences, predicted)
    made = step | {'snippet_frames': trajectories.SNIPPET}
    made |= {'sequences': figures, 'all': total}
    table = tables.format_motion(figures, total)
    _report(folder / 'odometry.json', made, table)
    _write_trajectories(folder, sequences, predicted)
    summary |= {f'odometry/{name}': value for name, value in total.items()}
  return summary


def _has_depth(config):
  """Returns whether the data has depth; KITTI odometry has motion alone."""
  benchmark = input_pipeline.is_odometry_root(config.data.root)
  only_motion = config.eval.odometry and benchmark
  return config.data.ground_truth != 'none' and not only_motion


def _check(config, workdir, mesh):
  others = config.eval.odometry or config.eval.semantic_root
  if not (others or _has_depth(config)):
    raise ValueError(
      "config.data.ground_truth is 'none': there is nothing to evaluate; name"
      ' the kind that the root holds'
    )
  batch_size = config.eval.batch_size
  parallel.check_batch_size(batch_size, mesh, 'config.eval.batch_size')
  files.check_writable(workdir)


def _report(path, figures, table):
  """Writes figures and prints their table."""
  if jax.process_index() == 0:
    files.write_json(path, figures)
    print(table)


def _write_images(path, rows):
  if jax.process_index() == 0:
    with files.whole_file(path) as partial, open(partial, 'w') as file:
      writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)
    logging.info('wrote %s and pictures', path.parent)


def _write_trajectories(folder, sequences, predicted):
  if jax.process_index() == 0:
    for sequence, poses in zip(sequences, predicted, strict=True):
      aligned, _ = trajectories.align(sequence.poses, poses)
      path = folder / f'trajectory_{sequence.name}.txt'
      rows = aligned[:, :3].reshape(-1, 12)
      lines = (' '.join(f'{v:.9e}' for v in row) + '\n' for row in rows)
      files.write_text(path, ''.join(lines))
      picture = visualization.draw_trajectories(
        {'truth': sequence.poses, 'prediction, aligned': aligned},
        title=sequence.name,
      )
      visualization.write_png(path.with_suffix('.png'), picture)
