"""A run's config: found by name, checked, stored and read back.

Imports neither JAX nor TensorFlow, so that it can be checked before them.
"""

import contextlib
import difflib
import fnmatch
import json
import logging
import math
import os
import pathlib
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

import sgde_jax
from input_pipeline import cityscapes, files
from sgde_jax.configs import default

Path = str | os.PathLike
_FOLDER = pathlib.Path(default.__file__).parent


def _are_distinct(values, kind=int | float):
  right = [isinstance(value, kind) for value in values]
  return all(right) and len(set(values)) == len(values)


_CHOICES = {
  'init_checkpoint': ('latest', 'best'),
  'model.encoder_layers': (10, 18, 34, 50, 101),
  'model.pose_layers': (10, 18, 34, 50, 101),
  'model.dtype': ('float32', 'bfloat16'),
  'model.attention.implementation': ('auto', 'plain', 'blockwise', 'fused'),
  'model.attention.key_stride': (1, 2, 4, 8, 16, 32, 64, 128, 256),
  'eval.checkpoint': ('latest', 'best'),
  'eval.crop': ('garg', 'eigen', 'none'),
  'eval.semantic_labels': cityscapes.CODINGS,
  'eval.semantic_split': ('train', 'val'),
}
# Fields, a description of their valid values, and the check.
_RULES = (
  ('seed', 'from 0 to 2**32 - 1', lambda x: 0 <= x < 2**32),
  (
    'data.height data.width',
    'a positive multiple of 32',
    lambda x: x > 0 and x % 32 == 0,
  ),
  (
    'data.frame_offsets',
    'distinct whole numbers: 0, the target, first, then at least one source',
    lambda x: len(x) > 1 and x[0] == 0 and _are_distinct(x, int),
  ),
  (
    'model.attention.levels model.seem.levels',
    'distinct decoder levels 0 to 4',
    lambda x: _are_distinct(x, int) and set(x) <= set(range(5)),
  ),
  (
    'loss.class_weights',
    '19 numbers of 0 or more, or ()',
    lambda x: len(x) in (0, 19) and all(0 <= y < math.inf for y in x),
  ),
  (
    'optimizer.decay_epochs',
    'distinct numbers of 0 or more, as (15.0,), or () for no decay',
    lambda x: _are_distinct(x) and all(0 <= y < math.inf for y in x),
  ),
  (
    'batch_size log_every picture_every eval_every checkpoint_every'
    ' keep_checkpoints optimizer.learning_rate eval.batch_size eval.min_depth'
    ' model.min_depth model.attention.heads model.attention.width'
    ' model.attention.gain_rate model.seem.points model.seem.edge_width'
    ' model.seem.width model.seem.depth',
    'a positive number',
    lambda x: 0 < x < math.inf,
  ),
  (
    'num_steps optimizer.decay_factor optimizer.clip_norm eval.panels'
    ' model.seem.chunk loss.*_weight augmentation.hue',
    '0 or more',
    lambda x: 0 <= x < math.inf,
  ),
  (
    'augmentation.flip_probability augmentation.jitter_probability'
    ' augmentation.brightness augmentation.contrast augmentation.saturation',
    'a number from 0 to 1',
    lambda x: 0 <= x <= 1,
  ),
)


def flatten(tree: Any, prefix: str = '') -> dict[str, Any]:
  """Flattens nested dicts or a config to dotted names."""
  flat = {}
  for name, value in tree.items():
    is_leaf = not isinstance(value, dict | ml_collections.ConfigDict)
    name = prefix + name
    flat |= {name: value} if is_leaf else flatten(value, f'{name}.')
  return flat


def find(name: str) -> str:
  """Returns the path of a config given by name or path, `:ARGUMENT` kept."""
  path, colon, part = name.partition(':')
  shipped = sorted(path.stem for path in _FOLDER.glob('*.py'))
  if path in shipped:
    path = f'{_FOLDER / path}.py'
  if not os.path.isfile(path):
    raise ValueError(f'no such file, and none of {", ".join(shipped)}')
  return path + colon + part


def unknown_fields(names: Iterable[str]) -> list[str]:
  """Lists unknown field names, each with the closest known field."""
  fields = flatten(default.get_config())
  groups = {name.rpartition('.')[0] for name in fields}
  return [
    ', did you mean '.join([name, *difflib.get_close_matches(name, fields, 1)])
    for name in sorted(set(names) - fields.keys() - groups)
  ]


