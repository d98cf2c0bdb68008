"""Video files by PyAV, imported when one is opened."""

import contextlib
import fractions
import itertools
import os
from collections.abc import Callable, Iterator

import numpy as np

from input_pipeline import files, images

SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.webm')


@contextlib.contextmanager
def open_reader(
  path: str | os.PathLike,
) -> Iterator[tuple[Iterator[np.ndarray], fractions.Fraction]]:
  """Opens a video; a context manager.

  Yields:
    (frames, rate): an iterator of `[H, W, 3]` uint8 frames, rotated by the
    file's metadata, and frames per second. The iterator raises
    `input_pipeline.images.UnreadableError` at a frame that cannot be decoded.
  """
  import av

  with av.open(_url(path)) as container:
    streams = container.streams.video
    for stream in streams:
      stream.thread_type = 'AUTO'
    frames = _decode(av, container, path) if streams else iter(())
    first = next(frames, None)
    if first is None:
      raise images.UnreadableError(f'{path} cannot be read: it has no video')
    yield itertools.chain([first], frames), streams[0].guessed_rate


@contextlib.contextmanager
def open_writer(
  path: str | os.PathLike, rate: fractions.Fraction
) -> Iterator[Callable[[np.ndarray], None]]:
  """Writes an H.264 video whole or not at all; a context manager.

  Yields:
    A function that takes the next `[H, W, 3]` uint8 picture, all of one size.
    An odd last row or column is left out.
  """
  import av

  with (
    files.whole_file(path) as partial,
    av.open(_url(partial), 'w') as container,
  ):
    stream = container.add_stream('libx264', rate=rate, pix_fmt='yuv420p')

    def write(picture):
      height, width = (length - length % 2 for length in picture.shape[:2])
      if not stream.codec_context.is_open:
        stream.height, stream.width = height, width
      picture = np.ascontiguousarray(picture[:height, :width])
      container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))

    yield write
    container.mux(stream.encode())


def _url(path):
  return f'file:{path}'  # FFmpeg would take the 10 of 10:30.mp4 for a scheme.


def _decode(av, container, path):
  count = 0
  try:
    for frame in container.decode(video=0):
      count += 1
      yield np.rot90(frame.to_ndarray(format='rgb24'), frame.rotation // 90)
  except av.FFmpegError as error:
    raise images.UnreadableError(
      f'{path} cannot be read beyond frame {count}: {error.strerror}'
    ) from error
