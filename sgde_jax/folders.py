"""Folders to write to, refused before any work where they cannot be."""

import contextlib
import fcntl
import logging
import os
import pathlib
import tempfile

import jax


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
  refuse_unwritable('--workdir', workdir)
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


def refuse_file(flag, path):
  """Refuses a folder to write to that is, or lies below, a file.

  Args:
    flag: the name of the flag that gave it.
    path: where the folder is, or will be made.

  Raises:
    ValueError: there is a file, or it is a URL.
  """
  if '://' in str(path):
    raise ValueError(f'{flag}={path}: pass a folder; mount cloud storage first')
  path = pathlib.Path(path)
  for part in (path, *path.parents):
    if part.exists() and not part.is_dir():
      raise ValueError(f'{flag}={path}: {part} is a file; name a folder')


def refuse_unwritable(flag, path):
  """Refuses a folder to write to that cannot be made or written to.

  Args:
    flag: the name of the flag that gave it.
    path: where the folder is, or will be made; nothing is left there.

  Raises:
    ValueError: it is a file or lies below one, or cannot be written to.
  """
  refuse_file(flag, path)
  path = pathlib.Path(path).absolute()
  there = next(part for part in (path, *path.parents) if part.exists())
  try:
    with tempfile.TemporaryFile(dir=there):
      pass
  except OSError as error:
    raise ValueError(
      f'{flag}={path}: {there} cannot be written to ({error.strerror}); name'
      ' another folder'
    ) from error
