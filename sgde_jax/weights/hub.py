"""Weights of the Hugging Face hub, `hf://OWNER/REPO[/FILE]`."""

import os
import pathlib
from collections.abc import Sequence

from input_pipeline import files

_SCHEME = 'hf://'


def fetch(source: str | os.PathLike, names: Sequence[str]) -> pathlib.Path:
  """Returns the local path of weights, after downloading those of the hub.

  Args:
    source: a local path, which is returned; `hf://OWNER/REPO` for a folder with
      those files of the repository that are among the `names`; or
      `hf://OWNER/REPO/FILE` for the file, with a `config.json` next to it.
    names: names of files. What was downloaded before is not again.

  Raises:
    ValueError: if `source` is another URL, or huggingface_hub is not installed.
    OSError: if it cannot be downloaded.
  """
  if not str(source).startswith(_SCHEME):
    files.check_local(source)
    return pathlib.Path(source).expanduser()
  owner, _, rest = str(source).removeprefix(_SCHEME).partition('/')
  name, _, file = rest.partition('/')
  try:
    import huggingface_hub
  except ImportError as error:
    raise ValueError(
      f'{source} needs huggingface_hub: pip install huggingface_hub, or'
      ' download the files and name their folder'
    ) from error
  if file:
    names = [file, f'{file.rpartition("/")[0]}/config.json'.lstrip('/')]
  try:
    folder = huggingface_hub.snapshot_download(
      f'{owner}/{name}', allow_patterns=list(names)
    )
  except Exception as error:  # Of many types, also those of its HTTP library.
    cause = ' '.join(str(error).split())
    raise OSError(f'{source} cannot be downloaded: {cause}') from error
  path = pathlib.Path(folder, file)
  if not path.exists():
    raise FileNotFoundError(f'{source}: the repository has no file {file}')
  return path
