"""The command line: wrong commands end in one helpful message."""

import errno
import logging
import signal
import subprocess
import sys
import time

import pytest
from absl import flags

from sgde_jax import cli
from tests.support import kitti_folder, runs

pytestmark = [
  pytest.mark.usefixtures('one_device'),
  # By ml_collections, for every config file.
  pytest.mark.filterwarnings('ignore:the load_module'),
]


def _parse(*arguments):
  args = flags.FlagValues()
  cli.parse(['main.py', *arguments], args)
  return args


def _message(tmp_path, *arguments):
  """Returns a wrong command's message; checks that the workdir stays empty."""
  workdir = tmp_path / 'run'
  with pytest.raises((SystemExit, ValueError, OSError)) as error:
    cli.execute(_parse(f'--workdir={workdir}', *arguments))
  assert not workdir.exists()
  return str(error.value)


@pytest.mark.parametrize(
  ('flag', 'parts'),
  [
    ('--config.foo=1', ['no config field foo']),
    ('--config.data.foo.bar=1', ['no config field data.foo.bar']),
    ('--config.batchsize=1', ['batchsize, did you mean batch_size;']),
    ('--config.learning_rate 1', ['did you mean optimizer.learning_rate;']),
    ('--noconfig.semantics', ['did you mean model.semantics;']),
    ('--config.batch_size=few', ['config.batch_size=few']),
    ('--config=nowhere.py', ['nowhere.py', 'demo, drive_0009']),
    ('--config=ablation:all', ['all', 'baseline, semantics']),
    ('--mode=dream', ['mode', 'train', 'evaluate', 'predict']),
    ('--wordir=x', ['wordir', 'workdir']),
    ('--process_id=1', ['--process_id need --distributed']),
    (
      '--distributed --mode=export',
      ['--mode=export takes no --distributed'],
    ),
    ('stray', ['stray', '--NAME=VALUE']),
    ('--input=x', ['--mode=train takes no --input']),
    ('--output=x', ['--mode=train takes no --output']),
    ('--workdir=', ['--workdir=FOLDER is missing']),
    ('--config.data.height=30', ['config.data.height = 30', '32']),
    (
      '--config.data.source=kitti --config.data.root=/nowhere',
      ['/nowhere', '--config.data.root'],
    ),
    (
      '--config.model.encoder_weights=resnet18.pth',
      ['resnet18.pth', 'torchvision'],
    ),
    (
      '--config=configs/kitti_1024x320.py --config.data.source=street'
      ' --config.data.root=runs/none',
      ['config.init_from: no checkpoint in', 'runs/kitti_r18'],
    ),
    ('--mode=predict --input=', ['--mode=predict needs --input']),
    ('--mode=export', ['--mode=export needs --output']),
    ('--mode=evaluate', ['no checkpoint']),
    ('--mode=report', ['no checkpoint']),
    ('--baseline=x', ['--mode=train takes no --baseline']),
  ],
)
def test_wrong_command(tmp_path, flag, parts):
  message = _message(tmp_path, *flag.split())
  for part in parts:
    assert part in message


@pytest.mark.parametrize('name', ['demo', 'configs/demo.py', 'ablation:seem'])
def test_config_by_name_or_path(name):
  args = _parse('--workdir=x', '--config', name, '--config.batch_size=3')
  assert args.config.batch_size == 3
  assert args.config.num_steps == (0 if 'seem' in name else 560)
  assert args['config'].present


def test_user_config_that_lacks_a_field(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from sgde_jax.configs import demo\n\n\ndef get_config():\n'
    '  config = demo.get_config()\n  del config.loss.automask\n'
    '  config.optimizer.learning_rat = 1.0\n  return config\n'
  )
  message = _message(tmp_path, f'--config={path}')
  assert 'learning_rat, did you mean optimizer.learning_rate' in message


def test_tilde_is_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/home/ann')
  assert _parse('--workdir=~/run').workdir == '/home/ann/run'


