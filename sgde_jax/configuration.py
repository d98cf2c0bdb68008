"""A run's config: read back from its workdir, checked, stored."""

import difflib
import json
import logging
import math
import os
import pathlib

from input_pipeline import cityscapes, files
from input_pipeline.sources import stills
from sgde_jax import metrics
from sgde_jax.models import attention, decoders

_FILE = 'config.json'


def _one_of(*choices):
  return lambda value: value in choices


def _are_levels(value):
  """Whether these are distinct decoder levels."""
  return _are_distinct_integers(value) and (
    set(value) <= set(range(len(decoders.WIDTHS)))
  )


def _are_distinct_integers(value):
  return len(set(value)) == len(value) and all(type(x) is int for x in value)


# Fields, what makes a value of theirs possible, and what to do otherwise.
_RULES = (
  (
    ('data.height', 'data.width'),
    lambda value: value > 0 and value % 32 == 0,
    'use a positive multiple of 32',
  ),
  (
    ('data.frame_offsets',),
    lambda value: (
      len(value) > 1 and value[0] == 0 and _are_distinct_integers(value)
    ),
    'put 0, the target, first and at least one source frame after it: distinct'
    ' whole numbers',
  ),
  (
    ('model.encoder_layers', 'model.pose_layers'),
    _one_of(10, 18, 34, 50, 101),
    'use 10, 18, 34, 50 or 101',
  ),
  (
    ('model.dtype',),
    _one_of('float32', 'bfloat16'),
    'use float32 or bfloat16',
  ),
  (
    ('model.attention.levels',),
    _are_levels,
    'use distinct decoder levels 0 to 4, or () for no attention',
  ),
  (
    ('model.seem.levels',),
    lambda value: len(value) and _are_levels(value),
    'use at least one of the decoder levels 0 to 4, each once',
  ),
  (
    ('model.attention.implementation',),
    _one_of(*attention.IMPLEMENTATIONS),
    f'use one of {", ".join(attention.IMPLEMENTATIONS)}',
  ),
  (
    ('loss.class_weights',),
    lambda value: (
      len(value) in (0, cityscapes.NUM_CLASSES)
      and all(math.isfinite(w) and w >= 0 for w in value)
    ),
    f'use {cityscapes.NUM_CLASSES} numbers of 0 or more, or ()',
  ),
  (
    ('eval.checkpoint',),
    _one_of('latest', 'best'),
    'use latest or best',
  ),
  (
    ('eval.semantic_labels',),
    _one_of(*cityscapes.CODINGS),
    f'use {" or ".join(cityscapes.CODINGS)}',
  ),
  (
    ('eval.semantic_split',),
    _one_of(*stills.SPLITS),
    f'use {" or ".join(stills.SPLITS)}',
  ),
  (
    ('eval.crop',),
    _one_of(*metrics.CROPS),
    f'use one of {", ".join(metrics.CROPS)}',
  ),
  (
    ('eval.odometry_sequences',),
    lambda value: all(isinstance(name, str) and name for name in value),
    'use names in quotes, as ("09", "10"), or () for all',
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
      'model.attention.heads',
      'model.attention.width',
      'model.seem.points',
      'model.seem.edge_width',
      'model.seem.width',
      'model.seem.depth',
      'model.seem.chunk',
    ),
    lambda value: value > 0,
    'use a positive number',
  ),
  (
    ('model.attention.key_stride',),
    lambda value: value > 0 and value & (value - 1) == 0,
    'use a positive power of two',
  ),
  (
    ('seed',),
    lambda value: 0 <= value < 2**32,
    'use a whole number from 0 to 4294967295',
  ),
  (
    ('optimizer.decay_epochs',),
    lambda value: (
      len(set(value)) == len(value)
      and all(math.isfinite(epoch) and epoch >= 0 for epoch in value)
    ),
    'use distinct numbers of 0 or more, as (15.0,), or () for no decay',
  ),
  (
    ('num_steps', 'eval.panels'),
    lambda value: value >= 0,
    'use 0 or more',
  ),
  (
    ('optimizer.learning_rate', 'model.attention.gain_rate'),
    lambda value: math.isfinite(value) and value > 0,
    'use a positive number',
  ),
  (
    (
      'optimizer.decay_factor',
      'optimizer.clip_norm',
      'loss.smoothness_weight',
      'loss.scale_weight',
      'loss.enhanced_weight',
      'loss.segment_weight',
      'loss.cross_entropy_weight',
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


def resolve(config, workdir, overrides, *, given=False):
  """Returns the config that a command in `workdir` runs with.

  Where the workdir holds `config.json`, that is the config, and only the
  overrides given on the command line are applied to it. Fields that are newer
  than the file keep the value they have in `config`.

  Args:
    config: ConfigDict from `--config`, overrides already applied.
    workdir: the run's folder.
    overrides: dict of dotted field name -> value from the command line.
    given: whether a person named the `config`; then what of it is not heeded,
      as the workdir holds another, is told.

  Returns:
    A locked ConfigDict.

  Raises:
    ValueError: if the workdir cannot be a folder, or the file is not a config
      of this project.
  """
  files.check_local(workdir)
  path = pathlib.Path(workdir) / _FILE
  config = config.copy_and_resolve_references().lock()
  if path.is_file():
    logging.info('the config is %s, --config is not read', path)
    named = _flatten(config.to_dict())
    try:
      stored = _flatten(json.loads(path.read_text()))
      unknown = sorted(stored.keys() - named.keys())
      if unknown:
        raise ValueError(f'unknown field {", ".join(unknown)}')
      config.update_from_flattened_dict(stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise ValueError(
        f'{path} does not hold a config of this version ({error}): put the file'
        ' right, an unknown field can be taken out, or use another --workdir'
      ) from error
    config.update_from_flattened_dict(overrides)
    _warn_of_others(path, config, named, stored, overrides, given)
  return _expand_home(config)


def _warn_of_others(path, config, named, stored, overrides, given):
  """Tells which fields are not what a person may think they are."""
  values = _flatten(config.to_dict())
  newer = sorted(named.keys() - stored.keys() - overrides.keys())
  if newer:
    logging.warning(
      '%s is older than some fields; from now on this run has %s',
      path,
      ', '.join(f'--config.{name}={values[name]}' for name in newer),
    )
  other = sorted(name for name in named if named[name] != values[name])
  if given and other:
    logging.warning(
      'other than --config says: %s; for that config use another --workdir, or'
      ' give its fields as --config.FIELD=VALUE',
      ', '.join(f'{name} is {values[name]!r}' for name in other[:10])
      + (f' (+{len(other) - 10} more)' if len(other) > 10 else ''),
    )


def check_fields(config, reference):
  """Refuses a config file that lacks fields, or has others.

  Args:
    config: ConfigDict from `--config`.
    reference: that of `configs/default.py`.

  Raises:
    ValueError: naming the fields.
  """
  fields, wanted = (_flatten(c.to_dict()).keys() for c in (config, reference))
  unknown = [
    ' or '.join([name, *difflib.get_close_matches(name, wanted, n=1)])
    for name in sorted(fields - wanted)
  ]
  problems = [
    f'{what} {", ".join(names)}'
    for what, names in (
      ('there is no field', unknown),
      ('it lacks', sorted(wanted - fields)[:10]),
    )
    if names
  ]
  if problems:
    raise ValueError(
      f'--config: {"; ".join(problems)}; build on configs/default.py as'
      ' configs/demo.py does'
    )


def _expand_home(config):
  """Replaces a leading `~` in every path; no shell does after a `=`."""
  paths = {
    name: os.path.expanduser(value)
    for name, value in _flatten(config.to_dict()).items()
    if isinstance(value, str) and value.startswith('~')
  }
  config.update_from_flattened_dict(paths)
  return config


def save(config, workdir):
  """Writes `config.json` into the workdir."""
  text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
  files.write_text(pathlib.Path(workdir) / _FILE, text + '\n')


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
    if not _fulfils(values[field], is_possible)
  ]
  problems += [
    f'config.{field} = {values[field]!r}: {advice}'
    for is_possible, field, advice in _check_pairs(config)
    if not is_possible
  ]
  if problems:
    raise ValueError('the config cannot be run:\n  ' + '\n  '.join(problems))


def _fulfils(value, is_possible):
  """Whether a rule holds; it does not for a value of another type."""
  try:
    return is_possible(value)
  except (TypeError, OverflowError):
    return False


def _check_pairs(config):
  """What several fields must fulfil together: (possible, field, advice)."""
  model, evaluation = config.model, config.eval
  heads = model.attention.heads
  smallest = max(min(config.data.height, config.data.width), 32)
  return [
    (
      evaluation.min_depth < evaluation.max_depth,
      'eval.max_depth',
      f'use more than config.eval.min_depth = {evaluation.min_depth}',
    ),
    (
      evaluation.odometry or not evaluation.odometry_sequences,
      'eval.odometry_sequences',
      'names what config.eval.odometry measures, which is off',
    ),
    (
      config.num_steps or config.num_epochs > 0,
      'num_epochs',
      'set it or config.num_steps above 0',
    ),
    (
      heads < 1 or model.attention.width % heads == 0,
      'model.attention.width',
      f'use a multiple of config.model.attention.heads = {heads}',
    ),
    (
      not model.attention.levels or model.attention.key_stride < smallest,
      'model.attention.key_stride',
      'use less than the image height and width, or a single key is left',
    ),
    (
      model.semantics or not model.attention.levels,
      'model.attention.levels',
      'attention needs config.model.semantics; use ()',
    ),
    (
      model.semantics or not model.seem.enabled,
      'model.seem.enabled',
      'SEEM needs config.model.semantics; use False',
    ),
    (
      model.semantics or not config.data.semantic_root,
      'data.semantic_root',
      'labelled stills teach config.model.semantics alone, which is off',
    ),
    (
      model.semantics or not evaluation.semantic_root,
      'eval.semantic_root',
      'labelled stills measure config.model.semantics, which is off',
    ),
    *(
      (
        model[f'{name}_layers'] != 10 or not model[f'{name}_weights'],
        f'model.{name}_weights',
        f"ResNet-10 has no published weights; use '', or 18 for {name}_layers",
      )
      for name in ('encoder', 'pose')
    ),
  ]


def _flatten(tree, prefix=''):
  """Flattens nested dicts to dotted names."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = value
  return flat
