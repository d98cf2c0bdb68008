"""Signals: recorded while a loop runs; otherwise handled as usual."""

import signal

import pytest

from sgde_jax.training import preemption

SIGNALS = pytest.mark.parametrize(
  ('number', 'error'),
  [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)],
)


@pytest.fixture(name='handlers', autouse=True)
def fixture_handlers():
  """Lets both signals raise, as in main.py; checks that they are restored."""

  def end(number, frame):
    del frame
    raise SystemExit(128 + number)

  handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: end}
  before = {n: signal.signal(n, handler) for n, handler in handlers.items()}
  yield
  after = {n: signal.signal(n, handler) for n, handler in before.items()}
  assert after == handlers


@SIGNALS
def test_loop_stops_after_its_step(number, error):
  with pytest.raises(error) as ended, preemption.Signals() as signals:
    assert not signals.stop_after(1)
    signal.raise_signal(number)
    assert signals.stop_after(2)
    signals.stop(2)
  if number == signal.SIGTERM:
    assert ended.value.code == 143


@SIGNALS
def test_signal_before_the_loop_acts_at_once(number, error):
  with pytest.raises(error), preemption.Signals():
    signal.raise_signal(number)
    pytest.fail('went on')


@SIGNALS
def test_signal_lost_before_the_loop_stops_it(number, error):
  with pytest.raises(error), preemption.Signals() as signals:
    with pytest.raises(error):
      signal.raise_signal(number)
    assert signals.stop_after(1)
    signals.stop(1)


@SIGNALS
def test_second_signal_acts_at_once(number, error):
  with pytest.raises(error), preemption.Signals() as signals:
    assert not signals.stop_after(1)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(number)
    pytest.fail('went on')


def test_ignored_signals_stay_ignored():
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with preemption.Signals() as signals:
    assert not signals.stop_after(1)
    signal.raise_signal(signal.SIGINT)
    assert not signals.stop_after(2)
  signal.signal(signal.SIGINT, signal.default_int_handler)
