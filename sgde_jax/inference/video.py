"""Video files by PyAV, imported when one is opened."""

import contextlib
import dataclasses
import fractions
import itertools
import os
from collections.abc import Callable, Iterator

import numpy as np

from input_pipeline import files, images

SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.webm')

_TICK = fractions.Fraction(1, 90000)  # Fits the usual rates within 6 us.
_LONGEST = 2**31 - 1  # Ticks between two frames, about 6.6 hours.
_USUAL_RATE = 25  # Of a file that states no times.
_MAX_PIXELS = 2**27  # A damaged header must not ask for all memory.
_MOST_REORDERED = 16  # Frames between a frame and its place, as in H.264.
_MOST_BETWEEN = 64  # Bytes between packets of Matroska, besides lost ones.
_HIDDEN = -1  # The number of a packet that shows no frame.
_SQUARE = fractions.Fraction(1)
# From H.273: matrices that swscale knows by the same number, and our output.
_MATRICES = (1, 4, 5, 6, 7, 9)
_BT709 = _LIMITED = 1


@dataclasses.dataclass(frozen=True)
class Frame:
  """A frame of a video.

  Attributes:
    number: its index in the video, from 0; damaged frames count.
    time: seconds since the first frame.
    duration: seconds until the next frame, or the end.
    image: `[H, W, 3]` uint8 RGB, upright; None if the frame is damaged.
    pixel_aspect: width of a pixel of `image` divided by its height.
  """

  number: int
  time: fractions.Fraction
  duration: fractions.Fraction
  image: np.ndarray | None
  pixel_aspect: fractions.Fraction = _SQUARE


@dataclasses.dataclass(frozen=True)
class VideoReader:
  """An open video.

  Attributes:
    frames: all its frames, in the order of their times.
    count: their number.
    rate: their average number per second.
  """

  frames: Iterator[Frame]
  count: int
  rate: fractions.Fraction


@contextlib.contextmanager
def open_reader(path: str | os.PathLike) -> Iterator[VideoReader]:
  """Opens the first video of a file; a context manager.

  A damaged frame has no image, and those after it are decoded. A frame is
  damaged if the decoder returns nothing for its packet or reports an error in
  it, or if the file ends before it. Frames that are coded as changes of a
  damaged one are decoded from what is left of it and may show traces.

  Frames are turned and mirrored as the file states; pixels that are not square
  are kept as stored. Colours are converted by the stated matrix and range. The
  matrix is otherwise BT.709 from 577 rows or 1280 columns on, and BT.601 below.
  High dynamic range is not tone-mapped.

  Raises:
    images.UnreadableError: if the file has no frame that can be decoded.
  """
  import av

  with _open(av, path) as (container, stream):
    index = _read_index(av, container, stream)
  with _open(av, path) as (container, stream):
    # Threads per frame lose the frames after an error in the last packets, and
    # threads per slice do not report what was concealed in H.264.
    stream.thread_type = 'NONE'
    stream.codec_context.options = {'max_pixels': str(_MAX_PIXELS)}
    frames = _read_frames(av, container, stream, index)
    first = []
    for frame in frames:
      first.append(frame)
      if frame.image is not None:
        break
    else:
      raise images.UnreadableError(
        f'{path} cannot be read: no frame of its video can be decoded'
      )
    frames = itertools.chain(first, frames)
    rate = index.count / index.time(index.count)
    yield VideoReader(frames, index.count, rate)


@contextlib.contextmanager
def open_writer(
  path: str | os.PathLike, *, comment: str = ''
) -> Iterator[Callable[..., None]]:
  """Writes an H.264 video whole or not at all; a context manager.

  `comment` is stored in the file, see `read_comment`. Colours are written as
  BT.709 in limited range, and tagged so.

  Yields:
    A function `write(picture, time, duration=None, pixel_aspect=1)` of the
    next `[H, W, 3]` uint8 picture, all of one size, and of its fields as in
    `Frame`. An odd last row or column is left out. Without `duration`, the
    last picture stays as long as the one before.
  """
  import av

  with (
    files.whole_file(path) as partial,
    av.open(_url(partial), 'w') as container,
  ):
    container.metadata['comment'] = comment
    # Without B-frames, packets come in the order of their times.
    stream = container.add_stream(
      'libx264', pix_fmt='yuv420p', options={'bf': '0'}
    )
    context = stream.codec_context
    context.time_base = _TICK
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    held, tick, length = [], -1, None

    def write(picture, time, duration=None, pixel_aspect=_SQUARE):
      nonlocal tick, length
      height, width = (side - side % 2 for side in picture.shape[:2])
      if not context.is_open:
        context.height, context.width = height, width
        context.sample_aspect_ratio = pixel_aspect
      picture = np.ascontiguousarray(picture[:height, :width])
      frame = av.VideoFrame.from_ndarray(picture).reformat(
        format='yuv420p', dst_colorspace='ITU709', dst_color_range='MPEG'
      )
      earlier, tick = tick, round(time / _TICK)
      tick = min(max(tick, earlier + 1), earlier + _LONGEST)
      if duration is not None:
        length = round(duration / _TICK)
      elif earlier >= 0:
        length = tick - earlier
      frame.pts, frame.time_base = tick, _TICK
      mux(stream.encode(frame))

    def mux(packets):
      held.extend(packets)
      container.mux(held[:-1])
      del held[:-1]

    yield write
    mux(stream.encode())
    for packet in held:  # The last one.
      packet.duration = min(max(1, length or 0), _LONGEST)
      container.mux(packet)


