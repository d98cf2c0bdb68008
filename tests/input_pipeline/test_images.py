"""Tests of input_pipeline.images."""

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from input_pipeline import images
from tests.support import kitti_folder


def test_read_frame_converts_or_raises(tmp_path):
  grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
  kitti_folder.save(grey, tmp_path / 'grey.png')
  frame = images.read_frame(tmp_path / 'grey.png', height=3, width=4)
  np.testing.assert_array_equal(frame, np.repeat(grey[..., None], 3, axis=2))
  kitti_folder.save(grey.astype(np.uint16), tmp_path / 'deep.png')
  with pytest.raises(ValueError, match='deep.png.*8 bits'):
    images.read_frame(tmp_path / 'deep.png', height=3, width=4)


def test_depth_pictures_contain_metres_times_256(tmp_path):
  kitti_folder.save(np.array([[0, 256, 384]], np.uint16), tmp_path / '7.png')
  depth = images.read_depth(tmp_path / '7.png')
  assert depth.dtype == np.float32
  np.testing.assert_array_equal(depth, [[0, 1, 1.5]])
  kitti_folder.save(np.zeros((1, 3), np.uint8), tmp_path / '8.png')
  with pytest.raises(ValueError, match='8.png.*16-bit'):
    images.read_depth(tmp_path / '8.png')


def _save_lying(path, orientation):
  """Writes a JPEG of 8x4 pixels with EXIF data; returns that data."""
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  exif[ExifTags.Base.XResolution] = 72.0
  pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)
  Image.fromarray(pixels).save(path, exif=exif)
  return exif.tobytes()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_rotated_like_pillow(tmp_path, orientation):
  _save_lying(tmp_path / 'a.jpg', orientation)
  image = images.decode_frame(tmp_path / 'a.jpg')
  np.testing.assert_array_equal(
    images.turn_upright(image), ImageOps.exif_transpose(image)
  )


@pytest.mark.parametrize(
  ('found', 'damaged', 'size'),
  [
    # The resolution as text: the orientation is used nonetheless.
    (b'\x01\x1a\x00\x05', b'\x01\x1a\x00\x02', (4, 8)),
    (b'MM\x00*', b'none', (8, 4)),  # Nothing can be read.
  ],
)
def test_damaged_exif_data_is_ignored(tmp_path, found, damaged, size):
  path = tmp_path / 'a.jpg'
  whole = _save_lying(path, 6)
  with Image.open(path) as image:
    image.save(path, exif=whole.replace(found, damaged))
  image = images.decode_frame(path)
  with pytest.raises((TypeError, SyntaxError)):
    ImageOps.exif_transpose(image)
  assert images.turn_upright(image).size == size
