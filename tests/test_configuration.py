"""A run's config: found, read back, overridden, checked, recorded."""

import fnmatch
import importlib
import json
import pathlib
import re

import pytest

import sgde_jax
from sgde_jax import configuration, metrics
from sgde_jax.configs import baseline, default
from sgde_jax.models import attention, decoders

_FOLDER = pathlib.Path(default.__file__).parent
CONFIGS = sorted(path.stem for path in _FOLDER.glob('*.py'))


def _load(name):
  return importlib.import_module(f'sgde_jax.configs.{name}').get_config()


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_valid_and_round_trips(name, tmp_path):
  config = _load(name)
  configuration.check(config)
  workdir = tmp_path / 'new' / 'run'
  configuration.save(config, workdir)
  restored = configuration.resolve(default.get_config(), workdir, {})
  assert restored.to_dict() == config.to_dict()
  assert restored.is_locked


def test_empty_workdir_uses_the_given_config(tmp_path):
  config = default.get_config()
  config.batch_size = 3
  resolved = configuration.resolve(config, tmp_path / 'none', {'batch_size': 3})
  assert resolved.batch_size == 3
  assert resolved.is_locked and resolved is not config


def test_workdir_takes_precedence_over_the_config_but_not_overrides(tmp_path):
  stored = default.get_config()
  stored.batch_size, stored.data.root = 5, 'street-of-the-run'
  configuration.save(stored, tmp_path)
  given = default.get_config()
  given.batch_size, given.seed, given.data.root = 7, 8, 'elsewhere'
  resolved = configuration.resolve(
    given, tmp_path, {'data.root': 'elsewhere', 'data.height': 64}
  )
  assert resolved.batch_size == 5
  assert resolved.seed == stored.seed
  assert resolved.data.root == 'elsewhere'
  assert resolved.data.height == 64


def test_tilde_is_the_home_folder_in_any_source(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', '/home/ann')
  config = default.get_config()
  config.data.root = '~/kitti'
  config = configuration.resolve(config, tmp_path, {})
  assert config.data.root == '/home/ann/kitti'
  assert config.data.train_split == 'splits/train.txt'
  configuration.save(config, tmp_path)
  config = configuration.resolve(
    default.get_config(), tmp_path, {'init_from': '~/run', 'data.root': 'a~/b'}
  )
  assert (config.init_from, config.data.root) == ('/home/ann/run', 'a~/b')


def test_tuples_round_trip(tmp_path):
  config = default.get_config()
  config.data.frame_offsets = (0, -2, 2)
  config.optimizer.decay_epochs = ()
  configuration.save(config, tmp_path)
  resolved = configuration.resolve(default.get_config(), tmp_path, {})
  assert resolved.data.frame_offsets == (0, -2, 2)
  assert resolved.optimizer.decay_epochs == ()


def test_fields_newer_than_the_workdir_keep_their_value(tmp_path):
  stored = baseline.get_config().to_dict()
  del stored['eval']['flip'], stored['profile']
  stored['batch_size'] = 5
  (tmp_path / 'config.json').write_text(json.dumps(stored))
  config = default.get_config()
  config.eval.flip = True
  resolved = configuration.resolve(config, tmp_path, {})
  assert resolved.eval.flip is True
  assert resolved.profile is False
  assert resolved.batch_size == 5


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    ('{"batch_size": 4, "optimiser": {"rate": 1}}', 'optimiser.rate'),
    (
      '{"data": {"hight": 64}, "wide": 3}',
      'data.hight, did you mean data.height; wide',
    ),
    ('{"data": 3}', 'data'),
    ('{"batch_size": "many"}', 'batch_size'),
    ('{"batch_size": 4', 'delimiter'),
    ('[1, 2]', 'list'),
  ],
)
def test_incompatible_config_file_is_reported_in_one_message(
  text, reason, tmp_path
):
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(ValueError, match='use another --workdir') as error:
    configuration.resolve(default.get_config(), tmp_path, {})
  assert reason in str(error.value)
  assert str(tmp_path / 'config.json') in str(error.value)