@pytest.mark.parametrize('below', ['', '/run'])
def test_workdir_that_is_a_file(root, tmp_path, below):
  path = tmp_path / 'file'
  path.write_text('mine')
  with pytest.raises((OSError, ValueError), match=str(path)):
    cli.execute(_parse(f'--workdir={path}{below}', *runs.make_flags(root)))
  assert path.read_text() == 'mine'


def test_bad_split_line_is_named(tmp_path):
  root = runs.write_root(tmp_path / 'kitti')
  split = root / 'splits' / 'train.txt'
  split.write_text(split.read_text() + f'{kitti_folder.DRIVE} two l\n')
  message = _message(tmp_path, *runs.make_flags(root))
  assert f'{split}' in message
  assert 'line 5' in message
  assert 'two' in message


def test_semantics_need_labels(tmp_path):
  root = runs.write_root(tmp_path / 'kitti')
  message = _message(tmp_path, *runs.make_flags(root, data__labels='none'))
  assert 'semantic_02' in message


def test_wrong_path_is_reported_before_heavy_imports(tmp_path):
  code = (
    'import sys\nfrom sgde_jax import cli\n'
    'try:\n  cli.run()\nfinally:\n'
    "  print({'jax', 'flax', 'tensorflow'} & set(sys.modules), cli.__name__)"
  )
  arguments = ['--config.data.source=kitti', '--config.data.root=/nowhere']
  start = time.monotonic()
  result = subprocess.run(
    [sys.executable, '-c', code, f'--workdir={tmp_path}/run', *arguments],
    cwd=kitti_folder.REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
  )
  assert time.monotonic() - start < 10  # 0.5 s on a free machine.
  assert result.returncode == 1
  assert result.stdout == 'set() sgde_jax.cli\n'
  assert len(result.stderr.splitlines()) == 1
  assert result.stderr.startswith('sgde-jax: error: there is no folder')


def test_trace_shows_the_traceback(tmp_path):
  _, errors = runs.run_main(
    f'--workdir={tmp_path}', '--trace', '--config.data.height=30', fails=True
  )
  assert 'Traceback' in errors and 'configuration.py' in errors
  assert 'config.data.height = 30' in errors


def test_help_lists_the_flags():
  output, _ = runs.run_main('--help', fails=True)
  for flag in ('--workdir', '--mode', '--input', '--[no]distributed'):
    assert f'{flag}:' in output
  assert '--config=demo' in output


def test_user_fixable_errors_are_one_line():
  assert cli.explain(OSError('gone'), '') == 'sgde-jax: error: gone'
  assert cli.explain(ValueError('no'), '') == 'sgde-jax: error: no'
  assert cli.explain(KeyError('ours'), '') == ''
  full = OSError(errno.ENOSPC, 'No space left on device', 'a.png')
  message = cli.explain(full, 'repeat the command')
  assert "'a.png'" in message
  assert message.endswith('make room on the disk and repeat the command')
  message = cli.explain(RuntimeError('x: No space left on device'), 'repeat')
  assert message.endswith('make room on the disk and repeat')


@pytest.mark.parametrize(
  ('error', 'status', 'word'),
  [
    (KeyboardInterrupt(), 130, 'interrupted'),
    (SystemExit(143), 143, 'terminated'),
    (ValueError('no'), 1, 'sgde-jax: error: no'),
    (KeyError('ours'), 1, 'Traceback'),
  ],
)
def test_exit_of_a_command(monkeypatch, capsys, error, status, word):
  def fail(args):
    raise error

  args = _parse('--workdir=x')
  monkeypatch.setattr(flags, 'FLAGS', args)
  monkeypatch.setattr(cli, 'execute', fail)
  monkeypatch.setattr(cli.os, '_exit', sys.exit)
  monkeypatch.setattr(signal, 'signal', lambda *_: None)
  monkeypatch.setattr(logging, 'basicConfig', lambda **_: None)
  with pytest.raises(SystemExit) as ended:
    cli.main([])
  text = f'{ended.value.code}\n{capsys.readouterr().err}'
  assert word in text
  assert ended.value.code == status or status == 1
  if status > 1:
    assert 'training continues from its checkpoint' in text
