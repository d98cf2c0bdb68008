"""Tests of input_pipeline.cityscapes."""

import functools
import re
import struct
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from PIL import Image

from input_pipeline import cityscapes, images
from tests.support import kitti_folder

_ids_to_train_ids = functools.partial(cityscapes.to_train_ids, coding='ids')


def test_tables_match_cityscapes():
  assert (
    len(cityscapes.NAMES)
    == len(cityscapes.IDS)
    == len(cityscapes.COLOURS)
    == 19
  )
  assert len(set(cityscapes.NAMES)) == len(set(cityscapes.COLOURS)) == 19
  assert [cityscapes.NAMES[i] for i in cityscapes.THIN_CLASSES] == [
    'pole',
    'traffic light',
    'traffic sign',
    'person',
    'rider',
    'motorcycle',
    'bicycle',
  ]
  assert [cityscapes.NAMES[i] for i in cityscapes.MOVING_CLASSES] == [
    'person',
    'rider',
    'car',
    'truck',
    'bus',
    'train',
    'motorcycle',
    'bicycle',
  ]


def test_ids_to_train_ids():
  # Every Cityscapes id in order; -1 is a licence plate.
  expected = [255] * 7 + [
    0,
    1,
    255,
    255,
    2,
    3,
    4,
    255,
    255,
    255,
    5,
    255,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    255,
    255,
    16,
    17,
    18,
  ]
  train_ids = _ids_to_train_ids(np.arange(34))
  assert train_ids.dtype == np.uint8
  assert train_ids.tolist() == expected
  assert _ids_to_train_ids(np.array([-1, 255])).tolist() == [255, 255]


def test_round_trip_from_train_ids():
  train_ids = np.r_[np.arange(19), 255].reshape(4, 5).astype(np.uint8)
  ids = cityscapes.train_ids_to_ids(train_ids)
  assert ids.dtype == np.uint8 and ids[-1, -1] == 0
  np.testing.assert_array_equal(_ids_to_train_ids(ids), train_ids)


@pytest.mark.parametrize(
  'function, value',
  [
    (_ids_to_train_ids, 34),
    (_ids_to_train_ids, -2),
    (_ids_to_train_ids, 256),
    (cityscapes.train_ids_to_ids, 19),
  ],
)
def test_values_outside_the_coding(function, value):
  with pytest.raises(ValueError, match=f'value {value} is outside'):
    function(np.array([0, value]))


def test_reads_both_codings(tmp_path):
  path = tmp_path / 'mask.png'
  kitti_folder.save(np.array([[7, 33, 0]], np.uint8), path)
  assert images.read_mask(path, coding='ids').tolist() == [[0, 18, 255]]
  with pytest.raises(ValueError, match='mask.png: value 33 .*train_ids'):
    images.read_mask(path, coding='train_ids')


