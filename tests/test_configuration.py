"""A run's config: read back, overridden, refused."""

import importlib
import json
import pathlib

import pytest

from sgde_jax import configuration
from sgde_jax.configs import baseline, default

_FOLDER = pathlib.Path(default.__file__).parent
CONFIGS = sorted(path.stem for path in _FOLDER.glob('*.py'))


def _load(name):
  return importlib.import_module(f'configs.{name}').get_config()


def _without_weights(config):
  config.model.encoder_weights = config.model.pose_weights = ''
  return config


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_possible_and_survives_its_workdir(name, tmp_path):
  config = _without_weights(_load(name))
  configuration.check(config)
  workdir = tmp_path / 'new' / 'run'
  configuration.save(config, workdir)
  restored = configuration.resolve(default.get_config(), workdir, {})
  assert restored.to_dict() == config.to_dict()
  assert restored.is_locked


def test_an_empty_workdir_takes_the_given_config(tmp_path):
  config = default.get_config()
  config.batch_size = 3
  resolved = configuration.resolve(config, tmp_path / 'none', {'batch_size': 3})
  assert resolved.batch_size == 3
  assert resolved.is_locked and resolved is not config


def test_the_workdir_wins_over_the_config_but_not_over_overrides(tmp_path):
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


def test_a_tilde_is_the_home_folder_wherever_it_was_given(
  tmp_path, monkeypatch
):
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


def test_tuples_come_back_as_tuples(tmp_path):
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
    ('{"data": {"hight": 64}, "wide": 3}', 'data.hight, wide'),
    ('{"data": 3}', 'data'),
    ('{"batch_size": "many"}', 'batch_size'),
    ('{"batch_size": 4', 'delimiter'),
    ('[1, 2]', 'list'),
  ],
)
def test_a_foreign_config_file_is_refused_in_one_message(
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
    ('model.attention.levels', ([1],), 'levels 0 to 4'),
    ('loss.class_weights', ('a',) * 19, '19 numbers'),
    ('optimizer.decay_epochs', ('x',), '0 or more'),
    ('optimizer.decay_epochs', (-5.0,), '0 or more'),
    ('optimizer.decay_epochs', (float('inf'),), '0 or more'),
    ('optimizer.decay_epochs', (2.0, 2.0), 'distinct'),
    ('optimizer.decay_factor', -0.1, '0 or more'),
    ('seed', 2**63, '4294967295'),
    ('model.encoder_layers', 20, '10, 18, 34, 50 or 101'),
    ('model.pose_layers', 152, '10, 18, 34, 50 or 101'),
    ('model.dtype', 'float16', 'float32 or bfloat16'),
    ('model.attention.levels', (5,), 'levels 0 to 4'),
    ('model.attention.levels', (2, 2), 'distinct'),
    ('model.attention.heads', 3, 'multiple of config.model.attention.heads'),
    ('model.attention.key_stride', 0, 'power of two'),
    ('model.attention.key_stride', 24, 'power of two'),
    ('model.attention.implementation', 'flash', 'auto, plain'),
    ('model.seem.levels', (), 'at least one'),
    ('model.seem.points', 0, 'positive'),
    ('loss.class_weights', (1.0, 2.0), '19 numbers'),
    ('loss.cross_entropy_weight', -0.3, '0 or more'),
    ('model.attention.key_stride', 256, 'single key'),
    ('eval.semantic_labels', 'none', 'train_ids or ids'),
    ('eval.semantic_split', 'test', 'train or val'),
    ('eval.crop', 'center', 'garg, eigen, none'),
    ('eval.max_depth', 1e-4, 'more than config.eval.min_depth'),
    ('eval.max_depth', float('nan'), 'more than config.eval.min_depth'),
    ('eval.min_depth', 0.0, 'positive'),
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
def test_impossible_values_are_refused(field, value, advice):
  config = default.get_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match='cannot be run') as error:
    configuration.check(config)
  (line,) = str(error.value).splitlines()[1:]
  if field != 'model.attention.heads':  # The width is what does not fit.
    assert line.strip().startswith(f'config.{field} = {value!r}: ')
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
def test_parts_that_need_semantics_are_refused_without_it(overrides, field):
  config = default.get_config()
  config.model.semantics = False
  config.update_from_flattened_dict(overrides)
  with pytest.raises(ValueError, match=f'config.{field} = '):
    configuration.check(config)


@pytest.mark.parametrize('part', ['encoder', 'pose'])
def test_weights_that_nobody_published_are_refused(part):
  config = default.get_config()
  config.model[f'{part}_layers'] = 10
  configuration.check(config)
  config.model[f'{part}_weights'] = 'resnet10.pth'
  with pytest.raises(ValueError, match=f'{part}_weights = .*no published'):
    configuration.check(config)


@pytest.mark.parametrize('names', [(9, 10), ('09', '')])
def test_sequences_are_names(names):
  config = default.get_config()
  config.eval.odometry, config.eval.odometry_sequences = True, names
  with pytest.raises(ValueError, match='use names in quotes'):
    configuration.check(config)


def test_all_problems_are_named_at_once():
  config = default.get_config()
  config.data.height, config.batch_size, config.model.dtype = 7, 0, 'int8'
  with pytest.raises(ValueError, match='cannot be run') as error:
    configuration.check(config)
  message = str(error.value)
  for problem in ('data.height = 7', 'batch_size = 0', "model.dtype = 'int8'"):
    assert f'config.{problem}: ' in message
  assert len(message.splitlines()) == 1 + 3


def test_steps_replace_epochs():
  config = default.get_config()
  config.num_epochs, config.num_steps = 0, 10
  configuration.check(config)
  config.num_steps = 0
  with pytest.raises(ValueError, match='config.num_epochs = 0'):
    configuration.check(config)


def test_what_a_person_may_not_expect_is_told(tmp_path, caplog):
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
  newer = 'from now on this run has --config.loss.segment_weight=0.1'
  assert newer in caplog.text and 'other than --config' not in caplog.text
  caplog.clear()
  configuration.resolve(given, tmp_path, {'seed': 3}, given=True)
  assert newer in caplog.text
  assert 'other than --config says: batch_size is 5;' in caplog.text
  caplog.clear()
  given.loss.segment_weight = 0.0
  configuration.resolve(
    given, tmp_path, {'batch_size': 12, 'loss.segment_weight': 0.0}, given=True
  )
  assert newer not in caplog.text
  assert 'other than --config says: seed is 0;' in caplog.text


def test_a_file_with_other_fields_is_refused():
  reference = default.get_config()
  configuration.check_fields(baseline.get_config(), reference)
  config = default.get_config()
  config.optimizer.learning_rat = 1e-3
  with pytest.raises(ValueError) as found:
    configuration.check_fields(config, reference)
  assert 'no field optimizer.learning_rat or optimizer.learning_rate' in str(
    found.value
  )
  config = default.get_config()
  del config.loss.automask
  with pytest.raises(ValueError, match='it lacks loss.automask; build on'):
    configuration.check_fields(config, reference)
