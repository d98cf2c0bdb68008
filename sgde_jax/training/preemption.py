"""SIGTERM and Ctrl-C: training ends after a whole step, which is saved."""

import logging
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils


class Signals:
  """A context in which a loop is asked to end instead of being broken off.

  The first SIGTERM or Ctrl-C that comes while the loop runs is noted. Before
  the loop, and a second time, they act as they did outside of the context. If
  what they raise is lost, as within callbacks of Python's garbage collection,
  of which compiling has many, the loop ends after its first step.

  In a job of several processes SIGTERM to any of them, also before the loop,
  ends all after the same step: JAX notes it (`jax.distributed.initialize`) and
  tells the others. Ctrl-C acts at once there.
  """

  def __init__(self):
    self._before = {}
    self._looping = False
    self._noted = None

  def __enter__(self):
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() == 1:
      for number in (signal.SIGINT, signal.SIGTERM):
        # Ignored in `command &`; None is a handler that is not Python's.
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
          self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def end_after(self, step):
    """Whether the loop is to save this step and to `end`; ask at every step."""
    first, self._looping = not self._looping, True
    if jax.process_count() == 1:
      return self._noted is not None
    reached = multihost_utils.reached_preemption_sync_point
    # Signals before the loop ask for an end at step 1, wherever it starts.
    return (first and step > 1 and reached(1)) or reached(step)

  def end(self, step):
    """Ends the loop as the signal would have done.

    Args:
      step: the step that was saved.

    Raises:
      KeyboardInterrupt: it was Ctrl-C.
      SystemExit: it was SIGTERM; the exit status is the usual 143.
    """
    logging.info('ended after step %d; the same command goes on from it', step)
    if self._noted == signal.SIGINT:
      raise KeyboardInterrupt
    sys.exit(128 + signal.SIGTERM)

  def _note(self, number, frame):
    del frame
    first, self._noted = self._noted is None, self._noted or number
    if self._looping and first:
      logging.info(
        '%s: training ends after this step; a second one ends it at once',
        signal.Signals(number).name,
      )
      return
    signal.signal(number, self._before[number])
    signal.raise_signal(number)
