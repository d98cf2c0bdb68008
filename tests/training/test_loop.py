"""Training as a whole: resume, one compilation, no waiting, its files."""

import json
import shutil
import signal
import time

import jax
import numpy as np
import optax
import pytest

from sgde_jax import run_files
from sgde_jax.training import loop
from sgde_jax.weights import checkpoints, initial, optimizer
from tests.support import runs

slow = pytest.mark.slow


def _assert_same_run(config, workdir, straight):
  """Asserts that an interrupted run ends as the straight one, bit for bit."""
  state, other = (runs.restore(config, w) for w in (workdir, straight))
  assert int(state.step) == config.num_steps
  jax.tree.map(np.testing.assert_array_equal, state, other)
  for name in ('train/loss', 'eval/abs_rel'):
    scalars = runs.read_scalars(workdir, name)
    assert runs.read_scalars(straight, name) == scalars


@slow
def test_writes_its_files(root, trained):
  config, *files = runs.list_files(trained)
  assert config == 'config.json'
  config = json.loads((trained / 'config.json').read_text())
  assert config == json.loads(runs.make_config(root).to_json())
  events = [name for name in files if name.startswith('events.out.tfevents.')]
  assert len(events) == 1
  assert sorted(set(files) - set(events)) == [
    'configs.jsonl',
    'evaluation/confusion.csv',
    'evaluation/metrics.json',
    'evaluation/per_image.csv',
    'metrics.jsonl',
    'parameters.txt',
    'pictures/eval_000000.png',
    'pictures/eval_000001.png',
    *(
      f'pictures/train_{step:06d}_{row}.png'
      for step in (10, 20)
      for row in (0, 1)
    ),
  ]
  assert runs.list_checkpoints(trained) == [10, 20]
  losses = runs.read_scalars(trained, 'train/loss')
  assert list(losses) == [5, 10, 15, 20]
  assert losses[20] < losses[5]
  assert list(runs.read_scalars(trained, 'eval/abs_rel')) == [0, 10, 20]


@slow
def test_resume_is_exact(root, trained, tmp_path):
  runs.run_main(f'--workdir={tmp_path}', *runs.make_flags(root, num_steps=10))
  assert runs.list_checkpoints(tmp_path) == [10]
  # The rest of the config comes from the workdir.
  runs.run_main(f'--workdir={tmp_path}', '--config.num_steps=20')
  _assert_same_run(runs.make_config(root), tmp_path, trained)
  configs = [(w / 'config.json').read_text() for w in (tmp_path, trained)]
  assert configs[0] == configs[1]


@slow
def test_killed_run_resumes_exactly(root, trained, tmp_path):
  flags = runs.make_flags(root, checkpoint_every=5)
  process = runs.start(f'--workdir={tmp_path}', *flags)
  _wait_for(process, (tmp_path / 'metrics.jsonl').exists)
  _wait_for(process, lambda: 10 in runs.read_scalars(tmp_path, 'train/loss'))
  whole = '[0-9]*[0-9]'  # Whose saving in the background has ended.
  _wait_for(process, lambda: any((tmp_path / 'checkpoints').glob(whole)))
  process.send_signal(signal.SIGKILL)
  runs.finish(process, fails=True)
  assert not (tmp_path / 'checkpoints' / '20').exists()
  runs.run_main(f'--workdir={tmp_path}')
  _assert_same_run(runs.make_config(root), tmp_path, trained)


@slow
def test_run_terminated_during_compilation_stops(root, tmp_path):
  flags = runs.make_flags(root, batch_size=1)  # Not in the cache.
  process = runs.start(f'--workdir={tmp_path}', *flags)
  _wait_for(process, (tmp_path / 'parameters.txt').exists)
  time.sleep(3)  # XLA compiles.
  process.terminate()
  _, errors = runs.finish(process, fails=True)
  assert process.returncode == 128 + signal.SIGTERM
  assert 'terminated: repeat the command' in errors
  # At once, or, where Python lost the signal, after a step.
  assert all(entry['step'] <= 1 for entry in run_files.read_entries(tmp_path))


@slow
def test_finished_run_keeps_its_config(trained, tmp_path):
  shutil.copytree(trained, tmp_path / 'run')
  before = {
    path: path.read_bytes() for path in tmp_path.rglob('*.*') if path.is_file()
  }
  runs.run_main(f'--workdir={tmp_path / "run"}', '--config.data.height=64')
  after = {
    path: path.read_bytes() for path in tmp_path.rglob('*.*') if path.is_file()
  }
  assert after == before


