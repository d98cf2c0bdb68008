"""PyTorch's files of tensors (`.pth`), read without PyTorch.

Such a file holds a pickle, which can call any function. Here it is interpreted:
its operations build plain values and tensors, and no code of the file runs.
"""

import dataclasses
import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

_DTYPES = {
  'torch.DoubleStorage': np.float64,
  'torch.FloatStorage': np.float32,
  'torch.HalfStorage': np.float16,
  'torch.BFloat16Storage': jnp.bfloat16,
  'torch.LongStorage': np.int64,
  'torch.IntStorage': np.int32,
  'torch.ShortStorage': np.int16,
  'torch.CharStorage': np.int8,
  'torch.ByteStorage': np.uint8,
  'torch.BoolStorage': np.bool_,
}
_NEW_TENSOR = (
  'torch._utils._rebuild_tensor_v2',
  'torch._utils._rebuild_tensor',  # Before PyTorch 0.4.
)
_NEW_PARAMETER = (
  'torch._utils._rebuild_parameter',
  'torch.nn.parameter.Parameter',  # Before PyTorch 0.4.
)
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_LITERALS = ('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT')
_LITERALS += ('BINUNICODE', 'SHORT_BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING')
_TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_ZIP_START = b'PK\x03\x04'
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # Of the format before PyTorch 1.6.


@dataclasses.dataclass(frozen=True)
class _Global:
  """A function or class that the pickle names."""

  name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
  """`count` numbers in a row, which several tensors may share."""

  key: str
  dtype: np.dtype
  count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A view of a storage; offset and strides are in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def parse(content: bytes) -> dict[str, Any]:
  """Reads a state dict from the content of a file that `torch.save` wrote.

  Returns arrays by name; other values, such as numbers, stay as they are.

  Raises:
    Exception: of many types, if the content is damaged or holds anything but
      tensors and plain values.
  """
  read = _parse_zip if content.startswith(_ZIP_START) else _parse_stream
  state, storages = read(content)
  if not isinstance(state, dict):
    raise ValueError(f'it holds {_describe(state)} instead of a state dict')
  return {
    name: _view(value, storages) if isinstance(value, _Tensor) else value
    for name, value in state.items()
  }


def _parse_zip(content):
  """Reads the format of PyTorch 1.6 and newer."""
  archive = zipfile.ZipFile(io.BytesIO(content))
  found = [name for name in archive.namelist() if name.endswith('/data.pkl')]
  if len(found) != 1:
    raise ValueError('it was not written by torch.save')
  folder = found[0].removesuffix('data.pkl')
  used = 0

  def read(name):
    nonlocal used
    entry = archive.getinfo(folder + name)
    used += entry.file_size
    if entry.compress_type != zipfile.ZIP_STORED or used > len(content):
      raise ValueError(f'{entry.filename} is compressed or damaged')
    return archive.read(entry)

  if f'{folder}byteorder' in archive.namelist():
    _check_byte_order(read('byteorder') == b'little')
  state, found = _unpickle(io.BytesIO(read('data.pkl')))
  return state, {
    storage: np.frombuffer(read(f'data/{storage.key}'), storage.dtype)
    for storage in found
  }


def _parse_stream(content):
  """Reads the older format: pickles, then the storages one by one."""
  stream = io.BytesIO(content)
  magic_number, _ = _unpickle(stream)
  if magic_number != _MAGIC_NUMBER:
    raise ValueError('it was not written by torch.save')
  _unpickle(stream)  # The version of the format.
  system, _ = _unpickle(stream)
  _check_byte_order(system.get('little_endian', True))
  state, found = _unpickle(stream)
  keys, _ = _unpickle(stream)
  by_key = {storage.key: storage for storage in found}
  storages = {}
  for key in keys:
    storage = by_key[key]
    (count,) = struct.unpack('<q', stream.read(8))
    if count != storage.count:
      raise ValueError(f'storage {key} has {count} of {storage.count} elements')
    start = stream.tell()
    storages[storage] = np.frombuffer(content, storage.dtype, count, start)
    stream.seek(start + storages[storage].nbytes)
  return state, storages


def _check_byte_order(is_little):
  if not is_little:
    raise ValueError('it was written on a big-endian machine')


def _view(tensor: _Tensor, storages: Mapping[_Storage, np.ndarray]):
  """Returns a tensor's array; raises if it exceeds its storage."""
  data, count = storages[tensor.storage], math.prod(tensor.shape)
  if count == 0:
    return np.zeros(tensor.shape, data.dtype)
  steps = zip(tensor.shape, tensor.strides, strict=True)
  last = tensor.offset + sum((size - 1) * step for size, step in steps)
  # Overlapping strides could make a huge array of a small file.
  if last >= len(data) or count > len(data):
    raise ValueError(
      f'a tensor of shape {tensor.shape} exceeds its storage of {len(data)}'
    )
  strides = [step * data.itemsize for step in tensor.strides]
  return np.lib.stride_tricks.as_strided(
    data[tensor.offset :], tensor.shape, strides, writeable=False
  )


