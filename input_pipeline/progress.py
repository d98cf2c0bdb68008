"""Progress of long work, on stderr."""

import sys
import time

_SHOWN_EVERY = 0.5  # seconds


class Progress:
  """One line on stderr that overwrites itself; none where all went quickly."""

  def __init__(self, what, total):
    """Starts the clock.

    Args:
      what: the line's first words.
      total: items to come.
    """
    self._what, self._total, self._done = what, total, 0
    self._start = self._shown = time.monotonic()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._shown > self._start:
      self._show()
      sys.stderr.write('\n')

  def add(self, items):
    """Counts items that are done."""
    self._done += items
    now = time.monotonic()
    if now - self._shown > _SHOWN_EVERY:
      self._shown = now
      self._show()

  def _show(self):
    rate = self._done / max(time.monotonic() - self._start, 1e-6)
    left = (self._total - self._done) / max(rate, 1e-6)
    sys.stderr.write(
      f'\r{self._what}: {self._done}/{self._total}, {rate:.1f} a second, '
      f'{left:.0f} s left '
    )
    sys.stderr.flush()
