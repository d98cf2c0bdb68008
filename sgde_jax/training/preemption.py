"""SIGTERM and Ctrl-C: training stops after a whole step, which is saved."""

import logging
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils


class Signals:
  """A context in which signals ask a loop to stop instead of interrupting it.

  The first SIGTERM or Ctrl-C during the loop is recorded. Before the loop, and
  the second time, signals act as they do outside of the context. If the
  exception that they raise is lost, as in callbacks of Python's garbage
  collection, which run often during compilation, the loop stops after its
  first step.

  In a job of several processes, SIGTERM to any of them, even before the loop,
  stops all after the same step: JAX records it (`jax.distributed.initialize`)
  and notifies the others. Ctrl-C acts at once in such jobs.
  """

  def __init__(self):
    self._before = {}
    self._looping = False
    self._received = None

  def __enter__(self):
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() == 1:
      for number in (signal.SIGINT, signal.SIGTERM):
        # Ignored in `command &`; None is a handler that is not Python's.
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
          self._before[number] = signal.signal(number, self._record)
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def stop_after(self, step: int) -> bool:
    """Returns whether training should stop after `step`. Call every step."""
    first, self._looping = not self._looping, True
    if jax.process_count() == 1:
      return self._received is not None
    reached = multihost_utils.reached_preemption_sync_point
    # Signals before the loop ask for a stop at step 1, wherever it starts.
    return (first and step > 1 and reached(1)) or reached(step)

  def stop(self, step: int) -> None:
    """Stops the loop as the signal would have done.

    Args:
      step: the step that was saved.

    Raises:
      KeyboardInterrupt: after Ctrl-C.
      SystemExit: after SIGTERM, with the usual status 143.
    """
    logging.info(
      'stopped after step %d; run the same command to continue from it', step
    )
    if self._received == signal.SIGINT:
      raise KeyboardInterrupt
    sys.exit(128 + signal.SIGTERM)

  def _record(self, number, frame):
    del frame
    first, self._received = self._received is None, self._received or number
    if self._looping and first:
      logging.info(
        '%s: training stops after this step; a second one stops it at once',
        signal.Signals(number).name,
      )
      return
    signal.signal(number, self._before[number])
    signal.raise_signal(number)
