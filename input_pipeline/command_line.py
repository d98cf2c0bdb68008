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

  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  except errors as error:
    sys.exit(f'{type(error).__name__}: {error}')
  except KeyboardInterrupt:
    sys.exit('interrupted')
  finally:
    signal.signal(signal.SIGTERM, before)
