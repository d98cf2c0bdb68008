"""The log of a run: scalars, timing, pictures, evaluations."""

import json
import types

import jax
import numpy as np
import pytest
from PIL import Image

from sgde_jax import metrics, parallel
from sgde_jax.training import run_log

PROTOCOL = 'truth dense, no crop'


def _open(workdir, *, start_step=0, **options):
  workdir.mkdir(parents=True, exist_ok=True)
  usual = {
    'protocol': PROTOCOL,
    'num_steps': 100,
    'batch_size': 3,
    'explain': 'step {}'.format,
  }
  return run_log.RunLog(workdir, start_step=start_step, **usual | options)


def _train(log, step, seconds=1.0, clock=None, **scalars):
  """Adds one step to the log and writes it."""
  with log.waiting_for_data():
    pass
  if clock:
    clock.now += seconds
  log.add(step, {'loss': np.float32(1.0)} | scalars)
  log.write(step)


def _summary(abs_rel, images=26):
  values = dict.fromkeys(metrics.depth.DEPTH_ERRORS, 0.5) | {'abs_rel': abs_rel}
  return values | {'ratio': 31.25, 'ratio_std': 0.125, 'images': images}


def _entries(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture
def clock(monkeypatch):
  """A clock that is set by hand: `clock.now += seconds`."""
  fake = types.SimpleNamespace(now=1000.0)
  fake.monotonic = lambda: fake.now
  monkeypatch.setattr(run_log, 'time', fake)
  return fake


def test_entries_hold_scalars_and_speed(tmp_path, clock, caplog):
  caplog.set_level('INFO')
  log = _open(tmp_path, start_step=10, num_steps=50)
  clock.now += 100  # Before the first batch is requested.

  losses = {11: 0.5, 12: 0.25, 13: 0.0, 14: 0.25, 15: 0.125, 16: 0.125}
  for step, loss in losses.items():
    with log.waiting_for_data():
      clock.now += 0.5
    clock.now += 1.5
    log.add(step, {'loss': np.float32(loss)})
    if step in (14, 16):
      log.write(step)
      clock.now += 1000  # An evaluation.
  first, second = _entries(tmp_path)
  assert first == {
    'step': 14,
    'train/loss': 0.25,
    'train/ms_per_step': 2000,
    'train/images_per_second': 1.5,
    'train/data_share': 0.25,
  }
  assert second == first | {'step': 16, 'train/loss': 0.125}
  progress, _ = (m for m in caplog.messages if m.startswith('step'))
  assert progress.startswith('step 14/50  loss 0.2500')
  assert progress.endswith('ETA 0:01:12')  # 36 steps of 2 s.


def test_warns_once_about_a_constant_disparity(tmp_path, caplog):
  log = _open(tmp_path)
  for step, spread in ((10, 0.03), (20, 2e-4), (30, 0.0)):
    _train(log, step, disparity_spread=spread)
  (warning,) = (r for r in caplog.records if r.levelname == 'WARNING')
  assert warning.message.startswith('step 20: the disparity is constant')
  assert 'config.seed' in warning.message


@pytest.mark.parametrize('name', ['loss', 'gradient_norm'])
def test_first_step_that_is_not_finite_is_named(tmp_path, name):
  log = _open(tmp_path, explain='advice for {}'.format)
  for step in (1, 2, 3):
    scalars = {'loss': 1.0, 'gradient_norm': 1.0}
    if step > 1:
      scalars[name] = float('nan')
    log.add(step, scalars)
  with pytest.raises(FloatingPointError, match='step 2 is .* advice for 2$'):
    log.write(3)


def test_profile_holds_ten_whole_steps(tmp_path, monkeypatch):
  calls = []
  for name in ('start_trace', 'stop_trace'):
    monkeypatch.setattr(
      jax.profiler, name, lambda *_, name=name: calls.append(name)
    )
  monkeypatch.setattr(jax, 'block_until_ready', calls.append)
  for enabled in (False, True):
    profiler = run_log.Profiler(tmp_path, enabled=enabled)
    for count in range(1, 31):
      profiler.before(count, f'after {count - 1}')
    assert bool(calls) == enabled
  assert calls == ['after 9', 'start_trace', 'after 19', 'stop_trace']


def test_entries_after_the_restored_step_are_dropped(tmp_path):
  log = _open(tmp_path)
  for step in (10, 20, 30):
    _train(log, step)
    log.evaluation(step, _summary(1 / step))
  resumed = _open(tmp_path, start_step=20)
  assert [entry['step'] for entry in _entries(tmp_path)] == [10, 10, 20, 20]
  assert sorted(resumed.evaluations) == [10, 20]
  assert resumed.evaluations[20] == _summary(0.05)
  _train(resumed, 21)
  assert [entry['step'] for entry in _entries(tmp_path)][-2:] == [20, 21]


def test_start_at_step_0_drops_all_entries(tmp_path):
  _open(tmp_path).evaluation(0, _summary(0.5))  # Killed soon after.
  again = _open(tmp_path)
  assert again.evaluations == {}
  assert _entries(tmp_path) == []


def test_evaluations_by_another_protocol_are_left_out(tmp_path, capsys, caplog):
  _open(tmp_path).evaluation(10, _summary(0.5))
  other = _open(tmp_path, start_step=10, protocol='truth dense, garg crop')
  assert other.evaluations == {}  # So step 10 is evaluated again.
  assert 'left out of the table: 1; the best checkpoint may' in caplog.text
  other.evaluation(10, _summary(0.25))
  other.close()
  table = capsys.readouterr().out
  assert table.splitlines()[1].split()[:3] == ['step', '10', '0.2500']
  assert 'garg crop' in table and PROTOCOL not in table
  caplog.clear()
  again = _open(tmp_path, start_step=10)  # Nothing of either is lost.
  assert again.evaluations == {10: _summary(0.5)}
  assert len(_entries(tmp_path)) == 2


def test_incomplete_last_line_is_dropped(tmp_path):
  _open(tmp_path).evaluation(10, _summary(0.5))
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 12, "train/lo')  # Killed while writing.
  log = _open(tmp_path, start_step=15)
  _train(log, 16)
  assert [entry['step'] for entry in _entries(tmp_path)] == [10, 16]
  assert list(log.evaluations) == [10]


def test_incomplete_only_line_does_not_corrupt_the_next(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 12, "train/lo')
  _train(_open(tmp_path), 1)
  assert [entry['step'] for entry in _entries(tmp_path)] == [1]


def test_other_processes_read_evaluations_and_write_nothing(
  tmp_path, monkeypatch
):
  # Else they would evaluate, all together, what the first one skips.
  _open(tmp_path).evaluation(10, _summary(0.5))
  before = (tmp_path / 'metrics.jsonl').read_bytes()
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  log = _open(tmp_path, start_step=10)
  assert list(log.evaluations) == [10]
  _train(log, 11)
  log.evaluation(11, _summary(0.25))
  log.pictures(11, _pictures()[0])
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ['metrics.jsonl']


def test_close_prints_all_evaluations(tmp_path, capsys):
  log = _open(tmp_path)
  log.evaluation(0, _summary(0.5))
  log.evaluation(1000, _summary(0.125))
  # The second half of the run, in a new process.
  resumed = _open(tmp_path, start_step=1000)
  assert resumed.close() == _summary(0.125)
  header, first, last, note = capsys.readouterr().out.splitlines()
  assert header.split() == list(metrics.depth.DEPTH_ERRORS)
  assert first.startswith('step 0 ') and '0.5000' in first
  assert last.startswith('step 1000 ') and '0.1250' in last
  assert note == (
    f'26 images; {PROTOCOL}; scale ratio median 31.250, deviation 0.125'
  )


def _pictures(height=32, width=64):
  """A preview of two rows per device, on the mesh and on the host."""
  mesh = parallel.create_mesh()
  rng = np.random.default_rng(0)
  rows = 2 * mesh.size
  frame = np.empty((rows, height, width, 3), np.float32)
  frame[:] = np.linspace(0, 1, rows)[:, None, None, None] * (1.0, 0.5, 0.2)
  pictures = {
    'frame': frame,
    'disparity': rng.uniform(size=(rows, height, width, 1)),
    'rebuilt': rng.uniform(-0.1, 1.1, (rows, 2, height, width, 3)),
    'automask': rng.uniform(size=(rows, height, width)) > 0.5,
  }
  pictures = {
    name: array if name == 'automask' else array.astype(np.float32)
    for name, array in pictures.items()
  }
  return parallel.to_devices(pictures, mesh), pictures


def test_previews_are_written_as_panels(tmp_path):
  height, width = 32, 64
  on_mesh, pictures = _pictures(height, width)
  _open(tmp_path).pictures(40, on_mesh)
  files = sorted((tmp_path / 'pictures').iterdir())
  assert [file.name for file in files] == [
    'train_000040_0.png',
    'train_000040_1.png',
  ]
  for row, file in enumerate(files):
    panel = np.asarray(Image.open(file))
    assert 2 * height < panel.shape[0] < 4 * height
    assert 3 * width < panel.shape[1] < 4 * width
    colour = np.round(255 * pictures['frame'][row, 0, 0])
    shown = np.all(panel == colour, axis=-1)
    assert shown.sum() >= height * width


def test_tensorboard_gets_the_same_scalars(tmp_path):
  written = []

  class Writer:
    def write_scalars(self, step, scalars):
      written.append((step, scalars))

    def write_images(self, step, images):
      written.append((step, {name: i.shape for name, i in images.items()}))

    def flush(self):
      written.append('flushed')

    def close(self):
      written.append('closed')

  log = _open(tmp_path, tensorboard=Writer())
  log.evaluation(5, _summary(0.5))
  (entry,) = _entries(tmp_path)
  assert entry.pop('protocol') == PROTOCOL
  assert written == [
    (entry.pop('step'), entry),
    'flushed',
  ]
  log.pictures(5, _pictures()[0])
  (name,) = written[2][1]
  assert name == 'train/example_0' and written[2][1][name][0] == 1
  log.close()
  assert written[-1] == 'closed'
