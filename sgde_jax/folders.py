"""Folders to write to, refused before any work where they cannot be."""

import pathlib
import tempfile


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