@pytest.mark.parametrize(
  ('field', 'value', 'advice'),
  [
    ('data.height', 100, 'multiple of 32'),
    ('data.width', 0, 'multiple of 32'),
    ('data.width', -32, 'multiple of 32'),
    ('data.frame_offsets', (0,), 'at least one source'),
    ('data.frame_offsets', (), 'at least one source'),
    ('data.frame_offsets', (-1, 0, 1), 'the target, first'),
    ('data.frame_offsets', (0, 0, 1), 'the target, first'),
    ('data.frame_offsets', (0, 1, 1), 'distinct'),
    ('data.frame_offsets', (0, -1.5, 1), 'whole numbers'),
    ('data.frame_offsets', (0, 'a'), 'whole numbers'),
    ('optimizer.decay_epochs', ('x',), '0 or more'),
    ('optimizer.decay_epochs', (-5.0,), '0 or more'),
    ('optimizer.decay_epochs', (float('inf'),), '0 or more'),
    ('optimizer.decay_epochs', (2.0, 2.0), 'distinct'),
    ('optimizer.decay_factor', -0.1, '0 or more'),
    ('seed', 2**63, '2**32 - 1'),
    ('model.encoder_layers', 20, '10, 18, 34, 50, 101'),
    ('model.pose_layers', 152, '10, 18, 34, 50, 101'),
    ('model.dtype', 'float16', "'float32', 'bfloat16'"),
    ('model.attention.levels', (5,), 'levels 0 to 4'),
    ('model.attention.levels', (2, 2), 'distinct'),
    ('model.attention.heads', 3, 'multiple of the 3 heads'),
    ('model.attention.key_stride', 0, 'one of (1, 2, 4'),
    ('model.attention.key_stride', 24, 'one of (1, 2, 4'),
    ('model.attention.implementation', 'flash', "'auto', 'plain'"),
    ('model.seem.levels', (), 'must name a level'),
    ('model.seem.points', 0, 'positive'),
    ('loss.class_weights', (1.0, 2.0), '19 numbers'),
    ('loss.cross_entropy_weight', -0.3, '0 or more'),
    ('model.attention.key_stride', 256, 'single key'),
    ('eval.semantic_labels', 'none', "'train_ids', 'ids'"),
    ('eval.semantic_split', 'test', "'train', 'val'"),
    ('eval.crop', 'center', "'garg', 'eigen', 'none'"),
    ('eval.max_depth', 1e-4, 'more than config.eval.min_depth'),
    ('eval.max_depth', float('nan'), 'more than config.eval.min_depth'),
    ('eval.min_depth', 0.0, 'positive'),
    ('model.min_depth', 0.0, 'positive'),
    ('model.max_depth', 0.05, 'more than config.model.min_depth'),
    ('model.max_depth', float('inf'), 'more than config.model.min_depth'),
    ('init_checkpoint', 'newest', "'latest', 'best'"),
    ('eval.batch_size', 0, 'positive'),
    ('eval.odometry_sequences', ('09',), 'config.eval.odometry'),
    ('batch_size', 0, 'positive'),
    ('log_every', 0, 'positive'),
    ('picture_every', -1, 'positive'),
    ('eval_every', 0, 'positive'),
    ('checkpoint_every', 0, 'positive'),
    ('keep_checkpoints', 0, 'positive'),
    ('num_steps', -1, '0 or more'),
    ('num_epochs', 0, 'above 0'),
    ('optimizer.learning_rate', 0.0, 'positive'),
    ('optimizer.learning_rate', float('nan'), 'positive'),
    ('augmentation.flip_probability', 1.5, '0 to 1'),
    ('augmentation.jitter_probability', -0.1, '0 to 1'),
  ],
)
def test_impossible_values_raise(field, value, advice):
  config = default.get_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match='invalid config') as error:
    configuration.check(config)
  (line,) = str(error.value).splitlines()[1:]
  if field != 'model.attention.heads':  # The width is what does not fit.
    assert line.strip().startswith(f'config.{field} = {value!r} ')
  assert advice in line


@pytest.mark.parametrize(
  ('overrides', 'field'),
  [
    ({'model.seem.enabled': False}, 'model.attention.levels'),
    ({'model.attention.levels': ()}, 'model.seem.enabled'),
    (
      {
        'model.seem.enabled': False,
        'model.attention.levels': (),
        'data.semantic_root': 'stills',
      },
      'data.semantic_root',
    ),
    (
      {
        'model.seem.enabled': False,
        'model.attention.levels': (),
        'eval.semantic_root': 'stills',
      },
      'eval.semantic_root',
    ),
  ],
)
def test_parts_without_semantics_raise(overrides, field):
  config = default.get_config()
  config.model.semantics = False
  config.update_from_flattened_dict(overrides)
  with pytest.raises(ValueError, match=f'config.{field} = '):
    configuration.check(config)


def test_all_problems_are_named_at_once():
  config = default.get_config()
  config.data.height, config.batch_size, config.model.dtype = 7, 0, 'int8'
  with pytest.raises(ValueError, match='invalid config') as error:
    configuration.check(config)
  message = str(error.value)
  for problem in ('data.height = 7', 'batch_size = 0', "model.dtype = 'int8'"):
    assert f'config.{problem} must' in message
  assert len(message.splitlines()) == 1 + 3


