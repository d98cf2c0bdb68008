"""A run's config: read back from its workdir, checked, stored."""

import json
import logging
import math
import pathlib

_FILE = 'config.json'


def _one_of(*choices):
  return lambda value: value in choices


# Fields, what makes a value of theirs possible, and what to do otherwise.
_RULES = (
  (
    ('data.height', 'data.width'),
    lambda value: value > 0 and value % 32 == 0,
    'use a positive multiple of 32',
  ),
  (
    ('data.frame_offsets',),
    lambda value: len(value) > 1 and value[0] == 0 and 0 not in value[1:],
    'put 0, the target, first and at least one source frame after it',
  ),
  (
    ('model.encoder_layers', 'model.pose_layers'),
    _one_of(18, 34, 50, 101),
    'use 18, 34, 50 or 101',
  ),
  (
    ('model.dtype',),
    _one_of('float32', 'bfloat16'),
    'use float32 or bfloat16',
  ),
  (
    ('eval.checkpoint',),
    _one_of('latest', 'best'),
    'use latest or best',
  ),
  (
    ('eval.crop',),
    _one_of('garg', 'eigen', 'none'),
    'use garg, eigen or none',
  ),
  (
    (
      'batch_size',
      'eval.batch_size',
      'eval.min_depth',
      'log_every',
      'picture_every',
      'eval_every',
      'checkpoint_every',
      'keep_checkpoints',
    ),
    lambda value: value > 0,
    'use a positive number',
  ),
  (
    ('seed', 'num_steps', 'eval.panels'),
    lambda value: value >= 0,
    'use 0 or more',
  ),
  (
    ('optimizer.learning_rate',),
    lambda value: math.isfinite(value) and value > 0,
    'use a positive number',
  ),
  (
    (
      'optimizer.clip_norm',
      'loss.smoothness_weight',
      'augmentation.hue',
    ),
    lambda value: math.isfinite(value) and value >= 0,
    'use 0 or more',
  ),
  (
    (
      'augmentation.flip_probability',
      'augmentation.jitter_probability',
      'augmentation.brightness',
      'augmentation.contrast',
      'augmentation.saturation',
    ),
    lambda value: 0 <= value <= 1,
    'use a number from 0 to 1',
  ),
)


def resolve(config, workdir, overrides):
  """Returns the config that a command in `workdir` runs with.

  Where the workdir holds `config.json`, that is the config, and only the
  overrides given on the command line are applied to it. Fields that are newer
  than the file keep the value they have in `config`.

  Args:
    config: ConfigDict from `--config`, overrides already applied.
    workdir: the run's folder.
    overrides: dict of dotted field name -> value from the command line.

  Returns:
    A locked ConfigDict.

  Raises:
    ValueError: if the workdir is no folder path, or the file is not a config
      of this project.
  """
  if '://' in str(workdir):
    raise ValueError(
      f'--workdir={workdir}: pass a folder; mount cloud storage first'
    )
  path = pathlib.Path(workdir) / _FILE
  config = config.copy_and_resolve_references().lock()
  if path.is_file():
    logging.info('the config is %s, --config is not read', path)
    try:
      stored = _flatten(json.loads(path.read_text()))
      unknown = sorted(stored.keys() - _flatten(config.to_dict()).keys())
      if unknown:
        raise ValueError(f'unknown field {", ".join(unknown)}')
      config.update_from_flattened_dict(stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise ValueError(
        f'{path} does not hold a config of this version ({error}): use another'
        ' --workdir'
      ) from error
    config.update_from_flattened_dict(overrides)
  return config


def save(config, workdir):
  """Writes `config.json` into the workdir."""
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
  # Renamed into place, so that a run killed here leaves no half a file.
  part = workdir / f'{_FILE}.part'
  part.write_text(text + '\n')
  part.replace(workdir / _FILE)


def check(config):
  """Refuses impossible values before any work.

  Args:
    config: the whole config.

  Raises:
    ValueError: naming every field that is wrong, its value and what to do.
  """
  values = _flatten(config.to_dict())
  problems = [
    f'config.{field} = {values[field]!r}: {advice}'
    for fields, is_possible, advice in _RULES
    for field in fields
    if not is_possible(values[field])
  ]
  if not config.eval.min_depth < config.eval.max_depth:
    problems.append(
      f'config.eval.max_depth = {config.eval.max_depth}: use more than'
      f' config.eval.min_depth = {config.eval.min_depth}'
    )
  if not config.num_steps and config.num_epochs <= 0:
    problems.append(
      f'config.num_epochs = {config.num_epochs}: set it or config.num_steps'
      ' above 0'
    )
  if problems:
    raise ValueError('the config cannot be run:\n  ' + '\n  '.join(problems))


def _flatten(tree, prefix=''):
  """Flattens nested dicts to dotted names."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = value
  return flat
