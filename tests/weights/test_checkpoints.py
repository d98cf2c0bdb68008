"""Checkpoints: retention, exact restores, damage, failed saves."""

import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgde_jax import parallel
from sgde_jax.weights import checkpoints
from tests.support import runs


def _state(value, *, shape=(3, 2)):
  """A state like training's: nested, of several dtypes, on a mesh."""
  state = {
    'params': {'conv': {'kernel': jnp.full(shape, value, jnp.float32)}},
    'step': jnp.asarray(value, jnp.int32),
    'half': jnp.full((4,), value, jnp.bfloat16),
  }
  return parallel.replicate(state, parallel.create_mesh())


def _save(workdir, metrics, **options):
  """Saves one checkpoint per step -> abs_rel (or None)."""
  saved = checkpoints.Checkpoints(workdir, **{'keep': 2} | options)
  for step, abs_rel in metrics.items():
    summary = None if abs_rel is None else {'abs_rel': abs_rel, 'a1': 0.5}
    saved.save(_state(step), step=step, metrics=summary)
  saved.close()


def _kept(workdir):
  folders = (workdir / 'checkpoints').iterdir()
  return sorted(int(folder.name) for folder in folders)


def test_restores_exactly(tmp_path):
  state = _state(7)
  noise = np.random.default_rng(0).standard_normal((3, 2), np.float32)
  state['params']['conv']['kernel'] += noise
  saved = checkpoints.Checkpoints(tmp_path)
  saved.save(state, step=7)
  saved.close()
  restored = checkpoints.Checkpoints(tmp_path).restore(_state(0))
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  for new, old in zip(
    jax.tree.leaves(restored), jax.tree.leaves(state), strict=True
  ):
    assert new.dtype == old.dtype
    assert new.sharding == old.sharding


def test_restores_the_variables_alone(tmp_path):
  params = _state(7)['params']
  state = {
    'step': jnp.asarray(7, jnp.int32),
    'params': params,
    'batch_stats': {'norm': {'mean': jnp.arange(4.0)}},
    'opt_state': {'mu': params},
  }
  saved = checkpoints.Checkpoints(tmp_path)
  saved.save(parallel.replicate(state, parallel.create_mesh()), step=7)
  saved.close()
  wanted = {name: state[name] for name in ('params', 'batch_stats')}
  reader = checkpoints.Checkpoints(tmp_path, read_only=True)
  for template in (None, wanted):
    restored = reader.restore_variables(template)
    jax.tree.map(np.testing.assert_array_equal, restored.variables, wanted)
    assert restored.step == 7 and not restored.opt_state
  wanted['params'] = _state(7, shape=(3, 4))['params']
  with pytest.raises(ValueError, match=r'has \(3, 2\), the config asks'):
    reader.restore_variables(wanted)


@pytest.mark.parametrize(
  ('metrics', 'keep', 'kept', 'best'),
  [
    ({1: 0.3, 2: 0.1, 3: 0.4, 4: 0.2}, 1, [2, 4], 2),
    ({1: 0.3, 2: 0.1, 3: 0.4, 4: 0.2}, 2, [2, 3, 4], 2),
    ({1: 0.3, 2: 0.2, 3: 0.1}, 1, [3], 3),
    ({1: 0.1, 2: None, 3: None}, 1, [1, 3], 1),
    ({1: None, 2: None}, 1, [2], 2),
  ],
)
def test_keeps_the_latest_and_the_best(tmp_path, metrics, keep, kept, best):
  _save(tmp_path, metrics, keep=keep)
  assert _kept(tmp_path) == kept
  reader = checkpoints.Checkpoints(tmp_path, read_only=True)
  assert reader.find_step('best') == best
  assert reader.latest_step() == max(metrics)
  restored = reader.restore(_state(0), step=best)
  assert int(restored['step']) == best


def test_best_survives_a_restart(tmp_path):
  _save(tmp_path, {1: 0.1, 2: 0.3}, keep=1)
  _save(tmp_path, {3: 0.2, 4: 0.4}, keep=1)
  assert _kept(tmp_path) == [1, 4]


def test_lists_every_tensor_that_differs(tmp_path):
  _save(tmp_path, {5: None})
  wanted = _state(0, shape=(3, 4))
  wanted['extra'] = wanted.pop('half')
  saved = checkpoints.Checkpoints(tmp_path)
  with pytest.raises(ValueError, match='does not fit the config') as error:
    saved.restore(wanted)
  message = str(error.value)
  assert f'{tmp_path}/checkpoints/5' in message
  assert (
    'params/conv/kernel: the checkpoint has (3, 2), the config asks for (3, 4)'
  ) in message
  assert 'half: the checkpoint has (4,), the config asks for nothing' in message
  assert 'extra: the checkpoint has nothing' in message
  assert 'step:' not in message


def test_parameters_come_first_among_what_differs(tmp_path):
  optimizers = {f'opt_state/{number}': (1,) for number in range(30)}
  problems = sorted(
    [*optimizers, 'params/conv', 'batch_stats/norm'],
    key=checkpoints._parameters_first,
  )
  assert problems[:2] == ['batch_stats/norm', 'params/conv']