def read_comment(path: str | os.PathLike) -> str:
  """Returns the comment of `open_writer`; '' if there is none."""
  import av

  try:
    with av.open(_url(path)) as container:
      return container.metadata.get('comment', '')
  except av.FFmpegError:
    return ''


@dataclasses.dataclass(frozen=True)
class _Index:
  """The frames of a video, from its packets.

  Attributes:
    numbers: of the frame of each packet, in the order of decoding.
    is_ordered: whether they follow from the file's times; otherwise frames are
      numbered in the order of decoding.
    lost: numbers of frames without a packet.
    ticks: times of the frames by number, and of the end.
    unit: seconds per tick.
  """

  numbers: list[int]
  is_ordered: bool
  lost: list[int]
  ticks: list[int | fractions.Fraction]
  unit: fractions.Fraction

  @property
  def count(self) -> int:
    return len(self.ticks) - 1

  def time(self, number: int) -> fractions.Fraction:
    """Returns the seconds from the first frame to a frame or the end."""
    return (self.ticks[number] - self.ticks[0]) * self.unit


def _url(path):
  return f'file:{path}'  # FFmpeg would take the 10 of 10:30.mp4 for a scheme.


@contextlib.contextmanager
def _open(av, path):
  """Yields a container and its first video that is no cover picture."""
  with av.open(_url(path)) as container:
    cover = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
      if stream.codec_context and not stream.disposition & cover:
        yield container, stream
        return
    raise images.UnreadableError(f'{path} cannot be read: it has no video')


def _read_index(av, container, stream):
  """Reads all packets, without decoding them."""
  hidden, shown, holes, end, total = [], [], {}, None, 0
  is_complete = False
  with contextlib.suppress(av.FFmpegError):
    for packet in container.demux():
      if packet.pos is not None:
        hole = 0 if end is None else packet.pos - end
        end = packet.pos + packet.size
        if hole > _MOST_BETWEEN:
          holes[len(shown)] = holes.get(len(shown), 0) + hole
      if packet.stream_index != stream.index:
        continue
      total += packet.dts is not None  # The last one only marks the end.
      if packet.size:
        hidden.append(_is_hidden(stream, packet))
        if not hidden[-1]:
          shown.append((packet.pts, packet.dts, packet.duration, packet.pos))
    is_complete = True
  times, lost, is_ordered = _find_times(container, stream, shown, holes)
  count, times = len(times), [*times, *lost]
  order = sorted(range(len(times)), key=times.__getitem__)
  ranks = np.argsort(order).tolist()
  numbers = iter(ranks[:count])
  numbers = [_HIDDEN if is_hidden else next(numbers) for is_hidden in hidden]
  ticks = [times[i] for i in order]
  last = shown[order[-1]][2] if order and order[-1] < count else 0
  if last <= 0 and len(ticks) > 1:
    last = ticks[-1] - ticks[-2]
  if last <= 0:
    rate = fractions.Fraction(stream.guessed_rate or _USUAL_RATE)
    last = 1 / rate / stream.time_base
  cut = int(not is_complete)
  if container.format.name.startswith('mov'):  # It lists all its packets.
    cut = max(cut, len(stream.index_entries) - total)
  end = ticks[-1] + last if ticks else 0
  ticks += [end + i * last for i in range(cut + 1)]
  return _Index(numbers, is_ordered, ranks[count:], ticks, stream.time_base)


def _find_times(container, stream, shown, holes):
  """Returns times of packets, those of lost ones, and if frames have them."""
  pts, dts, _, places = zip(*shown, strict=True) if shown else [()] * 4
  if container.format.name == 'avi':
    return *_find_in_avi(stream, dts, places), False
  if None in pts or container.format.name == 'm4v':  # It states no times.
    if None not in dts:
      return dts, [], False
    rate = fractions.Fraction(stream.guessed_rate or _USUAL_RATE)
    return [i / rate / stream.time_base for i in range(len(dts))], [], False
  times, lost = _repair(list(pts)), []
  # Holes everywhere are other data, such as transparency.
  if container.format.name == 'matroska,webm' and len(holes) <= max(
    1, len(pts) // 10
  ):
    lost = _find_gaps(times, holes)
  return times, lost, True


def _find_in_avi(stream, dts, places):
  """Returns times of packets, and of those that only the index has."""
  header = 8  # Bytes before each packet.
  entries = {entry.pos + header: entry for entry in stream.index_entries}
  found = set(places)
  if not found <= entries.keys():
    return dts, []
  lost = [
    entry.timestamp
    for place, entry in entries.items()
    if entry.size and place not in found
  ]
  return [entries[place].timestamp for place in places], lost