def test_palette_pictures_hold_ids_and_colours_raise(tmp_path):
  mask = Image.fromarray(np.array([[5, 255]], np.uint8))
  mask.putpalette(np.array(cityscapes.COLOURS, np.uint8).tobytes())
  mask.save(tmp_path / 'palette.png')
  read = images.read_mask(tmp_path / 'palette.png', coding='train_ids')
  assert read.tolist() == [[5, 255]]
  mask.convert('RGB').save(tmp_path / 'colours.png')
  with pytest.raises(ValueError, match='colours.png .*one channel'):
    images.read_mask(tmp_path / 'colours.png', coding='train_ids')


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
  mask=numpy_strategies.arrays(np.uint8, (3, 4)),
  coding=st.sampled_from(cityscapes.CODINGS),
)
def test_any_mask_is_mapped_or_raises(tmp_path_factory, mask, coding):
  path = tmp_path_factory.mktemp('masks') / 'mask.png'
  kitti_folder.save(mask, path)
  last = {'ids': 33, 'train_ids': 18}[coding]
  outside = mask[(mask > last) & (mask != 255)]
  if outside.size:
    with pytest.raises(ValueError, match=f'mask.png: value {outside[0]} '):
      images.read_mask(path, coding=coding)
  else:
    read = images.read_mask(path, coding=coding)
    assert set(np.unique(read)) <= {*range(19), 255}


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
  pixels=numpy_strategies.arrays(
    np.uint8,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.one_of(st.integers(0, 33), st.integers(0, 255)),
  ),
  mode=st.sampled_from(
    [
      '1',
      'L',
      'P',
      'PA',
      'LA',
      'La',
      'RGB',
      'RGBA',
      'RGBX',
      'CMYK',
      'YCbCr',
      'LAB',
      'HSV',
      'I',
      'I;16',
      'F',
    ]
  ),
  suffix=st.sampled_from(['png', 'tif', 'gif', 'jpg', 'webp', 'bmp']),
  coding=st.sampled_from(cityscapes.CODINGS),
)
def test_any_picture_is_mapped_or_raises(
  tmp_path_factory, pixels, mode, suffix, coding
):
  path = tmp_path_factory.mktemp('masks') / f'mask.{suffix}'
  picture = Image.fromarray(pixels)
  if mode in ('I', 'I;16', 'F', 'LAB', 'HSV'):
    picture = Image.new(mode, picture.size, int(pixels[0, 0]))
  elif mode == 'P':
    picture.putpalette(bytes(range(256)) * 3)  # Greys of other values.
  try:
    picture = picture if mode == 'P' else picture.convert(mode)
    picture.save(path)
  except (ValueError, OSError, KeyError):
    hypothesis.reject()  # Pillow cannot write this one.
  try:
    read = images.read_mask(path, coding=coding)
  except ValueError as error:
    assert str(error).startswith(str(path))
    if 'outside the coding' in str(error):
      value = int(re.search(r'value (\d+) is outside', str(error))[1])
      assert value in np.array(Image.open(path))
      assert (value > {'ids': 33, 'train_ids': 18}[coding]) and value != 255
  else:
    assert read.dtype == np.uint8 and read.shape == pixels.shape
    assert set(np.unique(read)) <= {*range(19), 255}
    if suffix == 'png':  # The others may have lost values.
      wanted = cityscapes.to_train_ids(pixels, coding=coding)
      np.testing.assert_array_equal(read, wanted)


def _png(values, *, bits, colour_type):
  """Encodes [H, W] values in a PNG of few bits, which Pillow cannot write."""
  height, width = values.shape
  shifts = np.arange(bits - 1, -1, -1, dtype=np.uint8)
  rows = np.packbits((values[..., None] >> shifts & 1).reshape(height, -1), 1)
  chunks = [
    (b'IHDR', struct.pack('>2I5B', width, height, bits, colour_type, 0, 0, 0))
  ]
  if colour_type == 3:
    chunks.append((b'PLTE', bytes(3 * 2**bits)))
  data = b''.join(b'\0' + row.tobytes() for row in rows)
  chunks += [(b'IDAT', zlib.compress(data)), (b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(body))
    + name
    + body
    + struct.pack('>I', zlib.crc32(name + body))
    for name, body in chunks
  )


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(data=st.data(), bits=st.sampled_from([1, 2, 4, 8]))
def test_low_bit_depths_are_read_exactly_or_raise(tmp_path_factory, data, bits):
  path = tmp_path_factory.mktemp('masks') / 'mask.png'
  values = data.draw(
    numpy_strategies.arrays(
      np.uint8, (3, 5), elements=st.integers(0, min(2**bits - 1, 18))
    )
  )
  path.write_bytes(_png(values, bits=bits, colour_type=3))
  read = images.read_mask(path, coding='train_ids')
  np.testing.assert_array_equal(read, values)
  path.write_bytes(_png(values, bits=bits, colour_type=0))
  if bits == 8:
    read = images.read_mask(path, coding='train_ids')
    np.testing.assert_array_equal(read, values)
  else:
    with pytest.raises(ValueError, match='mask.png .*8 bits'):
      images.read_mask(path, coding='train_ids')


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(content=st.binary(max_size=100))
def test_file_that_is_not_a_picture_is_named(tmp_path_factory, content):
  path = tmp_path_factory.mktemp('masks') / 'mask.png'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='mask.png cannot be read'):
    images.read_mask(path, coding='ids')
