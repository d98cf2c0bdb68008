"""One job per workdir."""

import contextlib
import fcntl
import logging
import os
import pathlib
from collections.abc import Iterator

import jax

from input_pipeline import files


@contextlib.contextmanager
def claim(workdir: str | os.PathLike) -> Iterator[None]:
  """Locks a run's folder on behalf of the job, on process 0.

  The folder is created if missing, and removed again if it stays empty. On
  file systems without locks, every job is let in.

  Raises:
    ValueError: if another job holds it, or it cannot be written to.
  """
  if jax.process_index() != 0:
    yield
    return
  files.check_writable(workdir)
  path = pathlib.Path(workdir)
  path.mkdir(parents=True, exist_ok=True)
  folder = os.open(path, os.O_RDONLY)
  try:
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    os.close(folder)
    raise ValueError(
      f'another process trains in {path}; wait until it ends, or use another'
      ' --workdir'
    ) from error
  except OSError as error:
    logging.info('%s cannot be locked: %s', workdir, error)
  try:
    yield
  finally:
    with contextlib.suppress(OSError):
      path.rmdir()
    os.close(folder)
