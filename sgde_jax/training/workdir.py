"""A workdir that only one job trains in."""

import contextlib
import fcntl
import logging
import os
import pathlib
from collections.abc import Iterator

import jax

from input_pipeline import files


@contextlib.contextmanager
def claimed(workdir: str | os.PathLike) -> Iterator[None]:
  """A context in which no other job can claim the same workdir.

  Process 0 claims it for its job. On disks without locks nothing is claimed.

  Args:
    workdir: the folder; created if missing, removed if it stays empty.

  Raises:
    ValueError: if another job trains there, or it cannot be written to.
  """
  if jax.process_index() != 0:
    yield
    return
  files.check_writable(workdir)
  path = pathlib.Path(workdir)
  path.mkdir(parents=True, exist_ok=True)
  folder = os.open(path, os.O_RDONLY)
  try:
    _lock(folder, path)
    try:
      yield
    finally:
      with contextlib.suppress(OSError):
        path.rmdir()
  finally:
    os.close(folder)


def _lock(folder, path):
  try:
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise ValueError(
      f'another process trains in {path}; wait for its end, or use another'
      ' --workdir'
    ) from error
  except OSError as error:
    logging.info('%s cannot be locked: %s', path, error)
