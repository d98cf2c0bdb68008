"""Signals: noted while a loop runs, and as ever before it and a second time."""

import signal

import pytest

from sgde_jax import interruption

SIGNALS = pytest.mark.parametrize(
  ('number', 'error'),
  [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)],
)


@pytest.fixture(name='before', autouse=True)
def fixture_before():
  """Lets SIGTERM raise, as main.py does; checks that it is put back."""

  def end(number, frame):
    del frame
    raise SystemExit(128 + number)

  old = signal.signal(signal.SIGTERM, end)
  before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  yield
  assert before == [
    signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)
  ]
  signal.signal(signal.SIGTERM, old)


@SIGNALS
def test_a_loop_ends_after_its_step(number, error):
  with pytest.raises(error) as ended, interruption.Signals() as signals:
    assert not signals.end_after(1)
    signal.raise_signal(number)
    assert signals.end_after(2)
    signals.end(2)
  if number == signal.SIGTERM:
    assert ended.value.code == 143


@SIGNALS
def test_before_the_loop_it_acts_at_once(number, error):
  with pytest.raises(error), interruption.Signals():
    signal.raise_signal(number)
    pytest.fail('went on')


@SIGNALS
def test_the_second_acts_at_once(number, error):
  with pytest.raises(error), interruption.Signals() as signals:
    assert not signals.end_after(1)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(number)
    pytest.fail('went on')