def _find_gaps(ticks, holes):
  """Returns times of the frames that were where the file has unknown bytes.

  Args:
    ticks: times of frames, in the order of decoding.
    holes: unknown bytes before the packet at a position.
  """
  times, lost = sorted(ticks), []
  usual = float(np.median(np.diff(times))) if len(times) > 1 else 0
  for position, size in holes.items() if usual > 0 else ():
    first = max(position - _MOST_REORDERED, 1)
    near = times[first - 1 : position + _MOST_REORDERED]
    for time, following in itertools.pairwise(near):
      count = min(round((following - time) / usual) - 1, size // 8)
      lost += [time + round(i * usual) for i in range(1, count + 1)]
  return sorted(set(lost))


def _repair(ticks):
  """Replaces times that cannot be true by that of the packet before."""
  order = sorted(range(len(ticks)), key=ticks.__getitem__)
  far = [
    position
    for rank, position in enumerate(order)
    if abs(rank - position) > _MOST_REORDERED
  ]
  for position in sorted(far):
    ticks[position] = ticks[position - 1] if position else min(ticks)
  return ticks


def _is_hidden(stream, packet):
  """Returns whether a packet is decoded but has no frame to show."""
  if packet.is_discard:  # Before or after what an edit list shows.
    return True
  if stream.codec_context.name == 'vp8':  # A reference of later frames only.
    return memoryview(packet)[0] & 0x11 == 0x01
  return False


def _read_frames(av, container, stream, index):
  aspect, expected = stream.sample_aspect_ratio or _SQUARE, 0

  def make(number, image, pixel_aspect):
    time = index.time(number)
    duration = index.time(number + 1) - time
    return Frame(number, time, duration, image, pixel_aspect)

  decoded = _decode(av, container, stream, index)
  if not index.is_ordered:
    is_reordered = stream.codec_context.has_b_frames
    window = _MOST_REORDERED if is_reordered else 0
    decoded = _number(decoded, window, index.lost)
  for number, picture in decoded:
    if picture is not None and expected <= number < index.count:
      try:
        image, is_turned = _upright(picture)
      except av.FFmpegError:
        continue
      for damaged in range(expected, number):
        yield make(damaged, None, aspect)
      yield make(number, image, 1 / aspect if is_turned else aspect)
      expected = number + 1
  for damaged in range(expected, index.count):
    yield make(damaged, None, aspect)


def _decode(av, container, stream, index):
  """Yields numbers and pictures of frames; None where decoding failed."""
  numbers = iter(index.numbers)
  for packet in _packets(av, container, stream):
    number = _HIDDEN
    if packet is not None:  # The decoder hands its time on to the frame.
      number = next(numbers, _HIDDEN)
      packet.pts, packet.dts = number, None
    try:
      frames = stream.decode(packet)
    except av.FFmpegError:
      yield number, None
      continue
    for frame in frames:
      if frame.pts is not None:
        yield frame.pts, None if frame.is_corrupt else frame


def _number(decoded, window, absent):
  """Turns numbers in the order of decoding into those of the frames' order.

  The place of a damaged frame is known as well as the decoder lets it be: after
  the frames that came before its failure.
  """
  count, highest, failed, waiting = 0, -1, set(absent), set()
  for position, picture in decoded:
    if picture is None:
      failed.add(position)
      continue
    waiting.update(range(highest + 1, position + 1))
    if position not in waiting:  # It comes too late.
      continue
    highest = max(highest, position)
    waiting.remove(position)
    lost = {
      other
      for other in waiting
      if other < position and (other in failed or other < position - window)
    }
    waiting -= lost
    failed -= lost
    count += len(lost)
    yield count, picture
    count += 1


def _packets(av, container, stream):
  """Yields the packets up to the first unreadable one, and None as the end."""
  with contextlib.suppress(av.FFmpegError):
    for packet in container.demux(stream):
      if packet.size:
        yield packet
  yield None


def _upright(frame):
  """Returns a frame's picture, and whether its rows have become columns."""
  matrix = frame.colorspace
  if matrix not in _MATRICES:
    is_large = frame.height > 576 or frame.width >= 1280
    matrix = 'ITU709' if is_large else 'ITU601'
  image = frame.to_ndarray(format='rgb24', src_colorspace=matrix)
  # (x, y) is shown at (a x + c y, b x + d y), up to a shift.
  a, b, _, c, d = _display_matrix(frame)[:5]
  is_turned = abs(b) + abs(c) > abs(a) + abs(d)
  if is_turned:
    image, a, d = image.swapaxes(0, 1), c, b
  image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
  return np.ascontiguousarray(image), is_turned


def _display_matrix(frame):
  """Returns the matrix of where pixels are shown, row by row."""
  try:
    found = frame.side_data.get('DISPLAYMATRIX')
  except ValueError:  # PyAV lacks the name of some other data of the frame.
    quarter = round(frame.rotation / 90) % 4
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
    return cosine, -sine, 0, sine, cosine
  if found is None:
    return 1, 0, 0, 0, 1
  return np.frombuffer(found, np.int32).tolist()
