"""Trains the ablations on the street with several seeds; one table, one plot.

  python -m analysis.ablation --output=runs/ablation
  python -m analysis.ablation --output=runs/ablation_640x192 \
    --size=640x192 --steps=20000 --batch=12 --automask       # on a GPU

Every run is a workdir in --output that main.py trains with
configs/ablation.py:PART. Give the same command again to continue after an
interruption. All parts see the same examples in the same order, for the same
number of steps, and are evaluated on the same held-out drives. Cells are `mean
+- sample deviation` over the seeds: abs_rel over groups of pixels, boundary F1
and recall, mIoU; all without a unit.
"""

import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
from absl import app, flags

from analysis import tables
from sgde_jax import run_files, visualization
from sgde_jax.configs import ablation

FLAGS = flags.FLAGS

FIGURES = {
  'abs_rel': 'abs_rel',
  'abs_rel/border_1': 'border, 1 px',
  'abs_rel/border_3': 'border, 3 px',
  'abs_rel/away': 'away from borders',
  'abs_rel/thin': 'thin classes',
  'boundary_f1': 'boundary F1',
  'boundary_recall/thin': 'boundary recall, thin',
  'miou': 'mIoU',
}
_MARKS = '<!-- ablation -->', '<!-- /ablation -->'
# Part -> figure -> `[S]`, a value per finished seed.
Results = Mapping[str, Mapping[str, np.ndarray]]


def make_settings(folder: pathlib.Path) -> dict[str, str]:
  """Returns the config fields that all runs in a folder share."""
  width, height = FLAGS.size.split('x')
  examples = (FLAGS.drives - FLAGS.test_drives) * (FLAGS.frames - 2)
  epochs = FLAGS.steps * FLAGS.batch / examples
  defaults = {
    'eval_every': FLAGS.steps,
    'picture_every': FLAGS.steps,
    'checkpoint_every': max(FLAGS.steps // 4, 1),
    'keep_checkpoints': 1,
    'optimizer.decay_epochs': (0.75 * epochs,),
    'augmentation.jitter_probability': 0.0,  # All drives have the same light.
    'data.root': folder / f'street_{FLAGS.size}',
    'eval.crop': 'garg',
  }
  from_flags = {
    'num_steps': FLAGS.steps,
    'batch_size': FLAGS.batch,
    'optimizer.learning_rate': FLAGS.learning_rate,
    'loss.automask': FLAGS.automask,
    'model.seem.points': FLAGS.points,
    'data.height': height,
    'data.width': width,
    'data.street.height': height,
    'data.street.width': width,
  }
  for name in ('drives', 'test_drives', 'frames'):
    from_flags[f'data.street.{name}'] = FLAGS[name].value
  chosen = dict(field.split('=', 1) for field in FLAGS.set)
  if conflicts := sorted(chosen.keys() & {'seed', *from_flags}):
    raise ValueError(f'--set={", ".join(conflicts)}: use its flag, see --help')
  settings = defaults | from_flags | chosen
  return {name: str(value) for name, value in settings.items()}


def check_settings(folder: pathlib.Path, settings: Mapping[str, str]) -> None:
  """Stores settings; raises ValueError if the folder's runs have others."""
  path = folder / 'settings.json'
  if path.is_file() and any(folder.glob('*/config.json')):
    others = dict(json.loads(path.read_text()).items() ^ settings.items())
    if others:
      raise ValueError(
        f'{folder} has runs with another {", ".join(sorted(others))}: use'
        ' another --output'
      )
  folder.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(settings, indent=2) + '\n')


def train(workdir: pathlib.Path, part: str, fields: Mapping[str, str]) -> None:
  """Trains a run to its end, from its last checkpoint if it has one."""
  command = [sys.executable, 'main.py', f'--config=configs/ablation.py:{part}']
  command.append(f'--workdir={workdir}')
  command += [f'--config.{name}={value}' for name, value in fields.items()]
  root = pathlib.Path(__file__).resolve().parents[1]
  subprocess.run(command, cwd=root, check=True)


def read_final(workdir: pathlib.Path) -> dict[str, float] | None:
  """Returns a run's evaluation at --steps, None if it has not ended."""
  evaluations = run_files.find_evaluations(run_files.read_entries(workdir))
  return evaluations.get(FLAGS.steps)


def collect(folder: pathlib.Path) -> Results:
  """Returns the figures of the finished runs."""
  results = {}
  for part in FLAGS.parts:
    finals = [read_final(folder / f'{part}_{seed}') for seed in FLAGS.seeds]
    finals = [final for final in finals if final]
    if finals:
      results[part] = {
        name: np.array([final.get(name, np.nan) for final in finals])
        for name in FIGURES
      }
  return results


