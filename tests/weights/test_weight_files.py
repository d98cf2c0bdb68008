"""State dicts in files of every type; damaged and malicious files."""

import builtins
import collections
import os
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sgde_jax.weights import weight_files
from tests.support import torch_files

_FORMATS = pytest.mark.parametrize('old', [False, True], ids=['new', 'old'])


def _state():
  """A state dict of every dtype, with views that share a storage."""
  rng = np.random.default_rng(0)
  state = collections.OrderedDict(
    (f'of_{name}', (3 * rng.standard_normal((3, 5))).astype(dtype))
    for dtype, name in torch_files.KINDS.items()
  )
  state['scalar'] = np.asarray(3.5, np.float32)
  state['empty'] = np.zeros((0, 3), np.float32)
  state |= {'height': 192, 'use_stereo': False, 'rate': 0.5}
  return state


def _check_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    value = np.asarray(value)
    if value.dtype == jnp.bfloat16:
      value = value.astype(np.float32)
    assert found[name].dtype == value.dtype
    assert found[name].shape == value.shape
    np.testing.assert_array_equal(found[name], value, err_msg=name)


@_FORMATS
@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_torch_files(tmp_path, old, protocol):
  state = _state()
  state._metadata = {'': {'version': 1}}  # As PyTorch's state dicts have.
  path = torch_files.write(
    tmp_path / 'a.pth', state, old=old, protocol=protocol
  )
  _check_equal(weight_files.read_state(path), state)
  torch_files.write(path, dict(state), old=old, protocol=protocol)
  _check_equal(weight_files.read_state(path), state)


@_FORMATS
def test_views_of_one_storage(tmp_path, old):
  shared = torch_files.storage(np.arange(24))
  table = np.arange(24, dtype=np.float32).reshape(4, 6)
  state = {
    'transposed': torch_files.Tensor(shared, 0, (6, 4), (1, 6)),
    'part': torch_files.Tensor(shared, 8, (3, 2), (6, 2)),
    'row': torch_files.Tensor(shared, 18, (6,), (1,), parameter=True),
  }
  path = torch_files.write(tmp_path / 'a.pt', state, old=old)
  expected = {'transposed': table.T, 'part': table[1:, 2:5:2], 'row': table[3]}
  _check_equal(weight_files.read_state(path), expected)


def test_pickles_of_python_2(tmp_path):
  # OrderedDict([['a', 7]]) and a value set later, with byte strings as names.
  pickled = (
    b'\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x07ee\x85RU\x01bK\x08s.'
  )
  path = torch_files.write(tmp_path / 'a.pth', {}, old=True)
  head = path.read_bytes()[: -len(pickle.dumps({}, 2) + pickle.dumps([], 2))]
  path.write_bytes(head + pickled + pickle.dumps([], 2))
  _check_equal(weight_files.read_state(path), {'a': 7, 'b': 8})


def test_safetensors(tmp_path):
  state = {k: np.asarray(v) for k, v in _state().items() if k != 'rate'}
  path = tmp_path / 'a.safetensors'
  safetensors.numpy.save_file(state, path)
  _check_equal(weight_files.read_state(path), state)
  state = {'a': np.arange(6, dtype=np.float32).reshape(2, 3).T}
  state['scalar'] = np.asarray(192)
  weight_files.write_safetensors(path, state)
  _check_equal(weight_files.read_state(path), state)


def test_npz(tmp_path):
  state = {'a': np.ones((2, 3), np.float32), 'height': np.asarray(192)}
  np.savez(tmp_path / 'a.npz', **state)
  _check_equal(weight_files.read_state(tmp_path / 'a.npz'), state)
  np.savez(tmp_path / 'b.npz', a=np.array([{}], object))
  with pytest.raises(ValueError, match='b.npz cannot be read'):
    weight_files.read_state(tmp_path / 'b.npz')


@pytest.mark.parametrize('protocol', [2, 4])
@_FORMATS
def test_no_code_runs(tmp_path, old, protocol):
  for number, (call, named) in enumerate(
    [
      ((os.system, f'touch {tmp_path}/ran'), r'(posix|nt)\.system'),
      ((os.mkdir, f'{tmp_path}/ran'), r'(posix|nt)\.mkdir'),
      ((builtins.eval, f'open({str(tmp_path)!r} + "/ran", "w")'), 'eval'),
      ((np.save, f'{tmp_path}/ran.npy', np.ones(2)), r'numpy\.save'),
      ((collections.Counter, 'aab'), r'collections\.Counter'),
      ((getattr, {}, 'clear'), r'getattr'),
    ]
  ):
    state = {'a': np.ones(2), 'b': torch_files.Call(*call)}
    path = torch_files.write(
      tmp_path / f'{number}.pth', state, old=old, protocol=protocol
    )
    with pytest.raises(ValueError, match=f'{number}.pth .*it calls .*{named}'):
      weight_files.read_state(path)
  assert not list(tmp_path.glob('ran*'))


