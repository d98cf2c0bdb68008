"""Reading ahead in threads."""

import threading
import time

import pytest

from input_pipeline import threads


def test_results_come_in_order_however_long_each_takes():
  def slow_first(number):
    time.sleep(0.02 * (number % 3 == 0))
    return number

  assert list(threads.in_order(slow_first, 50)) == list(range(50))
  assert list(threads.in_order(slow_first, 0)) == []


def test_only_so_many_results_wait():
  started = []

  def start(number):
    started.append(number)
    return number

  for number in threads.in_order(start, 10 * threads.AHEAD):
    assert len(started) <= number + threads.AHEAD
  assert len(started) == 10 * threads.AHEAD


def test_an_error_comes_in_its_turn_and_nothing_stays_behind():
  def fail_at_ten(number):
    if number == 10:
      raise ValueError('frame 10')
    return number

  before, got = threading.active_count(), []
  with pytest.raises(ValueError, match='frame 10'):
    for result in threads.in_order(fail_at_ten, 1000):
      got.append(result)
  assert got == list(range(10))
  assert threading.active_count() == before


def test_a_generator_that_is_left_ends_its_threads():
  before = threading.active_count()
  results = threads.in_order(str, 1000)
  next(results)
  results.close()
  assert threading.active_count() == before
