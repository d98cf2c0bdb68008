"""Reads picture files with Pillow: frames, label masks, 16-bit depth.

The one decode-and-resize function of the project, `read_frame`, is here: every
reader calls it, so that their batches agree bit for bit (the Lanczos filters
and JPEG decoders of other libraries give other values).
"""

import errno

import numpy as np
from PIL import ExifTags, Image

from input_pipeline import cityscapes

# Modes that Pillow converts to RGB without a loss of range; 16-bit and float
# pictures would be clipped to white instead.
_EIGHT_BIT_MODES = ('RGB', 'RGBA', 'L', 'LA', 'P', 'CMYK', 'YCbCr')
# What a disk, a network or a machine fails with, whichever file is read: no
# other picture may take the place of one that is whole.
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
# What makes a picture of each EXIF orientation upright.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


class UnreadableError(ValueError):
  """A picture file is absent, damaged or not of the right size or kind."""


def open_image(path):
  """Reads a whole picture file.

  Args:
    path: the file, in any format that Pillow knows.

  Returns:
    A loaded `PIL.Image.Image`.

  Raises:
    UnreadableError: the file is absent, truncated or no picture; the message
      names it and the reason.
    OSError, MemoryError: the disk, the network or the machine fails.
  """
  try:
    with Image.open(path) as image:
      image.load()
  except Exception as error:  # Each of Pillow's plugins fails in its own way.
    raise _failure(path, error) from error
  return image


def turn_upright(image):
  """Turns a loaded `PIL.Image.Image` as its EXIF data says.

  Unlike `PIL.ImageOps.exif_transpose` it reads nothing but the orientation:
  what else is damaged there does not spoil the picture.
  """
  try:
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
  except Exception:  # As in open_image.
    turn = None
  return image if turn is None else image.transpose(turn)


def read_size(path):
  """Height and width of a picture, from its header alone.

  Args:
    path: the file.

  Returns:
    (height, width) in pixels.

  Raises:
    UnreadableError, OSError, MemoryError: as `open_image`.
  """
  try:
    with Image.open(path) as image:
      return image.height, image.width
  except Exception as error:  # As in open_image.
    raise _failure(path, error) from error


def decode_frame(path, *, native_size=None):
  """Decodes a frame.

  Args:
    path: a PNG or JPEG file with 8 bits per channel.
    native_size: (height, width) that the file must have, or None.

  Returns:
    A `PIL.Image.Image` of mode RGB.

  Raises:
    UnreadableError: the file cannot be read, has another size or more than 8
      bits per channel.
  """
  image = open_image(path)
  if native_size not in (None, (image.height, image.width)):
    raise UnreadableError(
      f'{path} is {image.width}x{image.height}, and the other frames of its '
      f'drive are {native_size[1]}x{native_size[0]}'
    )
  if image.mode not in _EIGHT_BIT_MODES:
    raise UnreadableError(
      f'{path} cannot be read: it has Pillow mode {image.mode}, and frames need'
      ' 8 bits per channel'
    )
  return image.convert('RGB')


def resize_frame(image, *, height, width):
  """Resizes a frame with Pillow's Lanczos filter.

  Args:
    image: a `PIL.Image.Image` of mode RGB.
    height: rows of the result.
    width: columns of the result.

  Returns:
    [height, width, 3] uint8, RGB.
  """
  return np.array(image.resize((width, height), Image.Resampling.LANCZOS))


def read_frame(path, *, height, width, native_size=None):
  """Decodes and resizes a frame: `decode_frame`, then `resize_frame`.

  Args:
    path: a PNG or JPEG file with 8 bits per channel.
    height: rows of the result.
    width: columns of the result.
    native_size: (height, width) that the file must have, or None.

  Returns:
    [height, width, 3] uint8, RGB.

  Raises:
    UnreadableError: see `decode_frame`.
  """
  image = decode_frame(path, native_size=native_size)
  return resize_frame(image, height=height, width=width)


def open_mask(path):
  """Opens a mask whose values have yet to be looked at.

  Args:
    path: an 8-bit greyscale or palette PNG file.

  Returns:
    A loaded `PIL.Image.Image` of 8-bit values.

  Raises:
    UnreadableError: the file cannot be read or is no one-channel 8-bit
      picture; the message names it.
  """
  image = open_image(path)
  if image.mode not in ('L', 'P'):
    raise UnreadableError(
      f'{path} has Pillow mode {image.mode}: a mask needs one channel of 8 '
      'bits that holds class ids'
    )
  with open(path, 'rb') as file:
    header = file.read(26)
  # Bit depth and colour type; Pillow stretches fewer greys to 0 .. 255.
  if header.startswith(_PNG) and header[24] < 8 and header[25] == 0:
    raise UnreadableError(
      f'{path} is greyscale of {header[24]} bits: a mask needs 8 bits, or a '
      'palette'
    )
  return image


def read_mask(path, *, coding):
  """Reads a mask at its own size.

  Args:
    path: an 8-bit greyscale or palette PNG file.
    coding: `train_ids` or `ids`, what its values mean.

  Returns:
    [H, W] uint8 train ids.

  Raises:
    UnreadableError: the file cannot be read, or is no one-channel 8-bit
      picture; the message names it.
    ValueError: it holds a value outside the coding; the message names file and
      value.
  """
  array = np.array(open_mask(path))
  try:
    return cityscapes.to_train_ids(array, coding=coding)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def read_depth(path):
  """Reads a depth map in KITTI's coding: 16 bits, metres x 256, 0 = none.

  Args:
    path: a 16-bit greyscale PNG file.

  Returns:
    [H, W] float32, metres; 0 where nothing was measured.

  Raises:
    ValueError: the file cannot be read or is no 16-bit greyscale picture.
  """
  image = open_image(path)
  if not image.mode.startswith('I'):
    raise ValueError(
      f'{path} has Pillow mode {image.mode}: depth needs a 16-bit greyscale '
      'PNG of metres x 256'
    )
  return np.array(image).astype(np.float32) / np.float32(256)


def stretch(size, other):
  """How far two (height, width) are from the same shape; 0 if one scales."""
  return abs(size[0] * other[1] / (size[1] * other[0]) - 1)


def resize_nearest(array, *, height, width):
  """Resizes labels to the nearest neighbour, half-pixel.

  Args:
    array: [H, W] uint8.
    height: rows of the result.
    width: columns of the result.

  Returns:
    [height, width] uint8.
  """
  image = Image.fromarray(array)
  return np.array(image.resize((width, height), Image.Resampling.NEAREST))


def _failure(path, error):
  """What to raise where a picture could not be read."""
  reason = str(error) or type(error).__name__
  if isinstance(error, OSError) and error.strerror:
    reason = error.strerror
  elif 'cannot identify image file' in reason:
    reason = 'not a picture in a known format'
  message = f'{path} cannot be read: {reason}'
  if isinstance(error, MemoryError):
    return MemoryError(message)
  if getattr(error, 'errno', None) in _MACHINE_ERRORS:
    return OSError(message)
  return UnreadableError(message)
