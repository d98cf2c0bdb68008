"""Files and folders that appear whole or not at all, and checks of paths."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Path = str | os.PathLike[str]


@contextlib.contextmanager
def whole_folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
  """Makes a folder that appears whole or not at all.

  Yields a new folder next to `output`, which becomes `output` if nothing is
  raised. `output` must be absent, an empty folder or a link to one.
  """
  output = output.resolve()
  if os.path.ismount(output):  # Nothing can replace it.
    raise ValueError(f'{output} is a mount point: name a folder in it')
  with _partial_folder(output) as root:
    yield root
    root.chmod(0o755)
    os.replace(root, output)


@contextlib.contextmanager
def whole_files(
  folder: pathlib.Path, *, replaced: Iterable[pathlib.Path] = ()
) -> Iterator[pathlib.Path]:
  """Adds files to a folder, made if absent, once all of them are complete.

  Yields a new folder next to it, whose files move into `folder` if nothing is
  raised. The `replaced` files are removed just before; others stay.
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
def whole_file(path: Path) -> Iterator[pathlib.Path]:
  """Writes a file whole, or leaves it as it was. Makes its folder.

  Yields a path next to it, with the same suffix, which becomes `path` if
  nothing is raised.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # A digest, because a prefix could make a long name too long for the disk.
  digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
  partial = path.with_name(f'.{os.getpid()}.{digest}{path.suffix}')
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
  """Writes a file as `whole_file` does."""
  with whole_file(path) as partial:
    partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
  """Writes a UTF-8 file as `whole_file` does.

  Names of files that are not UTF-8 keep their bytes.
  """
  write_bytes(path, text.encode('utf-8', 'surrogateescape'))


def write_json(path: Path, value: Any) -> None:
  """Writes an indented JSON file as `whole_file` does."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def list_stems(folder: Path, endings: Sequence[str]) -> dict[str, str]:
  """Maps the files of a folder, without their endings, to their paths.

  Sorted; empty if there is no such folder. The endings match in upper and lower
  case, and the first ones are preferred. Hidden files are left out.
  """
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  found = {}
  for ending in reversed(endings):
    for name in names:
      if name.lower().endswith(ending.lower()) and not name.startswith('.'):
        found[name[: -len(ending)]] = os.path.join(folder, name)
  return dict(sorted(found.items()))


def check_local(path: Path) -> None:
  """Raises ValueError if a path is a URL, as in `gs://bucket`."""
  if '://' in str(path):
    raise ValueError(
      f'{path} is a URL: only local or mounted disks are supported; mount or '
      'copy cloud storage first'
    )


def check_writable(path: Path) -> None:
  """Raises ValueError if a folder cannot be made or written to.

  The folder need not exist, and the check leaves nothing behind.
  """
  check_local(path)
  path = pathlib.Path(path).absolute()
  existing = next(part for part in (path, *path.parents) if part.exists())
  try:
    with tempfile.TemporaryFile(dir=existing):
      pass
  except OSError as error:
    raise ValueError(
      f'{path} cannot be written to: {existing}: {error.strerror}; name '
      'another folder'
    ) from error


def count_of(count: int, what: str) -> str:
  """Formats `1 frame`, `2 frames`."""
  return f'{count} {what}' + ('' if count == 1 else 's')


def list_first(items: Sequence[str], most: int = 10) -> str:
  """Formats the first items, one per line, and how many more there are."""
  lines = list(items[:most])
  if len(items) > most:
    lines.append(f'(+{len(items) - most} more)')
  return ''.join(f'\n  {line}' for line in lines)


@contextlib.contextmanager
def _partial_folder(path):
  """Makes a folder next to a path; removes any rest of it at the end."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = tempfile.mkdtemp(prefix='.', suffix='.partial', dir=path.parent)
  try:
    yield pathlib.Path(partial)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