def test_steps_replace_epochs():
  config = default.get_config()
  config.num_epochs, config.num_steps = 0, 10
  configuration.check(config)
  config.num_steps = 0
  with pytest.raises(ValueError, match='config.num_epochs = 0'):
    configuration.check(config)


def test_unexpected_fields_of_a_workdir_are_logged(tmp_path, caplog):
  caplog.set_level('INFO')
  stored = default.get_config()
  stored.batch_size = 5
  configuration.save(stored, tmp_path)
  path = tmp_path / 'config.json'
  fields = json.loads(path.read_text())
  del fields['loss']['segment_weight']
  path.write_text(json.dumps(fields))
  given = default.get_config()
  given.seed = 3
  configuration.resolve(given, tmp_path, {'seed': 3})
  newer = 'fields that it lacks: --config.loss.segment_weight=0.1'
  assert caplog.text.count(str(path)) == 1
  assert newer in caplog.text and 'ignored' not in caplog.text
  assert 'other than in --config' not in caplog.text
  caplog.clear()
  configuration.resolve(given, tmp_path, {'seed': 3}, given=True)
  assert f'config: {path}; --config is ignored' in caplog.text
  assert newer in caplog.text
  assert 'other than in --config: --config.batch_size=5\n' in caplog.text
  caplog.clear()
  given.loss.segment_weight = 0.0
  configuration.resolve(
    given, tmp_path, {'batch_size': 12, 'loss.segment_weight': 0.0}, given=True
  )
  assert newer not in caplog.text
  assert 'other than in --config: --config.seed=0\n' in caplog.text


def test_config_with_other_fields_raises(tmp_path):
  config = default.get_config()
  config.optimizer.learning_rat = 1e-3
  name = 'optimizer.learning_rat, did you mean optimizer.learning_rate'
  with pytest.raises(ValueError, match=name):
    configuration.resolve(config, tmp_path, {})
  config = default.get_config()
  del config.loss.automask
  with pytest.raises(ValueError, match='missing field loss.automask'):
    configuration.resolve(config, tmp_path, {})


def test_choices_match_the_modules():
  choices = configuration._CHOICES
  implementations = set(choices['model.attention.implementation'])
  assert implementations == {'auto', *attention.IMPLEMENTATIONS}
  assert choices['eval.crop'] == tuple(metrics.depth.CROPS)
  config = default.get_config()
  config.model.attention.levels = tuple(range(len(decoders.WIDTHS)))
  configuration.check(config)


def test_rules_refer_to_existing_fields():
  patterns = ' '.join(fields for fields, _, _ in configuration._RULES).split()
  known = configuration.flatten(default.get_config())
  fields = [fnmatch.filter(known, pattern) for pattern in patterns]
  assert all(fields)
  fields = sum(fields, [])
  assert len(set(fields)) == len(fields)
  assert 'loss.smoothness_weight' in fields
  assert not configuration.unknown_fields(configuration._CHOICES)


def test_configs_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path, colon, part = configuration.find('ablation:seem').partition(':')
  assert pathlib.Path(path).is_file() and part == 'seem'
  assert configuration.find('demo') == str(_FOLDER / 'demo.py')
  (tmp_path / 'mine.py').touch()
  assert configuration.find('mine.py') == 'mine.py'
  with pytest.raises(ValueError, match='none of ablation, baseline'):
    configuration.find('dmo')
  for name in ('train_split', 'eval_split'):
    assert pathlib.Path(_load('drive_0009').data[name]).is_file()


def test_each_start_is_recorded(tmp_path):
  config = default.get_config()
  configuration.record_start(config, tmp_path, 0)
  config.optimizer.learning_rate = 1e-5
  configuration.record_start(config, tmp_path, 20)
  lines = (tmp_path / 'configs.jsonl').read_text().splitlines()
  starts = list(map(json.loads, lines))
  assert [start['step'] for start in starts] == [0, 20]
  rates = [start['config']['optimizer']['learning_rate'] for start in starts]
  assert rates == [1e-4, 1e-5]
  assert all(start['version'] == sgde_jax.__version__ for start in starts)
  commit = starts[0]['commit']
  assert commit is None or re.search('[0-9a-f]{40}(-dirty)?$', commit)


def test_has_own_model(tmp_path):
  config = default.get_config()
  assert not configuration.has_own_model(config, tmp_path)
  configuration.save(config, tmp_path)
  config.seed = 1
  assert configuration.has_own_model(config, tmp_path)
  config.model.attention.levels = (4,)
  assert not configuration.has_own_model(config, tmp_path)
