"""Video files: frames in, pictures out, by PyAV.

PyAV is imported when a video is opened; all else runs without it.
"""

import contextlib
import itertools

import numpy as np

from input_pipeline import files, images

SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.webm')


@contextlib.contextmanager
def open_reader(path):
  """Opens a video; a context manager.

  Args:
    path: the file, of any coding that FFmpeg knows.

  Yields:
    (frames, rate): an iterator of `[H, W, 3]` uint8 frames, turned as the file
    says that they are to be shown, and frames per second, a fraction. The
    iterator raises `input_pipeline.images.UnreadableError` where a frame cannot
    be decoded; the message says how many could.

  Raises:
    input_pipeline.images.UnreadableError: the file is no video.
    ValueError: PyAV is not installed.
  """
  av = _import_av()
  try:
    container = av.open(_url(path))
  except av.FFmpegError as error:
    raise images.UnreadableError(
      f'{path} cannot be read: {error.strerror}'
    ) from error
  with container:
    if not container.streams.video:
      raise images.UnreadableError(f'{path} cannot be read: it has no video')
    stream = container.streams.video[0]
    stream.thread_type = 'AUTO'
    frames = _decode(av, container, path)
    first = next(frames, None)
    if first is None:
      raise images.UnreadableError(f'{path} cannot be read: it has no frames')
    yield itertools.chain([first], frames), stream.guessed_rate


@contextlib.contextmanager
def open_writer(path, rate):
  """Opens an H.264 video that will be whole or absent; a context manager.

  Args:
    path: the file, by its suffix an `.mp4`; its folder is made.
    rate: frames per second, a fraction.

  Yields:
    A function that takes the next `[H, W, 3]` uint8 picture, all of one size.
    An odd last row or column is left out.
  """
  av = _import_av()
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
  return f'file:{path}'  # Else FFmpeg takes the 10 of 10:30.mp4 for a scheme.


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


def _import_av():
  try:
    import av
  except ImportError as error:
    raise ValueError('videos need PyAV: pip install av') from error
  return av
