"""What the commands share: paths that a person gives, counts, how they end."""

import argparse
import contextlib
import os
import signal
import sys
import threading


def refuse_url(name, path):
  """Refuses a path of cloud storage, which these readers cannot open.

  Args:
    name: what to call it in the message.
    path: the path.

  Raises:
    ValueError: it has a scheme, as in `gs://bucket`.
  """
  if '://' in str(path):
    raise ValueError(
      f'{name} is {path}: files and records are read from local '
      'or mounted disks; mount or copy cloud storage first'
    )


def local_path(text):
  """An argparse type: a path on this machine.

  Args:
    text: what was given; a `~` at its start is the home folder.

  Returns:
    The path.

  Raises:
    argparse.ArgumentTypeError: it has a scheme, as in `gs://bucket`.
  """
  try:
    refuse_url('the path', text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(error) from None
  return os.path.expanduser(text)


def count_of(count, what):
  """Says `1 frame`, `2 frames`."""
  return f'{count} {what}' + ('' if count == 1 else 's')


def list_first(problems, most=10):
  """Lists the first of some problems, a line each, and how many more."""
  lines = list(problems[:most])
  if len(problems) > most:
    lines.append(f'(+{len(problems) - most} more)')
  return ''.join(f'\n  {line}' for line in lines)


@contextlib.contextmanager
def ending_in_one_message(errors=(OSError, ValueError)):
  """Ends a command in one message, and cleans up before it ends.

  Args:
    errors: what a person can put right.

  Raises:
    SystemExit: one of these was raised, or Ctrl-C ended it.
  """
  try:
    with cleaning_up_when_terminated():
      yield
  except errors as error:
    sys.exit(f'{type(error).__name__}: {error}')
  except KeyboardInterrupt:
    sys.exit('interrupted')


@contextlib.contextmanager
def cleaning_up_when_terminated():
  """Lets SIGTERM, which ends a job at its time limit, unwind as Ctrl-C does.

  Outside of the main thread, which alone can say so, it changes nothing.
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
