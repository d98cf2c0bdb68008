"""Files of weights: `.safetensors`, `.npz` and PyTorch's `.pth`."""

import os
import pathlib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from sgde_jax.weights import torch_files


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a state dict: names and their tensors, in the file's own layout.

  Numbers become arrays without axes, and bfloat16, which NumPy lacks, becomes
  float32. No code of the file runs.

  Raises:
    OSError: if the file cannot be opened.
    ValueError: if its name has none of the `SUFFIXES`, it is damaged, or it
      holds anything but tensors and numbers.
  """
  path = pathlib.Path(path)
  if path.suffix not in SUFFIXES:
    raise ValueError(f'{path}: weights are read from {", ".join(SUFFIXES)}')
  with open(path, 'rb'):  # Errors from here on are those of the content.
    pass
  try:
    state = _READERS[path.suffix](path)
    return {name: _to_array(name, value) for name, value in state.items()}
  except Exception as error:  # A damaged file fails in many ways.
    cause = error if isinstance(error, ValueError) else repr(error)
    raise ValueError(f'weights {path} cannot be read: {cause}') from error


def write_safetensors(
  path: str | os.PathLike, state: Mapping[str, np.ndarray]
) -> None:
  """Writes a state dict as a `.safetensors` file."""
  state = {name: np.asarray(value, order='C') for name, value in state.items()}
  # The library's own files are readable by their owner alone.
  pathlib.Path(path).write_bytes(safetensors.numpy.save(state))


def _read_npz(path):
  # NumPy leaves a damaged file open that it has opened itself.
  with open(path, 'rb') as file, np.load(file) as data:
    return dict(data)


def _read_torch(path):
  return torch_files.parse(path.read_bytes())


_READERS = {
  '.safetensors': safetensors.numpy.load_file,
  '.npz': _read_npz,
  '.pth': _read_torch,
  '.pt': _read_torch,
  '.bin': _read_torch,  # The hub's usual name for PyTorch's files.
}
SUFFIXES = tuple(_READERS)


def _to_array(name, value):
  if isinstance(value, np.ndarray | int | float):
    array = np.asarray(value)
    if array.dtype == jnp.bfloat16:
      return array.astype(np.float32)
    if array.dtype.kind in 'biuf':
      return array
  kind = type(value).__name__
  raise ValueError(f'its entry {name} is of type {kind}, which is no tensor')
