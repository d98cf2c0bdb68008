"""What a run leaves in its workdir: scalars, pictures, the table."""

import json
import types
from unittest import mock

import jax
import numpy as np
import pytest
from PIL import Image

import input_pipeline
from sgde_jax import metrics, parallel
from sgde_jax.training import log
from tests.support import runs

PROTOCOL = 'truth dense, no crop'


def _reporter(workdir, *, start_step=0, num_steps=100, **options):
  options = {'protocol': PROTOCOL} | options
  return log.Reporter(
    workdir, start_step=start_step, num_steps=num_steps, **options
  )


def _summary(abs_rel, images=26):
  values = dict.fromkeys(metrics.depth.DEPTH_ERRORS, 0.5) | {'abs_rel': abs_rel}
  return values | {'ratio': 31.25, 'ratio_std': 0.125, 'images': images}


def _entries(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture
def clock(monkeypatch):
  """A clock that moves only when told to: `clock.now += seconds`."""
  fake = types.SimpleNamespace(now=1000.0)
  fake.monotonic = lambda: fake.now
  monkeypatch.setattr(log, 'time', fake)
  return fake


def test_entries_hold_scalars_and_speed(tmp_path, clock, caplog):
  caplog.set_level('INFO')
  reporter = _reporter(tmp_path / 'new' / 'run', start_step=10, num_steps=50)
  clock.now += 6

  def read():
    clock.now += 2
    yield 'batch'

  assert reporter.wait_for_data(read()) == 'batch'
  reporter.training(14, {'loss': np.float32(0.25)}, batch_size=3)
  clock.now += 1
  reporter.training(16, {'loss': 0.125}, batch_size=3)
  first, second = _entries(tmp_path / 'new' / 'run')
  assert first == {
    'step': 14,
    'train/loss': 0.25,
    'train/ms_per_step': 2000,
    'train/images_per_second': 1.5,
    'train/data_share': 0.25,
  }
  assert second['train/ms_per_step'] == 500
  assert second['train/data_share'] == 0
  progress, _ = (m for m in caplog.messages if m.startswith('step'))
  assert progress.startswith('step 14/50  loss 0.2500')
  assert progress.endswith('ETA 1m12s')  # 36 steps of 2 s.


def test_a_constant_disparity_is_told_once(tmp_path, caplog):
  reporter = _reporter(tmp_path)
  for step, spread in ((10, 0.03), (20, 2e-4), (30, 0.0)):
    scalars = {'loss': 1.0, 'disparity_spread': spread}
    reporter.training(step, scalars, batch_size=1)
  (warning,) = (r for r in caplog.records if r.levelname == 'WARNING')
  assert warning.message.startswith('step 20: the disparity is constant')
  assert 'config.seed' in warning.message


def test_evaluations_and_previews_do_not_count_as_training(
  tmp_path, clock, monkeypatch
):
  reporter = _reporter(tmp_path)
  clock.now += 30
  reporter.evaluation(0, _summary(0.5))
  clock.now += 4
  reporter.training(2, {'loss': 1.0}, batch_size=1)
  monkeypatch.setattr(log.visualization, 'write_png', lambda *_: None)
  clock.now += 60
  reporter.previews(2, _pictures()[0])
  clock.now += 5
  reporter.training(3, {'loss': 1.0}, batch_size=1)
  clock.now += 7
  reporter.restart_clock()  # As after a checkpoint.
  clock.now += 3
  reporter.training(4, {'loss': 1.0}, batch_size=1)
  _, *entries = _entries(tmp_path)
  rates = [entry['train/ms_per_step'] for entry in entries]
  assert rates == [2000, 5000, 3000]


def test_profile_holds_ten_whole_steps(tmp_path, monkeypatch):
  calls = []
  for name in ('start_trace', 'stop_trace'):
    monkeypatch.setattr(
      jax.profiler, name, lambda *_, name=name: calls.append(name)
    )
  monkeypatch.setattr(jax, 'block_until_ready', calls.append)
  for enabled in (False, True):
    reporter = _reporter(tmp_path)
    for count in range(1, 31):
      reporter.profile(count, f'after {count - 1}', enabled=enabled)
    reporter.close()
    assert bool(calls) == enabled
  assert calls == ['after 9', 'start_trace', 'after 19', 'stop_trace']


def test_entries_after_the_restored_step_are_dropped(tmp_path):
  reporter = _reporter(tmp_path)
  for step in (10, 20, 30):
    reporter.training(step, {'loss': 1.0}, batch_size=1)
    reporter.evaluation(step, _summary(1 / step))
  resumed = _reporter(tmp_path, start_step=20)
  assert [entry['step'] for entry in _entries(tmp_path)] == [10, 10, 20, 20]
  assert sorted(resumed.evaluations) == [10, 20]
  assert resumed.evaluations[20] == _summary(0.05)
  resumed.training(21, {'loss': 1.0}, batch_size=1)
  assert [entry['step'] for entry in _entries(tmp_path)][-2:] == [20, 21]


def test_a_start_from_nothing_keeps_nothing(tmp_path):
  _reporter(tmp_path).evaluation(0, _summary(0.5))  # Killed soon after.
  again = _reporter(tmp_path)
  assert again.evaluations == {}
  assert _entries(tmp_path) == []


def test_evaluations_of_another_protocol_are_left_out(tmp_path, capsys, caplog):
  _reporter(tmp_path).evaluation(10, _summary(0.5))
  other = _reporter(tmp_path, start_step=10, protocol='truth dense, garg crop')
  assert other.evaluations == {}  # So step 10 is measured anew.
  assert 'left out of the table: 1; the best checkpoint may' in caplog.text
  other.evaluation(10, _summary(0.25))
  other.close()
  table = capsys.readouterr().out
  assert table.splitlines()[1].split()[:3] == ['step', '10', '0.2500']
  assert 'garg crop' in table and PROTOCOL not in table
  caplog.clear()
  again = _reporter(tmp_path, start_step=10)  # Nothing of either is lost.
  assert again.evaluations == {10: _summary(0.5)}
  assert len(_entries(tmp_path)) == 2


def test_a_step_that_is_not_finite_names_its_examples():
  config = runs.make_config('unused', batch_size=4)
  data = mock.create_autospec(input_pipeline.Data, instance=True)
  data.describe_step.return_value = 'its examples are 1, 2'
  checkpoints = types.SimpleNamespace(close=list, latest_step=lambda: 4)
  message = log.explain_loss(config, data, checkpoints, 6)
  data.describe_step.assert_called_once_with(6, seed=0, batch_size=4)
  assert message.startswith('its examples are 1, 2; last good checkpoint: ')


def test_a_torn_last_line_is_survived(tmp_path):
  _reporter(tmp_path).evaluation(10, _summary(0.5))
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 12, "train/lo')  # Killed while writing.
  reporter = _reporter(tmp_path, start_step=15)
  reporter.training(16, {'loss': 1.0}, batch_size=1)
  assert [entry['step'] for entry in _entries(tmp_path)] == [10, 16]
  assert list(reporter.evaluations) == [10]


def test_a_torn_only_line_does_not_swallow_the_next(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 12, "train/lo')
  _reporter(tmp_path).training(1, {'loss': 1.0}, batch_size=1)
  assert [entry['step'] for entry in _entries(tmp_path)] == [1]


def test_other_processes_know_the_evaluations_but_write_nothing(
  tmp_path, monkeypatch
):
  # Else they would evaluate, all together, what the first one skips.
  _reporter(tmp_path).evaluation(10, _summary(0.5))
  before = (tmp_path / 'metrics.jsonl').read_bytes()
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  reporter = _reporter(tmp_path, start_step=10)
  assert list(reporter.evaluations) == [10]
  reporter.training(11, {'loss': 1.0}, batch_size=1)
  reporter.evaluation(11, _summary(0.25))
  reporter.previews(11, _pictures()[0])
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ['metrics.jsonl']


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0.4, '0s'),
    (59.4, '59s'),
    (59.6, '1m00s'),
    (245, '4m05s'),
    (3599.7, '1h00m'),
    (7380, '2h03m'),
    (360_000, '100h00m'),
  ],
)
def test_format_duration(seconds, text):
  assert log.format_duration(seconds) == text


def test_close_prints_every_evaluation_side_by_side(tmp_path, capsys):
  reporter = _reporter(tmp_path)
  reporter.evaluation(0, _summary(0.5))
  reporter.evaluation(1000, _summary(0.125))
  # The second half of the run, in a new process.
  resumed = _reporter(tmp_path, start_step=1000)
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
  _reporter(tmp_path).previews(40, on_mesh)
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


def test_tensorboard_gets_the_same(tmp_path):
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

  reporter = _reporter(tmp_path, tensorboard=Writer())
  reporter.evaluation(5, _summary(0.5))
  (entry,) = _entries(tmp_path)
  assert entry.pop('protocol') == PROTOCOL
  assert written == [
    (entry.pop('step'), entry),
    'flushed',
  ]
  reporter.previews(5, _pictures()[0])
  (name,) = written[2][1]
  assert name == 'train/example_0' and written[2][1][name][0] == 1
  reporter.close()
  assert written[-1] == 'closed'


def test_lines_that_are_no_entry_are_left_out(tmp_path):
  lines = [b'{"step": 1, "loss": 2.0}', b'\xc3\x28', b'5', b'null', b'{"st']
  (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join(lines))
  assert log.read_entries(tmp_path) == [{'step': 1, 'loss': 2.0}]