def format_table(results: Results) -> str:
  """Returns a Markdown table: a row per figure, a column per part."""
  rows = [
    [title, *(_format_mean(figures[name]) for figures in results.values())]
    for name, title in FIGURES.items()
  ]
  return tables.markdown(' | '.join(['', *results]), rows)


def _format_mean(values):
  if not np.isfinite(values).all():
    return '-'
  spread = f' +- {np.std(values, ddof=1):.4f}' if len(values) > 1 else ''
  return f'{np.mean(values):.4f}{spread}'


def draw(results: Results, path: pathlib.Path) -> None:
  """Draws the abs_rel figures relative to the first part's means, as a PNG."""
  names = [name for name in FIGURES if name.startswith('abs_rel')]
  x, width = np.arange(len(names)), 0.8 / len(results)
  first = next(iter(results))
  base = np.array([results[first][name].mean() for name in names])
  with visualization.figure(figsize=(9, 4.5), layout='constrained') as figure:
    axes = figure.add_subplot()
    for i, (part, values) in enumerate(results.items()):
      ratios = np.stack([values[name] for name in names]) / base[:, None]
      spread = ratios.std(axis=1, ddof=min(1, ratios.shape[1] - 1))
      mean, left = ratios.mean(axis=1), x + i * width
      axes.bar(left, mean, width, yerr=spread, label=part)
    axes.set_xticks(x + 0.4 - width / 2, [FIGURES[name] for name in names])
    axes.set_ylabel(f'abs_rel over that of {first}')
    axes.axhline(1, color='black', linewidth=0.8)
    figure.legend(loc='outside upper center', ncols=len(results))
    figure.savefig(path, dpi=120)


def write_results(path: pathlib.Path, table: str) -> None:
  """Replaces the text between the marks of a Markdown file."""
  head, _, rest = path.read_text().partition(_MARKS[0])
  _, found, tail = rest.partition(_MARKS[1])
  if not found:
    raise ValueError(f'{path} lacks the lines {" and ".join(_MARKS)}')
  path.write_text(f'{head}{_MARKS[0]}\n{table}\n{_MARKS[1]}{tail}')


def define_flags() -> None:
  flags.DEFINE_string('output', 'runs/ablation', 'Folder for all runs.')
  flags.DEFINE_list('parts', list(ablation.PARTS), 'Parts to train.')
  flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds.')
  flags.DEFINE_string('size', '192x64', 'WIDTHxHEIGHT.')
  flags.DEFINE_integer('steps', 500, 'Training steps of each run.', 1)
  flags.DEFINE_integer('batch', 4, 'Batch size.', 1)
  flags.DEFINE_float('learning_rate', 2e-4, 'Adam.')
  flags.DEFINE_integer('points', 512, 'Edge points per image.', 1)
  flags.DEFINE_integer('drives', 6, 'Drives of the street.')
  flags.DEFINE_integer('test_drives', 2, 'How many of them are held out.', 1)
  flags.DEFINE_integer('frames', 60, 'Frames of a drive.', 3)
  flags.DEFINE_bool('automask', False, 'See configs/demo.py.')
  flags.DEFINE_multi_string('set', [], 'A field for every run, FIELD=VALUE.')
  flags.DEFINE_string('results', '', 'Markdown file for the table and plot.')
  # A wrong part or seed would end the command after hours.
  flags.register_validator('parts', set(ablation.PARTS).issuperset)
  flags.register_validator('seeds', lambda s: all(map(str.isdigit, s)))


def main(_) -> None:
  folder = pathlib.Path(FLAGS.output).expanduser().absolute()
  settings = make_settings(folder)
  check_settings(folder, settings)
  for seed in FLAGS.seeds:
    for part in FLAGS.parts:
      workdir = folder / f'{part}_{seed}'
      if read_final(workdir) is None:
        train(workdir, part, settings | {'seed': seed})
  results = collect(folder)
  table = (
    f'{FLAGS.size}, {FLAGS.steps} steps of {FLAGS.batch}, {len(FLAGS.seeds)}'
    f' seeds per part; mean +- deviation.\n\n{format_table(results)}'
  )
  print(table)
  if FLAGS.results:
    path = pathlib.Path(FLAGS.results)
    write_results(path, f'{table}\n\n![The same](ablation.png)')
    draw(results, path.with_name('ablation.png'))
  draw(results, folder / 'ablation.png')


if __name__ == '__main__':
  define_flags()
  app.run(main)