@slow
def test_terminated_run_saves_its_last_step(root, trained, tmp_path):
  del trained  # Its run has cached the program.
  flags = runs.make_flags(root, checkpoint_every=20)
  process = runs.start(f'--workdir={tmp_path}', *flags)
  _wait_for(process, (tmp_path / 'metrics.jsonl').exists)
  _wait_for(process, lambda: 5 in runs.read_scalars(tmp_path, 'train/loss'))
  process.terminate()
  _, errors = runs.finish(process, fails=True)
  assert process.returncode == 128 + signal.SIGTERM
  *_, step = runs.list_checkpoints(tmp_path)
  assert 5 < step < 20
  assert f'stopped after step {step}; run the same command' in errors
  assert step in runs.read_scalars(tmp_path, 'train/loss')
  assert int(runs.restore(runs.make_config(root), tmp_path).step) == step


def _wait_for(process, condition):
  """Waits until something holds, while a run is running."""
  while not condition():
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)


@slow
def test_runs_without_tensorflow_and_clu(root, trained, tmp_path):
  _, errors = runs.run_main(
    f'--workdir={tmp_path}',
    *runs.make_flags(root, num_steps=5),
    script=('-m', 'tests.support.special_runs', 'without_tensorflow'),
  )
  assert 'no TensorBoard events' in errors
  assert runs.list_checkpoints(tmp_path) == [5]
  assert {'config.json', 'metrics.jsonl'} <= set(runs.list_files(tmp_path))
  losses = runs.read_scalars(tmp_path, 'train/loss')
  assert losses[5] == runs.read_scalars(trained, 'train/loss')[5]


@slow
def test_trains_on_video_without_ground_truth(root, trained, tmp_path):
  flags = runs.make_flags(
    root, num_steps=5, data__ground_truth='none', data__eval_split='none.txt'
  )
  _, errors = runs.run_main(f'--workdir={tmp_path}', *flags)
  assert 'train: 4 examples' in errors and 'eval:' not in errors
  assert runs.list_checkpoints(tmp_path) == [5]
  assert not runs.read_scalars(tmp_path, 'eval/abs_rel')
  losses = runs.read_scalars(tmp_path, 'train/loss')
  assert losses[5] == runs.read_scalars(trained, 'train/loss')[5]
  _, errors = runs.run_main(
    f'--workdir={tmp_path}', '--mode=evaluate', fails=True
  )
  assert "ground_truth is 'none': there is nothing to evaluate" in errors


@pytest.fixture(name='events', scope='module')
def fixture_events(root, trained, tmp_path_factory):
  """What six steps do, see `special_runs.recorded_waits`.

  Step 3 and 6 log, draw, evaluate and save.
  """
  del trained  # Its run has cached the program.
  every = dict.fromkeys(
    ('log_every', 'picture_every', 'eval_every', 'checkpoint_every'), 3
  )
  output, _ = runs.run_main(
    f'--workdir={tmp_path_factory.mktemp("events")}',
    *runs.make_flags(root, num_steps=6, **every),
    script=('-m', 'tests.support.special_runs', 'recorded_waits'),
  )
  return json.loads(output.splitlines()[-1])


def _between(events, first, last=None):
  """The events after the request of batch `first`, before that of `last`."""
  stop = events.index(f'batch {last}') if last else None
  return events[events.index(f'batch {first}') + 1 : stop]


@slow
def test_nothing_compiles_after_the_first_step(events):
  assert 'compile' in _between(events, 1, 2)
  assert 'compile' not in _between(events, 2, 3)
  # Step 3 draws its first pictures.
  assert 'compile' not in _between(events, 4)


@slow
def test_host_waits_only_at_logging_steps(events):
  assert 'read' in _between(events, 3, 4)
  assert 'read' in _between(events, 6)
  for step in (2, 4, 5):
    assert _between(events, step, step + 1) == []


@slow
def test_stops_if_the_loss_is_not_finite(root, trained, tmp_path):
  del trained  # Its run has cached the program.
  flags = runs.make_flags(
    root, num_steps=6, log_every=1, eval_every=6, checkpoint_every=2
  )
  output, errors = runs.run_main(
    f'--workdir={tmp_path}',
    *flags,
    script=('-m', 'tests.support.special_runs', 'nan_intrinsics'),
    fails=True,
  )
  message = errors.splitlines()[-1]
  assert 'step 3 is not finite' in message
  assert f'numbers {output.strip()} (from 0)' in message
  assert 'last good checkpoint: step 2;' in message
  assert runs.list_checkpoints(tmp_path) == [2]
  state = runs.restore(runs.make_config(root), tmp_path)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@slow
