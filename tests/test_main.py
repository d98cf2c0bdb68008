"""main.py: a wrong command ends at once, in one message that helps."""

import errno
import functools

import jax
import pytest

from sgde_jax import cli
from tests.support import kitti_folder, runs


def _refusal(tmp_path, *flags):
  """The message for flags; nothing may be left in the workdir."""
  workdir = tmp_path / 'run'
  message = runs.refusal(f'--workdir={workdir}', *flags)
  assert not workdir.exists()
  assert len(message.splitlines()) <= 3, message
  return message


@pytest.mark.parametrize(
  ('flag', 'parts'),
  [
    ('--config.foo=1', ['foo', 'configs/default.py']),
    ('--config.data.foo.bar=1', ['foo', 'configs/default.py']),
    ('--config.batchsize=1', ['batchsize', 'batch_size']),
    ('--config.batch_size=few', ['config.batch_size=few']),
    ('--config=nowhere.py', ['nowhere.py', 'configs/']),
    ('--config=configs/ablation.py:all', ['all', 'baseline, semantics']),
    ('--config=configs/demo.py:all', ['--config', 'no parts']),
    ('--mode=dream', ['mode', 'train', 'evaluate', 'predict']),
    ('--wordir=x', ['wordir']),
    ('--distributed', ['coordinator_address', '--num_processes']),
    (
      '--distributed --mode=export',
      ['--distributed needs --mode=train or --mode=evaluate'],
    ),
    ('stray', ['stray', '--NAME=VALUE']),
    ('--input=x', ['--input needs --mode=predict']),
    ('--output=x', ['--output needs --mode=predict or --mode=export']),
    ('--config.data.height=30', ['config.data.height = 30', '32']),
    ('--config.data.root=/nowhere', ['/nowhere', '--config.data.root']),
    (
      '--config.model.encoder_weights=resnet18.pth',
      ['resnet18.pth', 'torchvision'],
    ),
    (
      '--config=configs/kitti_1024x320.py',
      ['config.init_from: no checkpoint in', 'runs/kitti_r18'],
    ),
  ],
)
def test_wrong_flag(tmp_path, flag, parts):
  flags = flag.split()
  if 'root' in flag:
    flags.append('--config.data.source=kitti')
  message = _refusal(tmp_path, *flags)
  for part in parts:
    assert part in message


def test_trace_shows_where_an_error_arose(tmp_path):
  _, errors = runs.run_main(
    f'--workdir={tmp_path}', '--trace', '--config.data.height=30', fails=True
  )
  assert 'Traceback' in errors and 'configuration.py' in errors
  assert 'config.data.height = 30' in errors


def test_workdir_is_asked_for():
  assert '--workdir' in runs.refusal()
  assert '--workdir is empty' in runs.refusal('--workdir=')


@pytest.mark.parametrize('below', ['', '/run'])
def test_workdir_that_is_a_file(tmp_path, below):
  path = tmp_path / 'file'
  path.write_text('mine')
  message = runs.refusal(f'--workdir={path}{below}')
  assert f'--workdir={path}{below}: {path} is a file' in message
  assert path.read_text() == 'mine'


def test_bad_split_line_is_named(tmp_path):
  root = runs.write_root(tmp_path / 'kitti')
  split = root / 'splits' / 'train.txt'
  split.write_text(split.read_text() + f'{kitti_folder.DRIVE} two l\n')
  message = _refusal(tmp_path, *runs.make_flags(root))
  assert f'{split}' in message
  assert 'line 5' in message
  assert 'two' in message


def test_predict_without_input(tmp_path):
  message = _refusal(tmp_path, '--mode=predict')
  assert '--input' in message


def test_evaluate_without_a_run(tmp_path):
  message = _refusal(tmp_path, '--mode=evaluate')
  assert 'no checkpoint' in message


def test_broken_config_file_is_named(tmp_path):
  (tmp_path / 'config.json').write_text('{"batch_size": 3, "beams": 64}')
  message = runs.refusal(f'--workdir={tmp_path}')
  assert f'{tmp_path}/config.json' in message
  assert 'beams' in message
  assert '--workdir' in message


def test_semantics_without_a_label_are_refused(tmp_path):
  root = runs.write_root(tmp_path / 'kitti')
  message = _refusal(tmp_path, *runs.make_flags(root, data__labels='none'))
  assert 'semantic_02' in message
  assert 'configs/ablation.py:baseline' in message


@pytest.mark.parametrize(
  ('line', 'parts'),
  [
    ('config.batch_size = few', ['line 6', "NameError: name 'few'"]),
    ('config.batch_size = 4.0', ['line 6', 'TypeError', "'batch_size'"]),
    ('return None', ['no get_config() that returns a config']),
    ('config.data.root = {}["HOME_"]', ['line 6', "KeyError: 'HOME_'"]),
    ('raise KeyError', ['line 6: KeyError']),
    ('config.lock().seeed = 3', ['line 6', 'Did you mean "seed"']),
    ('config.optimizer.learning_rat = 1.0', ['no field', 'learning_rate;']),
  ],
)
def test_mistakes_in_a_config_file(tmp_path, line, parts):
  path = tmp_path / 'domain.py'  # Not main.py.
  path.write_text(
    'from configs import demo\n\n\ndef get_config():\n'
    f'  config = demo.get_config()\n  {line}\n  return config\n'
  )
  message = _refusal(tmp_path, f'--config={path}')
  for part in parts:
    assert part in message


def test_a_config_file_without_its_function(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('size = 3\n')
  assert 'no get_config()' in _refusal(tmp_path, f'--config={path}')


def test_help_lists_the_flags():
  output, _ = runs.run_main('--help', fails=True)
  for flag in ('--workdir', '--mode', '--input', '--[no]distributed'):
    assert f'{flag}:' in output


def test_a_platform_that_is_not_there(tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'nothing')
  message = _refusal(tmp_path)
  assert 'JAX_PLATFORMS=nothing: JAX finds no such device' in message


def test_what_ends_a_command_is_explained():
  explain = functools.partial(cli.explain, mode='train')
  lack = 'out of memory: '
  assert explain(MemoryError('103 GiB')).startswith(lack)
  full = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory\nmore')
  assert explain(full).startswith(lack)
  assert 'config.batch_size' in explain(full)
  assert explain(OSError('gone')) == 'OSError: gone'
  assert explain(KeyError('ours')) == ''


@pytest.mark.parametrize(
  ('mode', 'stays'),
  [
    ('train', 'goes on from its latest checkpoint'),
    ('predict', 'masks that are written already stay'),
    ('evaluate', 'begins anew'),
    ('export', 'begins anew'),
  ],
)
def test_what_is_broken_off_says_how_it_goes_on(mode, stays):
  full = OSError(errno.ENOSPC, 'No space left on device', 'a.png')
  message = cli.explain(full, mode=mode)
  assert "'a.png'" in message and 'make room and give the same' in message
  assert stays in message
  message = cli.explain(KeyboardInterrupt(), mode=mode)
  assert message.startswith('interrupted; give the same command again')
  assert stays in message
