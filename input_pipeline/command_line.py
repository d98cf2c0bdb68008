"""What the commands of `python -m input_pipeline...` share."""

import argparse
import os
import signal
import sys


def local_path(text):
  """An argparse type: a path on this machine.

  Args:
    text: what was given; a `~` at its start is the home folder.

  Returns:
    The path.

  Raises:
    argparse.ArgumentTypeError: it has a scheme, as in `gs://bucket`.
  """
  if '://' in text:
    raise argparse.ArgumentTypeError(
      f'{text}: files are read and written on local or mounted disks; mount '
      'cloud storage, or copy first')
  return os.path.expanduser(text)


def clean_up_when_terminated():
  """Lets SIGTERM, which ends a job at its time limit, unwind as Ctrl-C does."""
  signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
