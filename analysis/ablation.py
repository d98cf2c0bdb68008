"""Trains the ablations on the street, several seeds each; one table, one plot.

  python -m analysis.ablation --output=runs/ablation
  python -m analysis.ablation --output=runs/ablation_640x192 \
    --size=640x192 --steps=20000 --batch=12 --automask       # on a GPU

Every run is a workdir below --output, trained by main.py with
configs/ablation.py:PART; what is finished is not trained again and what was
broken off goes on, so the command can be given again at any time. All parts
see the same examples in the same order, for the same number of steps, and are
measured on the same held-out drives.
"""

import json
import os
import pathlib
import subprocess
import sys

import matplotlib.figure
import numpy as np
from absl import flags

from benchmarks import command_line
from sgde_jax.configs import ablation
from sgde_jax.training import log

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


def workdir(part, seed):
  """The workdir of a run."""
  return output_folder() / f'{part}_{seed}'


def output_folder():
  """The folder of all runs, wherever the command was given."""
  return pathlib.Path(FLAGS.output).expanduser().absolute()


def make_settings():
  """The config fields that all runs share: name -> value, as text.

  Raises:
    ValueError: --set has a field that follows from another flag.
  """
  width, height = FLAGS.size.split('x')
  defaults = {
    'eval_every': FLAGS.steps,
    'picture_every': FLAGS.steps,
    'checkpoint_every': max(FLAGS.steps // 4, 1),
    'keep_checkpoints': 1,
    'optimizer.decay_epochs': (_epochs(0.75 * FLAGS.steps),),
    'augmentation.jitter_probability': 0.0,  # One light in all drives.
    'data.root': output_folder() / f'street_{FLAGS.size}',
    'eval.crop': 'garg',
  }
  fixed = {
    'num_steps': FLAGS.steps,
    'batch_size': FLAGS.batch,
    'optimizer.learning_rate': FLAGS.learning_rate,
    'loss.automask': FLAGS.automask,
    'model.seem.points': FLAGS.points,
    'data.height': height,
    'data.width': width,
    'data.street.height': height,
    'data.street.width': width,
    'data.street.drives': FLAGS.drives,
    'data.street.test_drives': FLAGS.test_drives,
    'data.street.frames': FLAGS.frames,
  }
  chosen = dict(field.split('=', 1) for field in FLAGS.set)
  refused = sorted(chosen.keys() & (fixed.keys() | {'seed'}))
  if refused:
    raise ValueError(
      f'--set={", ".join(refused)}: set by flags of this benchmark, see --help'
    )
  settings = defaults | fixed | chosen
  return {name: str(value) for name, value in settings.items()}


def _epochs(steps):
  """How often so many steps see the training drives."""
  examples = (FLAGS.drives - FLAGS.test_drives) * (FLAGS.frames - 2)
  return steps * FLAGS.batch / examples


def check_settings(settings):
  """Stores the settings with the runs; refuses if those there have others."""
  path = output_folder() / 'settings.json'
  if path.is_file():
    stored = json.loads(path.read_text())
    other = sorted(
      name
      for name in stored.keys() | settings.keys()
      if stored.get(name) != settings.get(name)
    )
    if other and any(path.parent.glob('*/config.json')):
      raise ValueError(
        f'{FLAGS.output} holds runs with another {", ".join(other)}: use'
        ' another --output, or the settings in its settings.json'
      )
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(settings, indent=2) + '\n')


def train(part, seed, settings):
  """Trains a run to its end, from where it stands; raises if it fails."""
  fields = settings | {'seed': seed}
  compiled = output_folder() / 'compiled'
  result = subprocess.run(
    [
      sys.executable,
      'main.py',
      f'--config=configs/ablation.py:{part}',
      f'--workdir={workdir(part, seed)}',
      *(f'--config.{name}={value}' for name, value in fields.items()),
    ],
    cwd=pathlib.Path(__file__).resolve().parents[1],
    # A part's first seed compiles for the others.
    env={'JAX_COMPILATION_CACHE_DIR': str(compiled)} | os.environ,
    check=False,
  )
  if result.returncode:
    raise ChildProcessError(
      f'{workdir(part, seed)}: main.py failed, see above; the same command goes'
      ' on from here'
    )