def _remove_state(folder):
  shutil.rmtree(folder / 'state')


def _remove_list(folder):
  (folder / 'state' / '_METADATA').unlink()


def _tear_list(folder):
  (folder / 'state' / '_METADATA').write_text('{"tree_')


def _tear_data(folder):
  files = [path for path in (folder / 'state').rglob('*') if path.is_file()]
  data = [path for path in files if 'd' in path.parts[-2:-1]]
  assert data
  for path in data:
    path.write_bytes(path.read_bytes()[:10])


def test_deleted_checkpoint_is_not_reported_as_damaged(tmp_path):
  _save(tmp_path, {1: 0.2, 2: 0.1})
  reader = checkpoints.Checkpoints(tmp_path, read_only=True)
  shutil.rmtree(tmp_path / 'checkpoints' / '1')
  with pytest.raises(FileNotFoundError, match='/1 was replaced by a newer one'):
    reader.restore(_state(0), step=1)


@pytest.mark.parametrize('alone', [False, True])
@pytest.mark.parametrize(
  'damage', [_remove_state, _remove_list, _tear_list, _tear_data]
)
def test_damaged_checkpoint_is_named_with_the_previous_one(
  tmp_path, damage, alone
):
  _save(tmp_path, {5: None, 8: None})
  damage(tmp_path / 'checkpoints' / '8')
  saved = checkpoints.Checkpoints(tmp_path, read_only=True)
  with pytest.raises(ValueError, match='is damaged') as error:
    if alone:
      saved.restore_variables(None)
    else:
      saved.restore(_state(0))
  message = str(error.value)
  assert f'{tmp_path}/checkpoints/8' in message
  assert 'continue from step 5' in message
  assert len(message.splitlines()) == 1 and len(message) < 500
  shutil.rmtree(tmp_path / 'checkpoints' / '8')  # As the message says.
  saved = checkpoints.Checkpoints(tmp_path)
  assert int(saved.restore(_state(0))['step']) == 5


@pytest.mark.parametrize(
  'error',
  [
    MemoryError('103 GiB'),
    PermissionError('no'),
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 103 GiB'),
  ],
)
def test_machine_errors_pass_through(tmp_path, monkeypatch, error):
  _save(tmp_path, {5: None})
  saved = checkpoints.Checkpoints(tmp_path, read_only=True)

  def fail(*_, **__):
    raise error

  monkeypatch.setattr(saved._manager, 'restore', fail)
  with pytest.raises(type(error)) as found:
    saved.restore(_state(0))
  assert found.value is error


def test_error_without_a_text_is_named_by_its_type(tmp_path, monkeypatch):
  saved = checkpoints.Checkpoints(tmp_path)

  def fail(*_, **__):
    raise TimeoutError

  monkeypatch.setattr(saved._manager, 'save', fail)
  with pytest.raises(OSError, match=r'1 could not be written \(TimeoutError\)'):
    saved.save(_state(1), step=1)


@pytest.mark.parametrize('read_only', [False, True])
def test_raises_if_there_is_no_checkpoint(tmp_path, read_only):
  workdir = tmp_path / 'none'
  saved = checkpoints.Checkpoints(workdir, read_only=read_only)
  assert saved.latest_step() is None
  assert saved.find_step('best') is None
  with pytest.raises(FileNotFoundError, match='train first') as error:
    saved.restore(_state(0))
  assert str(workdir) in str(error.value)
  assert workdir.exists() != read_only


def test_raises_if_a_step_is_absent(tmp_path):
  _save(tmp_path, {5: None})
  saved = checkpoints.Checkpoints(tmp_path, read_only=True)
  with pytest.raises(FileNotFoundError, match='no checkpoint of step 4'):
    saved.restore(_state(0), step=4)


def test_failed_save_raises_one_message(tmp_path):
  noise = jax.random.normal(jax.random.key(0), (10000,))  # Hard to compress.
  noise = parallel.replicate(noise, parallel.create_mesh())
  saved = checkpoints.Checkpoints(tmp_path)
  saved.save(_state(1), step=1)
  saved.check_saved()
  saved._manager.wait_until_finished()
  size = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:  # No file may be larger: as good as a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, size[1]))
    saved.save(_state(2) | {'noise': noise}, step=2)
    with pytest.raises(OSError, match='2 could not be written') as found:
      for _ in range(600):
        saved.check_saved()
        time.sleep(0.1)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, size)
  message = str(found.value)
  assert 'File too large' in message and 'of step 1: free some space' in message
  assert '\n' not in message
  saved = checkpoints.Checkpoints(tmp_path)  # There is room again.
  saved.save(_state(3), step=3)
  saved.close()
  assert runs.list_checkpoints(tmp_path) == [3]


def test_error_of_the_body_takes_precedence_over_a_failed_save(
  tmp_path, monkeypatch, caplog
):
  saved = checkpoints.Checkpoints(tmp_path)

  def fail():
    raise OSError('the disk is full')

  monkeypatch.setattr(saved, '_wait', fail)
  with pytest.raises(KeyboardInterrupt), saved:
    raise KeyboardInterrupt
  assert 'the disk is full' in caplog.text
  with pytest.raises(OSError, match='the disk is full'), saved:
    pass
