"""Argument types and error reports that the commands share."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from input_pipeline import files


def local_path(text: str) -> str:
  """An argparse type: a path on this machine, with `~` expanded."""
  try:
    files.check_local(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(error) from None
  return os.path.expanduser(text)


def words(text: str) -> list[str]:
  """An argparse type: comma-separated words."""
  return [word.strip() for word in text.split(',')]


def whole_numbers(text: str) -> tuple[int, ...]:
  """An argparse type: comma-separated whole numbers."""
  return tuple(map(int, text.split(',')))


class _Stream:
  """Standard output or error that no text and no closed pipe can break.

  Work of hours must not end because `| head` has read enough.
  """

  def __init__(self, stream):
    self._stream = stream
    # Names of files may hold bytes that the terminal's encoding lacks.
    stream.reconfigure(errors='backslashreplace')

  def __getattr__(self, name):
    return getattr(self._stream, name)

  def write(self, text):
    with self._unbreakable():
      return self._stream.write(text)
    return len(text)

  def flush(self):
    with self._unbreakable():
      self._stream.flush()

  @contextlib.contextmanager
  def _unbreakable(self):
    try:
      yield
    except BrokenPipeError:  # Nobody reads it: write what is left to nowhere.
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, self._stream.fileno())
      os.close(nowhere)


def protect_output() -> None:
  """Makes printing safe on any terminal, and where nobody reads it."""
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    if stream is None:  # Closed; otherwise the next file would get its number.
      nowhere = os.open(os.devnull, os.O_WRONLY)
      setattr(sys, name, os.fdopen(nowhere, 'w', errors='replace'))
    elif not isinstance(stream, _Stream) and hasattr(stream, 'reconfigure'):
      setattr(sys, name, _Stream(stream))


@contextlib.contextmanager
def report_errors(
  errors: tuple[type[Exception], ...] = (OSError, ValueError),
) -> Iterator[None]:
  """Turns `errors` into one line on stderr and exit status 1.

  SIGTERM and Ctrl-C also end the command without a traceback, after its
  cleanup. Use it in the main thread, the only one that can handle signals.
  """

  def end(number, _):
    print('terminated', file=sys.stderr)
    sys.exit(128 + number)

  protect_output()
  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  except errors as error:
    sys.exit(f'{type(error).__name__}: {error}')
  except KeyboardInterrupt:
    sys.exit('interrupted')
  finally:
    signal.signal(signal.SIGTERM, before)
