"""Golden values of the baseline, see tests/data/README.md."""

import contextlib
import pathlib
import zlib

import jax
import numpy as np

_FOLDER = pathlib.Path(__file__).parents[1] / 'data'


def load(name):
  """Returns the arrays of `data/NAME.npz` as a dict."""
  with np.load(_FOLDER / f'{name}.npz') as data:
    return dict(data)


@contextlib.contextmanager
def precision(dtype):
  """Switches JAX to 64 bit while a float64 check runs."""
  with jax.enable_x64(dtype == 'float64'):
    yield


def weights(module, name, shape, seed):
  """Draws the tensor `name` of a published PyTorch state dict."""
  key = zlib.crc32(f'{module}.{name}'.encode())
  z = np.random.default_rng([seed, key]).standard_normal(shape)
  z = z.astype(np.float32)
  if len(shape) == 4:
    scale = np.sqrt(2 / np.prod(shape[1:]))
    return (z * scale).astype(np.float32)
  if name.endswith('running_var'):
    return (1 + 0.1 * np.abs(z)).astype(np.float32)
  if len(shape) == 2:
    return (z * np.sqrt(1 / shape[1])).astype(np.float32)
  if name.endswith('weight'):
    return (1 + 0.1 * z).astype(np.float32)
  return (0.1 * z).astype(np.float32)
