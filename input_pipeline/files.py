"""Folders and files that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def whole_folder(output):
  """Makes a folder that appears whole or not at all.

  Args:
    output: absolute `pathlib.Path`; absent, an empty folder or a link to one.

  Yields:
    A new folder beside it, which becomes `output` if nothing is raised.

  Raises:
    OSError: it cannot be made, or `output` was filled meanwhile.
    ValueError: something is mounted at `output`.
  """
  output = output.resolve()
  if os.path.ismount(output):  # Nothing can take its place.
    raise ValueError(f'{output} is a mount point: name a folder in it')
  with _partial_folder(output) as root:
    yield root
    root.chmod(0o755)
    os.replace(root, output)


@contextlib.contextmanager
def whole_files(folder, *, replaced=()):
  """Puts files into a folder once all of them are there.

  Args:
    folder: `pathlib.Path`; made where it is absent, what else it holds stays.
    replaced: files that are removed before.

  Yields:
    A new folder beside it, whose files move into `folder` if nothing is raised.

  Raises:
    OSError: it cannot be made.
  """
  folder = folder.resolve()
  with _partial_folder(folder) as partial:
    yield partial
    for path in replaced:
      path.unlink()
    folder.mkdir(exist_ok=True)
    for path in partial.iterdir():
      path.replace(folder / path.name)


@contextlib.contextmanager
def whole_file(path):
  """Writes a file that is whole or, if this is broken off, as it was.

  Args:
    path: the file; its folder is made.

  Yields:
    A `pathlib.Path` beside it, with the same suffix, which becomes `path` if
    nothing is raised.

  Raises:
    OSError: it cannot be made.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{os.getpid()}.{path.name}')
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _partial_folder(path):
  """Makes a folder beside a path and removes what is left of it at the end."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = tempfile.mkdtemp(
    prefix=f'.{path.name}.', suffix='.partial', dir=path.parent
  )
  try:
    yield pathlib.Path(partial)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
