"""How the commands take paths and how they end."""

import argparse
import contextlib
import os
import signal
import sys
import threading
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
  """An argparse type: words with commas between."""
  return [word.strip() for word in text.split(',')]


def whole_numbers(text: str) -> tuple[int, ...]:
  """An argparse type: whole numbers with commas between."""
  return tuple(map(int, text.split(',')))


@contextlib.contextmanager
def report_errors(
  errors: tuple[type[Exception], ...] = (OSError, ValueError),
) -> Iterator[None]:
  """Turns these errors into one line on stderr and exit status 1.

  SIGTERM and Ctrl-C end the command the same way, after its cleanup.
  """
  try:
    with exit_on_sigterm():
      yield
  except errors as error:
    sys.exit(f'{type(error).__name__}: {error}')
  except KeyboardInterrupt:
    sys.exit('interrupted')


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
  """Turns SIGTERM into SystemExit, so that the command cleans up.

  Does nothing outside the main thread, where Python allows no handler.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def end(number, frame):
    del frame
    print('terminated', file=sys.stderr)
    sys.exit(128 + number)

  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
