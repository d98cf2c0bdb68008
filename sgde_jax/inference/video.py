"""Video files by PyAV, imported when one is opened."""

import contextlib
import dataclasses
import fractions
import itertools
import os
from collections.abc import Callable, Iterator

import numpy as np

from input_pipeline import files, images

_TICK = fractions.Fraction(1, 90000)
SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.webm')


@dataclasses.dataclass(frozen=True)
class Frame:
  """A video's frame.

  Attributes:
    number: its index in the video, from 0.
    time: seconds since the first frame; None if the file does not state it.
    image: `[H, W, 3]` uint8, upright; None if it cannot be decoded.
  """

  number: int
  time: fractions.Fraction | None
  image: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class VideoReader:
  """An open video: its frames, and how many there are in a second."""

  frames: Iterator[Frame]
  rate: fractions.Fraction


@contextlib.contextmanager
def open_reader(path: str | os.PathLike) -> Iterator[VideoReader]:
  """Opens a video; a context manager."""
  import av

  with av.open(_url(path)) as container:
    streams = container.streams.video
    for stream in streams:
      stream.thread_type = 'AUTO'
    frames = _decode(av, container, path) if streams else iter(())
    first = next(frames, None)
    if first is None or first.image is None:
      raise images.UnreadableError(f'{path} cannot be read: it has no video')
    yield VideoReader(itertools.chain([first], frames), streams[0].guessed_rate)


@contextlib.contextmanager
def open_writer(
  path: str | os.PathLike, *, comment: str = ''
) -> Iterator[Callable[[np.ndarray, fractions.Fraction], None]]:
  """Writes an H.264 video whole or not at all; a context manager.

  `comment` is stored in the file, see `read_comment`.

  Yields:
    A function that takes the next `[H, W, 3]` uint8 picture, all of one size,
    and its time in seconds. An odd last row or column is left out.
  """
  import av

  with (
    files.whole_file(path) as partial,
    av.open(_url(partial), 'w') as container,
  ):
    container.metadata['comment'] = comment
    stream = container.add_stream('libx264', pix_fmt='yuv420p')
    stream.codec_context.time_base = _TICK

    def write(picture, time):
      height, width = (length - length % 2 for length in picture.shape[:2])
      if not stream.codec_context.is_open:
        stream.height, stream.width = height, width
      picture = np.ascontiguousarray(picture[:height, :width])
      frame = av.VideoFrame.from_ndarray(picture)
      frame.pts, frame.time_base = round(time / _TICK), _TICK
      container.mux(stream.encode(frame))

    yield write
    container.mux(stream.encode())


def read_comment(path: str | os.PathLike) -> str:
  """Returns the comment of `open_writer`; '' if there is none."""
  import av

  try:
    with av.open(_url(path)) as container:
      return container.metadata.get('comment', '')
  except av.FFmpegError:
    return ''


def _url(path):
  return f'file:{path}'  # FFmpeg would take the 10 of 10:30.mp4 for a scheme.


def _decode(av, container, path):
  del path
  count, start = 0, None
  try:
    for frame in container.decode(video=0):
      time = fractions.Fraction(frame.pts) * frame.time_base
      start = time if start is None else start
      image = np.rot90(frame.to_ndarray(format='rgb24'), frame.rotation // 90)
      yield Frame(count, time - start, image)
      count += 1
  except av.FFmpegError:
    yield Frame(count, None, None)
