"""Reads picture files with Pillow: frames, label masks, 16-bit depth.

All readers call `read_frame`, so that their batches agree bit for bit: the
Lanczos filters and JPEG decoders of other libraries give other values.
"""

import contextlib
import errno
import os

import numpy as np
from PIL import ExifTags, Image

from input_pipeline import cityscapes

Path = str | os.PathLike[str]

# Modes that Pillow converts to RGB without a loss of range; 16-bit and float
# pictures would be clipped to white instead.
_EIGHT_BIT_MODES = ('RGB', 'RGBA', 'L', 'LA', 'P', 'CMYK', 'YCbCr')
# Failures of a disk, a network or a machine, whichever file is read: no other
# picture may replace an intact one.
_MACHINE_ERRORS = (
  errno.EIO,
  errno.ESTALE,
  errno.ETIMEDOUT,
  errno.ENOTCONN,
  errno.EMFILE,
  errno.ENFILE,
  errno.ENOMEM,
)
_PNG = b'\x89PNG\r\n\x1a\n'
# A mask whose aspect ratio differs more from its frame's shows something else.
MASK_STRETCH = 0.05
# EXIF orientation -> what makes the picture upright.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_QUARTERS = {
  Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
  Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}


class UnreadableError(ValueError):
  """A picture file is absent, damaged, or of the wrong size or kind."""


@contextlib.contextmanager
def _reading(path):
  """Turns Pillow's many exceptions into one that names the file and reason."""
  try:
    yield
  except Exception as error:  # Each of Pillow's plugins has its own.
    message = f'{path} cannot be read: {error!r}'
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
      raise OSError(message) from error
    kind = MemoryError if isinstance(error, MemoryError) else UnreadableError
    raise kind(message) from error


def open_image(path: Path) -> Image.Image:
  """Reads a whole picture file, in any format that Pillow knows.

  Raises:
    UnreadableError: if the file is absent, truncated or not a picture.
    OSError, MemoryError: if the disk, the network or the machine fails.
  """
  with _reading(path), Image.open(path) as image:
    image.load()
  return image


def find_turn(image: Image.Image) -> Image.Transpose | None:
  """Returns what makes a loaded picture upright by its EXIF orientation.

  Unlike `PIL.ImageOps.exif_transpose` it reads the orientation alone, so other
  damaged EXIF data does no harm.
  """
  try:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
  except Exception:  # As in _reading.
    return None


def turn_upright(image: Image.Image) -> Image.Image:
  """Turns a loaded picture by its EXIF orientation, see `find_turn`."""
  turn = find_turn(image)
  return image if turn is None else image.transpose(turn)


def turn_back(array: np.ndarray, turn: Image.Transpose | None) -> np.ndarray:
  """Undoes the turn of `find_turn` in `[H, W]` uint8 of an upright picture."""
  if turn is None:
    return array
  back = _QUARTERS.get(turn, turn)  # The others undo themselves.
  return np.array(Image.fromarray(array).transpose(back))


def read_size(path: Path) -> tuple[int, int]:
  """Reads a picture's (height, width) from its header; see `open_image`."""
  with _reading(path), Image.open(path) as image:
    return image.height, image.width


def decode_frame(
  path: Path, *, native_size: tuple[int, int] | None = None
) -> Image.Image:
  """Decodes a picture with 8 bits per channel to mode RGB.

  Raises:
    UnreadableError: if the file cannot be read, has a (height, width) other
      than `native_size`, or more than 8 bits per channel.
  """
  image = open_image(path)
  if native_size not in (None, (image.height, image.width)):
    raise UnreadableError(
      f'{path} is {image.width}x{image.height}, but the other frames of its '
      f'drive are {native_size[1]}x{native_size[0]}'
    )
  if image.mode not in _EIGHT_BIT_MODES:
    raise UnreadableError(
      f'{path} cannot be read: it has Pillow mode {image.mode}, and frames need'
      ' 8 bits per channel'
    )
  return image.convert('RGB')


def resize_frame(image: Image.Image, *, height: int, width: int) -> np.ndarray:
  """Resizes an RGB picture by Lanczos filtering: [height, width, 3] uint8."""
  return np.array(image.resize((width, height), Image.Resampling.LANCZOS))


def read_frame(
  path: Path,
  *,
  height: int,
  width: int,
  native_size: tuple[int, int] | None = None,
) -> np.ndarray:
  """Decodes and resizes a picture: [height, width, 3] uint8, RGB."""
  image = decode_frame(path, native_size=native_size)
  return resize_frame(image, height=height, width=width)


def open_mask(path: Path) -> Image.Image:
  """Opens a mask, an 8-bit greyscale or palette picture of class ids.

  Raises:
    UnreadableError: if the file cannot be read or is another kind of picture.
  """
  image = open_image(path)
  with open(path, 'rb') as file:
    header = file.read(26)
  # Bit depth and colour type; Pillow stretches fewer greys to 0 .. 255.
  stretched = header.startswith(_PNG) and header[24] < 8 and header[25] == 0
  if image.mode not in ('L', 'P') or stretched:
    raise UnreadableError(
      f'{path} has Pillow mode {image.mode}'
      + (f' and {header[24]} bits' if stretched else '')
      + ': a mask needs one channel of 8 bits, or a palette, of class ids'
    )
  return image


def read_mask(path: Path, *, coding: str) -> np.ndarray:
  """Reads a mask, coded as `train_ids` or `ids`: [H, W] uint8 train ids."""
  array = np.array(open_mask(path))
  try:
    return cityscapes.to_train_ids(array, coding=coding)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def read_depth(path: Path) -> np.ndarray:
  """Reads KITTI's 16-bit depth: [H, W] float32, metres, 0 = no measurement."""
  image = open_image(path)
  if not image.mode.startswith('I'):
    raise ValueError(
      f'{path} has Pillow mode {image.mode}: depth needs a 16-bit greyscale '
      'PNG of metres x 256'
    )
  return np.array(image).astype(np.float32) / np.float32(256)


def stretch(size: tuple[int, int], other: tuple[int, int]) -> float:
  """Returns how much the aspect ratios of two (height, width) differ, >= 0."""
  return abs(size[0] * other[1] / (size[1] * other[0]) - 1)


def resize_nearest(array: np.ndarray, *, height: int, width: int) -> np.ndarray:
  """Resizes labels [H, W] uint8 by nearest neighbour, half-pixel centres."""
  image = Image.fromarray(array)
  return np.array(image.resize((width, height), Image.Resampling.NEAREST))
