"""Progress bars and reading ahead in threads."""

import threading
import time

import pytest

from input_pipeline import progress


def test_results_are_in_order():
  def slow_first(number):
    time.sleep(0.02 * (number % 3 == 0))
    return number

  assert list(progress.in_order(slow_first, range(50))) == list(range(50))
  assert list(progress.in_order(slow_first, ())) == []


def test_number_of_waiting_results_is_bounded():
  started = []

  def start(number):
    started.append(number)
    return number

  for number in progress.in_order(start, range(10 * progress.AHEAD)):
    assert len(started) <= number + progress.AHEAD
  assert len(started) == 10 * progress.AHEAD


def test_errors_are_raised_in_order_and_leave_no_threads():
  def fail_at_ten(number):
    if number == 10:
      raise ValueError('frame 10')
    return number

  before, got = threading.active_count(), []
  with pytest.raises(ValueError, match='frame 10'):
    for result in progress.in_order(fail_at_ten, range(1000)):
      got.append(result)
  assert got == list(range(10))
  assert threading.active_count() == before


def test_abandoned_generator_ends_its_threads():
  before = threading.active_count()
  results = progress.in_order(str, range(1000))
  next(results)
  results.close()
  assert threading.active_count() == before


@pytest.fixture(name='clock')
def fixture_clock(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def test_file_gets_a_line_after_5_seconds_then_every_30(clock, capsys):
  for _ in progress.bar(range(100), 'reading masks'):
    clock[0] += 1
  lines = capsys.readouterr().err.splitlines()
  assert all(line.startswith('reading masks: ') for line in lines)
  assert [line.split('| ')[1].split()[0] for line in lines] == [
    f'{done}/100' for done in (5, 35, 65, 95)
  ]
  assert '\r' not in ''.join(lines)


def test_short_work_shows_nothing(clock, capsys):
  assert list(progress.bar(iter('ab'), 'work', 2)) == ['a', 'b']
  assert capsys.readouterr().err == ''
