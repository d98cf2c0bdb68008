"""A workdir that one job claims."""

import contextlib
import fcntl
import logging
import os
import pathlib

import jax

from input_pipeline import files


@contextlib.contextmanager
def claimed(workdir):
  """A context in which no other job can claim the same folder.

  Process 0 claims it for its job. Disks that know no locks let every job in.

  Args:
    workdir: the folder; made if it is missing, and removed if nothing is in it.

  Raises:
    ValueError: another job holds it, or it cannot be written to.
  """
  if jax.process_index() != 0:
    yield
    return
  files.check_writable(workdir)
  path = pathlib.Path(workdir)
  path.mkdir(parents=True, exist_ok=True)
  folder = os.open(path, os.O_RDONLY)
  try:
    _lock(folder, workdir)
    try:
      yield
    finally:
      with contextlib.suppress(OSError):
        path.rmdir()
  finally:
    os.close(folder)


def _lock(folder, workdir):
  try:
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise ValueError(
      f'--workdir={workdir}: another process trains there; wait for its end,'
      ' or name another folder'
    ) from error
  except OSError as error:
    logging.info('%s cannot be locked: %s', workdir, error)