def _unpickle(stream: BinaryIO) -> tuple[Any, set[_Storage]]:
  """Interprets one pickle; returns its value and the storages it refers to."""
  stack, marks, memo, storages = [], [], {}, set()

  def pop(count):
    items = stack[len(stack) - count :]
    if len(items) < count or marks and len(stack) - count < marks[-1]:
      raise ValueError('its pickle is damaged')
    del stack[len(stack) - count :]
    return items

  def pop_marked():
    return pop(len(stack) - marks.pop())

  for operation, argument, _ in pickletools.genops(stream):
    match operation.name:
      case 'PROTO' | 'FRAME':
        pass
      case 'STOP':
        return pop(1)[0], storages
      case 'MARK':
        marks.append(len(stack))
      case name if name in _LITERALS:
        stack.append(argument)
      case name if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
      case 'EMPTY_DICT':
        stack.append({})
      case 'EMPTY_LIST':
        stack.append([])
      case name if name in _TUPLES:
        stack.append(tuple(pop(_TUPLES[name])))
      case 'TUPLE':
        stack.append(tuple(pop_marked()))
      case 'APPEND':
        _extend(pop(1), stack[-1])
      case 'APPENDS':
        _extend(pop_marked(), stack[-1])
      case 'SETITEM':
        _update([pop(2)], stack[-1])
      case 'SETITEMS':
        _update(_pairs(pop_marked()), stack[-1])
      case 'BINPUT' | 'LONG_BINPUT':
        memo[argument] = stack[-1]
      case 'MEMOIZE':
        memo[len(memo)] = stack[-1]
      case 'BINGET' | 'LONG_BINGET':
        stack.append(memo[argument])
      case 'GLOBAL':
        stack.append(_Global(argument.replace(' ', '.')))
      case 'STACK_GLOBAL':
        stack.append(_Global('.'.join(pop(2))))
      case 'BINPERSID':
        stack.append(_storage(*pop(1)))
        storages.add(stack[-1])
      case 'REDUCE' | 'NEWOBJ':
        stack.append(_call(*pop(2)))
      case 'BUILD':
        pop(1)  # Attributes, such as the version of a state dict.
      case name:
        raise ValueError(f'its pickle has the operation {name}')
  raise ValueError('its pickle has no end')


def _extend(items, target):
  if not isinstance(target, list):
    raise ValueError(f'its pickle appends to {_describe(target)}')
  target.extend(items)


def _pairs(items):
  return zip(items[::2], items[1::2], strict=True)


def _update(pairs, target):
  """Adds pairs to a dict of strings, the only keys that hash in short time."""
  pairs = list(pairs)
  is_named = all(isinstance(name, str) for name, _ in pairs)
  if not (isinstance(target, dict) and is_named):
    raise ValueError(f'its pickle sets items of {_describe(target)}')
  target.update(pairs)
  return target


def _storage(reference):
  """Returns the storage of a reference `(kind, type, key, device, count)`."""
  match reference:
    case 'storage', _Global(name), str(key), str(), count, *view if (
      name in _DTYPES and _are_sizes(count) and view in ([], [None])
    ):
      return _Storage(key, np.dtype(_DTYPES[name]), count)
    case _, _Global(name), *_:
      raise ValueError(f'it holds a {name}, which is not read')
  raise ValueError('its pickle is damaged')


def _call(function, arguments):
  """Evaluates the few calls of which a state dict consists."""
  match function, arguments:
    case _Global('collections.OrderedDict'), ():
      return {}
    case _Global('collections.OrderedDict'), ([*items],):  # Of Python 2.
      return _update(items, {})
    case _Global(name), (_Storage() as storage, offset, shape, strides, *_) if (
      name in _NEW_TENSOR and _are_sizes(offset, *shape, *strides)
    ):
      return _Tensor(storage, offset, tuple(shape), tuple(strides))
    case _Global(name), (_Tensor() as tensor, *_) if name in _NEW_PARAMETER:
      return tensor
  raise ValueError(f'it calls {_describe(function)}, and only tensors are read')


def _are_sizes(*numbers: Sequence[Any]):
  return all(type(number) is int and number >= 0 for number in numbers)


def _describe(value):
  return value.name if isinstance(value, _Global) else type(value).__name__
