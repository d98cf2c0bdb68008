"""`--mode=evaluate`: measures a checkpoint, prints tables and writes files."""

import csv
import functools
import logging
import os
import pathlib

import jax

import input_pipeline
from input_pipeline import files
from sgde_jax import parallel, visualization
from sgde_jax.evaluation import depth, odometry, segmentation, tables
from sgde_jax.inference import steps
from sgde_jax.metrics import trajectories
from sgde_jax.weights import initial


def evaluate(config, workdir: str | os.PathLike) -> dict[str, float]:
  """Evaluates a checkpoint of a workdir, the latest or the best.

  Prints a table for each part and writes into `evaluation/`:

    depth, where the data has it: `metrics.json`, `per_image.csv`, and panels in
      `pictures/`;
    classes on stills, with `config.eval.semantic_root`: `stills.json`;
    camera motion, with `config.eval.odometry`: `odometry.json`, and for every
      sequence `trajectory_NAME.txt`, the predicted poses aligned to the true
      ones in KITTI's format, and `trajectory_NAME.png`, both from above.

  Args:
    config: the whole config.
    workdir: folder of a trained run.

  Returns:
    The figures of all parts by name; `stills/...` and `odometry/...`.

  Raises:
    FileNotFoundError, ValueError: no checkpoint, or data that does not fit.
  """
  workdir, mesh = pathlib.Path(workdir), parallel.create_mesh()
  with parallel.failing_together():
    _check(config, workdir, mesh)
  model, state = initial.load_trained(config, workdir, mesh)
  stills = segmentation.open_stills(config)
  sequences = odometry.open_sequences(config)
  summary = {}
  if _has_depth(config):
    with parallel.failing_together():
      data = input_pipeline.open_data(config.data, train=False)
    parallel.check_same({'evaluation data': data.digest})
    evaluator = depth.Evaluator(config, data, model=model, mesh=mesh)
    summary |= _evaluate_depth(evaluator, workdir, state)
  folder = workdir / 'evaluation'
  if stills:
    label = functools.partial(steps.label_step, model=model)
    predict = functools.partial(
      parallel.jit_by_rows(label, mesh), state.variables
    )
    figures = segmentation.measure(stills, predict, config.eval.batch_size)
    _write_stills(folder, int(state.step), stills, figures)
    summary |= {f'stills/{name}': value for name, value in figures.items()}
  if sequences:
    predicted = odometry.predict_trajectories(
      config, state.variables, sequences, model=model, mesh=mesh
    )
    figures, total = odometry.measure(sequences, predicted)
    _write_trajectories(folder, sequences, predicted)
    _write_motion(folder, int(state.step), figures, total)
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
      "config.data.ground_truth is 'none': there is nothing to evaluate"
      ' against; name the kind that the root holds'
    )
  parallel.check_batch_size(
    config.eval.batch_size, mesh, 'config.eval.batch_size'
  )
  files.check_writable(workdir)


def _evaluate_depth(evaluator, workdir, state):
  summary, rows = evaluator.run(state.variables, pictures=workdir / 'pictures')
  if jax.process_index() == 0:
    step, folder = int(state.step), workdir / 'evaluation'
    made = {
      'step': step,
      'protocol': evaluator.protocol(),
      'list': evaluator.split,
    }
    files.write_json(folder / 'metrics.json', made | summary)
    with (
      files.whole_file(folder / 'per_image.csv') as partial,
      open(partial, 'w', newline='') as file,
    ):
      writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)
    logging.info('wrote %s and pictures', folder)
    protocol = f'{made["protocol"]}, list {made["list"]}'
    print(tables.format_depth({step: summary}, protocol))
  return summary


def _write_stills(folder, step, stills, figures):
  if jax.process_index() == 0:
    place = os.path.commonpath(list(map(os.path.dirname, stills.frame_files)))
    result = {'step': step, 'folder': place} | figures
    files.write_json(folder / 'stills.json', result)
    print(tables.format_stills(figures, place))


def _write_motion(folder, step, figures, total):
  if jax.process_index() == 0:
    result = {'step': step, 'snippet_frames': trajectories.SNIPPET}
    result |= {'sequences': figures, 'all': total}
    files.write_json(folder / 'odometry.json', result)
    print(tables.format_motion(figures, total))


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