@pytest.mark.parametrize(
  ('pickled', 'problem'),
  [
    (b"(S'touch ran'\nios\nsystem\n.", 'operation STRING'),
    (b'(ios\nsystem\n.', 'operation INST'),
    (b'(cos\nsystem\no.', 'operation OBJ'),
    (b'\x80\x02\x82\x01.', 'operation EXT1'),
    (b'\x80\x02cos\nsystem\n.', 'it holds os.system instead'),
    (b'\x80\x02}X\x01\x00\x00\x00acos\nsystem\ns.', 'its entry a is of type'),
    (b'\x80\x02}K\x01K\x02s.', 'sets items'),  # {1: 2}
    (b'\x80\x02}](K\x01K\x02u.', 'sets items of list'),
    (b'\x80\x02}K\x01a.', 'appends to dict'),
    (b'\x80\x02(K\x01\x85', 'no end|exhausted'),
    (b'\x80\x02\x86.', 'damaged'),
    (b'\x80\x02(\x86.', 'damaged'),
    (b'\x80\x02h\x05.', r'KeyError\(5\)'),
    (b'\x80\x02}r\xff\xff\xff\xffK\x01Q.', 'damaged'),
  ],
)
def test_other_pickles(tmp_path, pickled, problem):
  path = tmp_path / 'a.pth'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('a/data.pkl', pickled)
  with pytest.raises(ValueError, match=rf'a\.pth cannot be read: .*{problem}'):
    weight_files.read_state(path)


@pytest.mark.parametrize(
  ('offset', 'shape', 'strides', 'problem'),
  [
    (0, (5,), (1,), 'exceeds its storage of 4'),
    (1, (4,), (1,), 'exceeds'),
    (0, (2, 2), (3, 1), 'exceeds'),
    (5, (), (), 'exceeds'),
    (2**70, (1,), (1,), 'exceeds'),
    (0, (10**9, 10**9), (0, 0), 'exceeds'),
    (0, (2,), (2**70,), 'exceeds'),
    (3, (4,), (-1,), 'only tensors'),
    (-1, (1,), (1,), 'only tensors'),
    (0, (-1,), (1,), 'only tensors'),
    (0, (1.0,), (1,), 'only tensors'),
    (0, (2,), (1, 1), 'longer'),
    (0, (1,) * 99, (1,) * 99, 'dimension'),
  ],
)
@_FORMATS
def test_tensors_that_exceed_their_storage(
  tmp_path, old, offset, shape, strides, problem
):
  small = torch_files.storage(np.arange(4))
  state = {'a': torch_files.Tensor(small, offset, shape, strides)}
  path = torch_files.write(tmp_path / 'a.pth', state, old=old)
  with pytest.raises(ValueError, match=f'cannot be read: .*{problem}'):
    weight_files.read_state(path)


@pytest.mark.parametrize('count', [3, 5, -1, 2**62])
def test_stored_and_stated_counts_differ(tmp_path, count):
  state = {'a': torch_files.storage(np.arange(4), count=count)}
  state['a'] = torch_files.Tensor(state['a'], 0, (1,), (1,))
  path = torch_files.write(tmp_path / 'a.pth', state, old=True)
  with pytest.raises(ValueError, match='cannot be read'):
    weight_files.read_state(path)


def test_compressed_archives(tmp_path):
  path = torch_files.write(tmp_path / 'a.pth', {'a': np.zeros(10**6)})
  with zipfile.ZipFile(path) as archive:
    entries = {name: archive.read(name) for name in archive.namelist()}
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, content in entries.items():
      archive.writestr(name, content)
  with pytest.raises(ValueError, match='is compressed or damaged'):
    weight_files.read_state(path)


@pytest.mark.parametrize(
  'name', ['new.pth', 'old.pth', 'a.safetensors', 'a.npz']
)
def test_damaged_files(tmp_path, name):
  path = tmp_path / name
  state = {'a': np.arange(40, dtype=np.float32), 'b': np.ones((2, 3))}
  if name.endswith('pth'):
    torch_files.write(path, state, old=name == 'old.pth')
  elif name.endswith('npz'):
    np.savez(path, **state)
  else:
    weight_files.write_safetensors(path, state)
  content = path.read_bytes()
  for length in (0, 1, 10, len(content) // 2, len(content) - 1):
    path.write_bytes(content[:length])
    with pytest.raises(ValueError, match=f'weights {path} cannot be read'):
      weight_files.read_state(path)
  rng = np.random.default_rng(0)
  for _ in range(300):  # Some of it does no harm.
    damaged = bytearray(content)
    for place in rng.integers(len(content), size=3):
      damaged[place] = rng.integers(256)
    path.write_bytes(damaged)
    try:
      assert isinstance(weight_files.read_state(path), dict)
    except ValueError as error:
      assert f'weights {path} cannot be read' in str(error)


def test_flipped_bit_of_an_archive_is_found(tmp_path):
  path = torch_files.write(tmp_path / 'a.pth', {'a': np.full(40, 3.25)})
  content = bytearray(path.read_bytes())
  content[content.index(np.full(40, 3.25).tobytes()) + 100] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match='CRC'):
    weight_files.read_state(path)


def test_what_is_no_state_dict(tmp_path):
  for state, problem in (
    ([np.ones(2)], 'it holds list instead of a state dict'),
    ({'state_dict': {}, 'epoch': 3}, 'its entry state_dict is of type dict'),
    ({'a': 'text'}, 'its entry a is of type str'),
    ({'a': [[1], [2]]}, 'its entry a is of type list'),
    ({'a': 2**100}, 'its entry a is of type int'),
  ):
    path = torch_files.write(tmp_path / 'a.pth', state)
    with pytest.raises(ValueError, match=problem):
      weight_files.read_state(path)
  path.write_bytes(pickle.dumps({'a': 1}))
  with pytest.raises(ValueError, match='not written by torch.save'):
    weight_files.read_state(path)
  with pytest.raises(FileNotFoundError):
    weight_files.read_state(tmp_path / 'none.pth')
  with pytest.raises(ValueError, match='read from .safetensors, .npz, .pth'):
    weight_files.read_state(tmp_path / 'a.h5')
