"""`--mode=evaluate`: measures a checkpoint, prints tables and writes files."""

import functools
import os
import pathlib

import jax
import ml_collections

import input_pipeline
from input_pipeline import files
from sgde_jax import parallel, run_files, visualization
from sgde_jax.evaluation import depth, odometry, segmentation, tables
from sgde_jax.inference import steps
from sgde_jax.metrics import trajectories
from sgde_jax.weights import initial


def evaluate(
  config: ml_collections.ConfigDict, workdir: str | os.PathLike
) -> dict[str, float]:
  """Evaluates a checkpoint of a workdir, see `config.eval`.

  Prints a table for each part and writes into `evaluation/`:

    depth, where the data has it: the files of `run_files.write_evaluation`,
      and panels in `pictures/`;
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
  if has_depth(config):
    with parallel.failing_together():
      data = input_pipeline.open_data(config.data, train=False)
    parallel.check_same({'evaluation data': data.digest})
    evaluator = depth.Evaluator(config, data, model=model, mesh=mesh)
    evaluation = evaluator.run(state.variables, **step)
    summary = dict(evaluation.summary)
    if jax.process_index() == 0:
      run_files.write_evaluation(workdir, evaluation)
      how = '{protocol}, list {list}'.format_map(evaluation.made)
      print(tables.format_depth({step['step']: summary}, how))
    evaluator.draw(workdir / 'pictures')
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


def has_depth(config: ml_collections.ConfigDict) -> bool:
  """Returns whether the data has depth; KITTI odometry has motion alone."""
  benchmark = input_pipeline.is_odometry_root(config.data.root)
  only_motion = config.eval.odometry and benchmark
  return config.data.ground_truth != 'none' and not only_motion


def _check(config, workdir, mesh):
  others = config.eval.odometry or config.eval.semantic_root
  if not (others or has_depth(config)):
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


def _write_trajectories(folder, sequences, predicted):
  if jax.process_index() == 0:
    aligned = [
      trajectories.align(sequence.poses, poses)[0]
      for sequence, poses in zip(sequences, predicted, strict=True)
    ]
    paths = [folder / f'trajectory_{s.name}.txt' for s in sequences]
    for path, poses in zip(paths, aligned, strict=True):
      rows = poses[:, :3].reshape(-1, 12)
      lines = (' '.join(f'{v:.9e}' for v in row) + '\n' for row in rows)
      files.write_text(path, ''.join(lines))
    for path, poses, sequence in zip(paths, aligned, sequences, strict=True):
      picture = visualization.draw_trajectories(
        {'truth': sequence.poses, 'prediction, aligned': poses},
        title=sequence.name,
      )
      visualization.write_png(path.with_suffix('.png'), picture)
