"""Several processes: they stop together, and none continues with other data."""

import re
import signal

import pytest

from tests.support import runs


def _start(what):
  """Starts a job of two processes."""
  address = runs.free_address()
  return [
    runs.start(what, address, 2, number, script=('-m', 'tests.support.in_job'))
    for number in range(2)
  ]


@pytest.mark.slow
@pytest.mark.parametrize(('what', 'after'), [('loop', 5), ('resume', 1000)])
def test_signal_to_one_process_stops_all_after_the_same_step(what, after):
  processes = _start(what)
  for process in processes:
    assert process.stdout.readline() == 'ready\n'
  processes[1].terminate()
  steps = [runs.finish(process, fails=True)[0] for process in processes]
  assert steps[0] == steps[1]
  assert int(steps[0]) > after
  codes = [process.returncode for process in processes]
  assert codes == [128 + signal.SIGTERM] * 2


@pytest.mark.parametrize(
  ('what', 'messages'),
  [
    (
      'fail',
      [
        'ConnectionError: process 1 of this job failed: see its message',
        'ValueError: no such file',
      ],
    ),
    ('differ', ['ValueError: .* have different seeds: give each'] * 2),
  ],
)
def test_failure_of_one_process_stops_all(what, messages):
  outputs = [runs.finish(process)[0] for process in _start(what)]
  for output, message in zip(outputs, messages, strict=True):
    assert re.match(message, output.splitlines()[-1]), output


@pytest.mark.slow
def test_command_with_a_wrong_path_in_one_process(root, tmp_path):
  job = ['--distributed', f'--coordinator_address={runs.free_address()}']
  job += ['--num_processes=2', f'--workdir={tmp_path}/run']
  processes = [
    runs.start(*job, *runs.make_flags(path), f'--process_id={number}')
    for number, path in enumerate([root, '/nowhere'])
  ]
  first, second = [runs.finish(process, fails=True)[1] for process in processes]
  assert 'process 0: sgde-jax: error: process 1 of this job failed' in first
  assert 'process 1: sgde-jax: error: there is no folder' in second
  assert 'Traceback' not in first + second
  assert not (tmp_path / 'run').exists()
