"""What commands that make a folder share: it appears whole, with progress."""

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import time

_SHOWN_EVERY = 0.5  # seconds


@contextlib.contextmanager
def appearing_whole(output):
  """Makes a folder that appears whole or not at all.

  Args:
    output: absolute `pathlib.Path`; absent or an empty folder.

  Yields:
    A new folder beside it, which becomes `output` if nothing is raised.

  Raises:
    OSError: it cannot be made, or `output` was filled meanwhile.
  """
  output.parent.mkdir(parents=True, exist_ok=True)
  root = pathlib.Path(tempfile.mkdtemp(
    prefix=f'.{output.name}.', suffix='.partial', dir=output.parent))
  try:
    yield root
    root.chmod(0o755)
    os.replace(root, output)
  finally:
    shutil.rmtree(root, ignore_errors=True)


class Progress:
  """One line on stderr that overwrites itself; none where all went quickly."""

  def __init__(self, what, total):
    """Starts the clock.

    Args:
      what: the line's first word.
      total: frames to come.
    """
    self._what, self._total, self._done = what, total, 0
    self._start = self._shown = time.monotonic()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._shown > self._start:
      self._show()
      sys.stderr.write('\n')

  def add(self, frames):
    """Counts frames that are done."""
    self._done += frames
    now = time.monotonic()
    if now - self._shown > _SHOWN_EVERY:
      self._shown = now
      self._show()

  def _show(self):
    rate = self._done / max(time.monotonic() - self._start, 1e-6)
    left = (self._total - self._done) / max(rate, 1e-6)
    sys.stderr.write(
      f'\r{self._what}: {self._done}/{self._total} frames, {rate:.1f} '
      f'frames/s, {left:.0f} s left ')
    sys.stderr.flush()
