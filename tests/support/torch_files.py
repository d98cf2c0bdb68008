"""Writes state dicts as `torch.save` does, in both formats, without PyTorch."""

import collections
import dataclasses
import io
import pickle
import struct
import sys
import types
import zipfile
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

KINDS = {
  np.dtype(np.float64): 'Double',
  np.dtype(np.float32): 'Float',
  np.dtype(np.float16): 'Half',
  np.dtype(jnp.bfloat16): 'BFloat16',
  np.dtype(np.int64): 'Long',
  np.dtype(np.int32): 'Int',
  np.dtype(np.int16): 'Short',
  np.dtype(np.int8): 'Char',
  np.dtype(np.uint8): 'Byte',
  np.dtype(np.bool_): 'Bool',
}


@dataclasses.dataclass(eq=False)
class Storage:
  """Elements in a row; `count` is what the pickle states."""

  data: np.ndarray
  count: Any
  key: str = ''


@dataclasses.dataclass
class Tensor:
  """What the pickle states of a tensor."""

  storage: Storage
  offset: Any
  shape: Any
  strides: Any
  parameter: bool = False


class Call:
  """Pickles as the call of a function."""

  def __init__(self, function, *arguments):
    self._call = function, arguments

  def __reduce__(self):
    return self._call


def storage(values, dtype=np.float32, count=None):
  """Makes a storage of the values."""
  data = np.asarray(values, dtype).reshape(-1)
  return Storage(data, len(data) if count is None else count)


def write(path, state, *, old=False, protocol=2):
  """Writes a file; arrays become tensors, all else is pickled as it is."""
  pickled, storages = _pickle(state, protocol, old)
  path.write_bytes(
    _stream(pickled, storages, protocol) if old else _archive(pickled, storages)
  )
  return path


def _pickle(state, protocol, old):
  file, storages = io.BytesIO(), []
  modules, functions = _fake_modules()

  class Pickler(pickle.Pickler):
    def persistent_id(self, value):
      if not isinstance(value, Storage):
        return None
      if value not in storages:
        value.key = str(len(storages))
        storages.append(value)
      kind = functions[f'{KINDS[value.data.dtype]}Storage']
      reference = 'storage', kind, value.key, 'cpu', value.count
      return (*reference, None) if old else reference

    def reducer_override(self, value):
      if isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value)
        strides = tuple(s // value.itemsize for s in value.strides)
        value = Tensor(storage(value, value.dtype), 0, value.shape, strides)
      if not isinstance(value, Tensor):
        return NotImplemented
      hooks = collections.OrderedDict()
      if value.parameter:
        data = dataclasses.replace(value, parameter=False)
        return functions['_rebuild_parameter'], (data, True, hooks)
      return functions['_rebuild_tensor_v2'], (
        value.storage,
        value.offset,
        value.shape,
        value.strides,
        False,
        hooks,
      )

  with mock.patch.dict(sys.modules, modules):
    Pickler(file, protocol).dump(state)
  return file.getvalue(), storages


def _fake_modules():
  """Modules with the names that PyTorch's pickles refer to."""
  names = {'_rebuild_tensor_v2': 'torch._utils'}
  names['_rebuild_parameter'] = 'torch._utils'
  names |= {f'{kind}Storage': 'torch' for kind in KINDS.values()}
  modules, functions = {}, {}
  for name, place in names.items():
    module = modules.setdefault(place, types.ModuleType(place))
    functions[name] = type(name, (), {'__module__': place})
    setattr(module, name, functions[name])
  return modules, functions


def _archive(pickled, storages):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
    archive.writestr('weights/data.pkl', pickled)
    archive.writestr('weights/byteorder', 'little')
    for each in storages:
      archive.writestr(f'weights/data/{each.key}', each.data.tobytes())
    archive.writestr('weights/version', '3\n')
  return file.getvalue()


def _stream(pickled, storages, protocol):
  system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}
  heads = [0x1950A86A20F9469CFC6C, 1001, system]
  parts = [pickle.dumps(head, protocol) for head in heads]
  keys = pickle.dumps([each.key for each in storages], protocol)
  parts += [pickled, keys]
  for each in storages:
    parts += [struct.pack('<q', each.data.size), each.data.tobytes()]
  return b''.join(parts)