def test_finished_run_prints_its_table_again(root, trained, tmp_path):
  for name in ('checkpoints', 'metrics.jsonl'):
    (tmp_path / name).symlink_to(trained / name)
  before = (trained / 'metrics.jsonl').read_text()
  output, log = runs.run_main(f'--workdir={tmp_path}', *runs.make_flags(root))
  assert 'compiling' not in log
  assert (tmp_path / 'metrics.jsonl').read_text() == before
  rows = [line.split()[:3] for line in output.splitlines()]
  for step, abs_rel in runs.read_scalars(trained, 'eval/abs_rel').items():
    assert ['step', str(step), f'{abs_rel:.4f}'] in rows


@slow
@pytest.mark.usefixtures('one_device')
def test_interrupted_run_waits_for_its_checkpoint(
  root, trained, tmp_path, monkeypatch
):
  class Saved(checkpoints.Checkpoints):
    """Records that it was closed."""

    closed = []

    def close(self):
      super().close()
      self.closed.append(self._folder)

  def interrupt(*_, **__):
    assert not Saved.closed
    raise KeyboardInterrupt

  shutil.copytree(trained / 'checkpoints', tmp_path / 'checkpoints')
  monkeypatch.setattr(checkpoints, 'Checkpoints', Saved)
  monkeypatch.setattr(loop, 'compile_steps', interrupt)
  with pytest.raises(KeyboardInterrupt):
    loop.train_and_evaluate(runs.make_config(root, num_steps=21), tmp_path)
  assert Saved.closed == [tmp_path / 'checkpoints']


@slow
@pytest.mark.usefixtures('one_device')
def test_end_before_the_current_step_raises(root, trained, tmp_path):
  (tmp_path / 'checkpoints').symlink_to(trained / 'checkpoints')
  config = runs.make_config(root, num_steps=19)
  with pytest.raises(ValueError, match='at step 20, .* ends it at 19: raise'):
    loop.train_and_evaluate(config, tmp_path)
  assert not (tmp_path / 'config.json').exists()


@slow
@pytest.mark.parametrize('which', ['latest', 'best'])
def test_starts_from_the_weights_of_another_run(root, tmp_path, trained, which):
  config = runs.make_config(root, init_from=str(trained), init_checkpoint=which)
  model, mesh = runs.create_model(config), runs.one_device_mesh()
  weights = initial.read_weights(config, model, mesh)
  adam = optimizer.create_optimizer(config.optimizer)
  state = initial.new_state(config, model, adam, mesh, weights)
  errors = runs.read_scalars(trained, 'eval/abs_rel')
  step = 20 if which == 'latest' else min((10, 20), key=errors.get)
  other = runs.restore(config, trained, step=step)
  assert int(state.step) == 0 and int(other.step) == step
  jax.tree.map(np.testing.assert_array_equal, state.variables, other.variables)
  moments = optax.tree.norm(optax.tree.get(state.opt_state, 'mu'))
  assert moments == 0


@slow
@pytest.mark.usefixtures('one_device')
@pytest.mark.parametrize(
  ('field', 'value', 'problem'),
  [
    ('init_from', 'none', 'init_from: no checkpoint in none'),
    ('model__seem__width', 32, 'checkpoint .* does not fit the config'),
  ],
)
def test_initial_weights_that_do_not_fit_raise(
  root, trained, tmp_path, field, value, problem
):
  overrides = {'init_from': str(trained), field: value}
  config = runs.make_config(root / 'none', **overrides)
  with pytest.raises((FileNotFoundError, ValueError), match=problem):
    loop.train_and_evaluate(config, tmp_path)  # Before it looks at the data.


@pytest.mark.usefixtures('one_device')
def test_published_weights_are_not_trained_in_place(root, tmp_path):
  (tmp_path / 'model.safetensors').touch()
  problem = f'use another --workdir and --config.init_from={tmp_path}'
  with pytest.raises(ValueError, match=problem):
    loop.train_and_evaluate(runs.make_config(root), tmp_path)


def test_is_due_at_multiples_and_at_the_end():
  due = [step for step in range(1, 11) if loop._is_due(step, 10, 4)]
  assert due == [4, 8, 10]
  assert all(loop._is_due(step, 3, 1) for step in (1, 2, 3))
