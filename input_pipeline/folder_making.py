"""A folder that appears whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def appearing_whole(output):
  """Makes a folder that appears whole or not at all.

  Args:
    output: absolute `pathlib.Path`; absent or an empty folder.

  Yields:
    A new folder beside it, which becomes `output` if nothing is raised.

  Raises:
    OSError: it cannot be made, or `output` was filled meanwhile.
  """
  output.parent.mkdir(parents=True, exist_ok=True)
  root = pathlib.Path(tempfile.mkdtemp(
    prefix=f'.{output.name}.', suffix='.partial', dir=output.parent))
  try:
    yield root
    root.chmod(0o755)
    os.replace(root, output)
  finally:
    shutil.rmtree(root, ignore_errors=True)