def read_final(part, seed):
  """The evaluation of a run's last step; None if it is not there."""
  entries = log.read_entries(workdir(part, seed))
  return log.find_evaluations(entries).get(FLAGS.steps)


def collect():
  """Returns part -> figure -> `[S]` values over the finished seeds."""
  results = {}
  for part in FLAGS.parts:
    finals = [read_final(part, seed) for seed in FLAGS.seeds]
    finals = [final for final in finals if final]
    if finals:
      results[part] = {
        name: np.array([final.get(name, np.nan) for final in finals])
        for name in FIGURES
      }
  return results


def format_table(results):
  """A Markdown table: a row per figure, a column per part."""
  parts = list(results)
  seeds = {len(values['abs_rel']) for values in results.values()}
  lines = [
    f'{FLAGS.size}, {FLAGS.steps} steps of {FLAGS.batch}, seeds per part:'
    f' {", ".join(map(str, sorted(seeds)))}; mean +- deviation.',
    '',
    '| | ' + ' | '.join(parts) + ' |',
    '|---' * (len(parts) + 1) + '|',
  ]
  for name, title in FIGURES.items():
    cells = [_mean_and_deviation(results[part][name]) for part in parts]
    lines.append(f'| {title} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _mean_and_deviation(values):
  if not np.isfinite(values).all():
    return '-'
  spread = f' +- {np.std(values, ddof=1):.4f}' if len(values) > 1 else ''
  return f'{np.mean(values):.4f}{spread}'


def draw(results, path):
  """Draws every figure relative to the first part's mean."""
  figure = matplotlib.figure.Figure(figsize=(9, 4.5), layout='constrained')
  axes = figure.add_subplot()
  names = [name for name in FIGURES if name.startswith('abs_rel')]
  first, width = next(iter(results)), 0.8 / len(results)
  for i, (part, values) in enumerate(results.items()):
    base = np.array([results[first][name].mean() for name in names])
    shares = np.stack([values[name] for name in names]) / base[:, None]
    axes.bar(
      np.arange(len(names)) + i * width,
      shares.mean(axis=1),
      width,
      yerr=shares.std(axis=1, ddof=min(1, shares.shape[1] - 1)),
      label=part,
    )
  axes.set_xticks(
    np.arange(len(names)) + 0.4 - width / 2, [FIGURES[name] for name in names]
  )
  axes.set_ylabel(f'abs_rel over that of {first}')
  axes.axhline(1, color='black', linewidth=0.8)
  figure.legend(loc='outside upper center', ncols=len(results))
  figure.savefig(path, dpi=120)


def write_results(path, table):
  """Puts the table between the marks of a Markdown file."""
  path = pathlib.Path(path)
  head, _, rest = path.read_text().partition(_MARKS[0])
  _, found, tail = rest.partition(_MARKS[1])
  if not found:
    raise ValueError(f'{path} lacks the lines {" and ".join(_MARKS)}')
  path.write_text(f'{head}{_MARKS[0]}\n{table}\n{_MARKS[1]}{tail}')


def define_flags():
  """Defines what the command line takes."""
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
  flags.DEFINE_string(
    'results', '', 'Markdown file for the table; the plot goes beside it.'
  )
  command_line.require_choices('parts', ablation.PARTS)
  command_line.require_integers('seeds', 0)
  command_line.require_sizes('size')
  flags.register_multi_flags_validator(
    ['drives', 'test_drives'],
    lambda values: values['drives'] > values['test_drives'],
    'leave a drive to train on: --drives above --test_drives',
  )
  flags.register_validator(
    'set', lambda fields: all('=' in f for f in fields or ()), 'use FIELD=VALUE'
  )


def main(_):
  """Trains what is not trained yet, seed by seed, and reports."""
  settings = make_settings()
  check_settings(settings)
  for seed in FLAGS.seeds:
    for part in FLAGS.parts:
      if read_final(part, seed) is None:
        train(part, seed, settings)
  results = collect()
  table = format_table(results)
  print(table)
  draw(results, output_folder() / 'ablation.png')
  if FLAGS.results:
    picture = pathlib.Path(FLAGS.results).with_name('ablation.png')
    draw(results, picture)
    write_results(FLAGS.results, f'{table}\n\n![The same]({picture.name})')


if __name__ == '__main__':
  command_line.run(main, define_flags)