def resolve(
  config: ml_collections.ConfigDict,
  workdir: Path,
  overrides: Mapping[str, Any],
  *,
  given: bool = False,
) -> ml_collections.ConfigDict:
  """Returns the locked config for a command in `workdir`.

  If the workdir holds `config.json`, that is the config, and only the
  overrides of the command line are applied to it. Fields that are newer than
  the file keep their value in `config`.

  Args:
    config: that of `--config`, overrides applied.
    workdir: the run's folder.
    overrides: dotted field name -> value, from the command line.
    given: whether the command line names a `--config`; if so, logs a warning
      when the workdir's config differs from it.

  Raises:
    ValueError: if `config` or the file has unknown fields, or lacks fields.
  """
  files.check_local(workdir)
  config = config.copy_and_resolve_references().lock()
  named = flatten(config)
  missing = flatten(default.get_config()).keys() - named.keys()
  if wrong := unknown_fields(named) or sorted(missing):
    raise ValueError(f'--config: unknown or missing field {"; ".join(wrong)}')
  path = pathlib.Path(workdir, 'config.json')
  if path.is_file():
    try:
      stored = flatten(json.loads(path.read_text()))
      if unknown := unknown_fields(stored):
        raise ValueError(f'unknown field {"; ".join(unknown)}')
      config.update_from_flattened_dict(stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise ValueError(
        f'{path} is not a config of this version: {error}. Correct the file or'
        ' use another --workdir'
      ) from error
    config.update_from_flattened_dict(overrides)
    values = flatten(config)
    newer = named.keys() - stored.keys() - overrides.keys()
    other = [name for name in named if named[name] != values[name]]
    logging.info('config: %s%s', path, '; --config is ignored' * given)
    for what, names in (
      ('fields that it lacks', newer),
      ('other than in --config', other if given else ()),
    ):
      if names:
        text = (f'--config.{name}={values[name]}' for name in sorted(names))
        logging.warning('%s: %s', what, ', '.join(text))
  for name, value in flatten(config).items():
    if isinstance(value, str) and value.startswith('~'):  # Not by the shell.
      config.update_from_flattened_dict({name: os.path.expanduser(value)})
  return config


def check(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for values that would fail late, or never."""
  values = flatten(config)
  problems = [
    *(
      (field, f'must be one of {choices}')
      for field, choices in _CHOICES.items()
      if values[field] not in choices
    ),
    *(
      (field, f'must be {what}')
      for patterns, what, holds in _RULES
      for pattern in patterns.split()
      for field in fnmatch.filter(values, pattern)
      if not holds(values[field])
    ),
    *_misfits(config, values),
  ]
  if problems:
    lines = (
      f'config.{name} = {values[name]!r} {what}' for name, what in problems
    )
    raise ValueError('\n  '.join(['invalid config:', *lines]))


def save(config: ml_collections.ConfigDict, workdir: Path) -> None:
  """Writes `config.json`, which later commands in the workdir read back."""
  files.write_json(pathlib.Path(workdir, 'config.json'), config.to_dict())


def has_own_model(config: ml_collections.ConfigDict, workdir: Path) -> bool:
  """Returns whether the network is that of the workdir's own config."""
  path = pathlib.Path(workdir, 'config.json')
  if not path.is_file():
    return False
  stored = json.loads(path.read_text()).get('model')
  return stored == json.loads(json.dumps(config.model.to_dict()))


def record_start(
  config: ml_collections.ConfigDict, workdir: Path, step: int
) -> None:
  """Appends the config and version used from `step` on to `configs.jsonl`."""
  code = {'version': sgde_jax.__version__, 'commit': commit()}
  start = {'step': step, **code, 'config': config.to_dict()}
  with open(pathlib.Path(workdir, 'configs.jsonl'), 'a') as file:
    file.write(json.dumps(start, sort_keys=True) + '\n')


def commit() -> str | None:
  """Returns the code's git commit, `-dirty` if changed; None without git."""
  root = pathlib.Path(__file__).parents[1]
  command = ['git', 'describe', '--always', '--dirty', '--abbrev=40']
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    if (root / '.git').exists():  # Not of a project that this is installed in.
      return subprocess.check_output(command, cwd=root, text=True).strip()
  return None


def _misfits(config, values):
  """Yields (field, problem) for fields that conflict with others."""
  model, evaluation = config.model, config.eval
  heads, stride = model.attention.heads, model.attention.key_stride
  if not model.min_depth < model.max_depth < math.inf:
    yield 'model.max_depth', 'must be more than config.model.min_depth'
  if not evaluation.min_depth < evaluation.max_depth:
    yield 'eval.max_depth', 'must be more than config.eval.min_depth'
  if not config.num_steps and config.num_epochs <= 0:
    yield 'num_epochs', 'must be above 0 where config.num_steps is 0'
  if heads > 0 and model.attention.width % heads:
    yield 'model.attention.width', f'must be a multiple of the {heads} heads'
  smallest = max(min(config.data.height, config.data.width), 32)
  if model.attention.levels and stride >= smallest:
    yield 'model.attention.key_stride', 'leaves a single key: use less'
  if model.seem.enabled and not model.seem.levels:
    yield 'model.seem.levels', 'must name a level'
  if evaluation.odometry_sequences and not evaluation.odometry:
    yield 'eval.odometry_sequences', 'needs config.eval.odometry, which is off'
  parts = ('model.attention.levels', 'model.seem.enabled')
  for field in (*parts, 'data.semantic_root', 'eval.semantic_root'):
    if values[field] and not model.semantics:
      yield field, 'needs config.model.semantics, which is off'
