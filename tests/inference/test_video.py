"""Video files in and out."""

import fractions

import av
import numpy as np
import pytest

from input_pipeline import images
from sgde_jax.inference import video

_RATE = 25


def _pictures(count=5, *, size=(48, 80)):
  """Frames of one grey each, the left half brighter: H.264 keeps them."""
  frames = np.zeros((count, *size, 3), np.uint8)
  frames += np.arange(40, 40 + 20 * count, 20, np.uint8)[:, None, None, None]
  frames[:, :, : size[1] // 2] += 60
  return frames


def _write(path, pictures):
  with video.open_writer(path) as write:
    for number, picture in enumerate(pictures):
      write(picture, fractions.Fraction(number, _RATE))
  return path


def _read(path):
  with video.open_reader(path) as reader:
    return np.stack([frame.image for frame in reader.frames]), reader.rate


def _frames(path):
  with video.open_reader(path) as reader:
    frames = list(reader.frames)
    assert [frame.number for frame in frames] == list(range(reader.count))
  return frames


def _encode(
  path,
  pictures,
  codec='libx264',
  *,
  times=None,
  pix_fmt='yuv420p',
  options=None,
  matrix=None,
  container_options=None,
  **settings,
):
  """Writes a video as other programs do; `times` are in milliseconds."""
  with av.open(str(path), 'w', options=container_options or {}) as container:
    stream = container.add_stream(codec, rate=_RATE, options=options or {})
    frames = [
      av.VideoFrame.from_ndarray(picture)
      if isinstance(picture, np.ndarray)
      else picture
      for picture in pictures
    ]
    stream.height, stream.width = frames[0].height, frames[0].width
    stream.pix_fmt = pix_fmt
    if times is not None:
      stream.codec_context.time_base = fractions.Fraction(1, 1000)
    for name, value in settings.items():
      setattr(stream.codec_context, name, value)
    if matrix is not None:
      stream.set_display_rotation(*matrix)
    for number, frame in enumerate(frames):
      if times is not None:
        frame.pts = times[number]
        frame.time_base = stream.codec_context.time_base
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def _numbered(count=30):
  """Frames whose grey is their number, below a noise that fills packets."""
  random = np.random.default_rng(0)
  frames = np.zeros((count, 48, 80, 3), np.uint8)
  frames += np.arange(20, 20 + 7 * count, 7, np.uint8)[:, None, None, None]
  frames[:, :12] = random.integers(0, 256, frames[:, :12].shape)
  return frames


def _shown_numbers(frames):
  """Returns the number that each picture shows; None for a damaged frame."""
  return [
    None if frame.image is None else round((frame.image[30].mean() - 20) / 7)
    for frame in frames
  ]


def _damage(path, number):
  """Overwrites a packet by noise."""
  with av.open(str(path)) as container:
    packets = [bytes(packet) for packet in container.demux(video=0)]
  content = path.read_bytes()
  assert content.count(packets[number]) == 1
  noise = np.random.default_rng(1).bytes(len(packets[number]))
  path.write_bytes(content.replace(packets[number], noise))


def test_name_may_contain_a_colon(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  frames, _ = _read(_write('10:30.mp4', _pictures()))
  assert len(frames) == 5


def test_frames_round_trip(tmp_path):
  pictures = _pictures()
  path = _write(tmp_path / 'new' / 'a.mp4', pictures)
  assert [file.name for file in path.parent.iterdir()] == ['a.mp4']
  frames, rate = _read(path)
  assert rate == _RATE
  assert frames.shape == pictures.shape and frames.dtype == np.uint8
  # Away from the step in the middle, which the coding of colours blurs.
  difference = np.abs(frames.astype(int) - pictures)[:, :, [0, 20, 60, 79]]
  assert difference.max() <= 6


def test_odd_row_and_column_are_left_out(tmp_path):
  path = _write(tmp_path / 'odd.mp4', _pictures(size=(49, 81)))
  assert _read(path)[0].shape == (5, 48, 80, 3)


def test_interrupted_video_leaves_nothing(tmp_path):
  writer = video.open_writer(tmp_path / 'a.mp4')
  with pytest.raises(KeyboardInterrupt), writer as write:
    write(_pictures()[0], fractions.Fraction(0))
    raise KeyboardInterrupt
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kept', [0, 500])
def test_damaged_files(tmp_path, kept):
  path = _write(tmp_path / 'a.mp4', _pictures())
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(ValueError, match='Invalid data') as caught:
    _read(path)
  assert str(path) in str(caught.value)


def test_file_with_only_sound_raises(tmp_path):
  path = tmp_path / 'sound.mp4'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=16000)
    samples = np.zeros((1, 4096), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format='fltp', layout='mono')
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  with pytest.raises(images.UnreadableError, match='it has no video'):
    _read(path)


_INTRA = {'g': '1', 'qscale': '2', 'qmax': '2'}


@pytest.mark.parametrize(
  ('name', 'codec', 'settings'),
  [
    ('a.mp4', 'libx264', {}),
    ('a.mkv', 'libx264', {}),
    ('b-frames.avi', 'libx264', {}),
    ('a.avi', 'mpeg4', {'options': _INTRA}),
    ('a.mov', 'mpeg4', {'options': _INTRA}),
    ('a.m4v', 'mpeg4', {'options': _INTRA}),
    ('jpeg.avi', 'mjpeg', {'pix_fmt': 'yuvj420p'}),
    ('ffv1.mkv', 'ffv1', {'options': {'g': '1'}}),
    ('a.webm', 'libvpx-vp9', {'options': {'g': '1', 'deadline': 'realtime'}}),
    ('8.webm', 'libvpx', {'options': {'g': '1', 'deadline': 'realtime'}}),
  ],
)
@pytest.mark.parametrize('number', [12, 29])
def test_damaged_packet_costs_its_own_frame(
  tmp_path, name, codec, settings, number
):
  path = _encode(tmp_path / name, _numbered(), codec, **settings)
  numbers = list(range(30))
  assert _shown_numbers(_frames(path)) == numbers
  _damage(path, number)
  numbers[number] = None
  assert _shown_numbers(_frames(path)) == numbers


@pytest.mark.parametrize(
  ('name', 'codec', 'settings'),
  [
    ('a.mkv', 'ffv1', {'options': {'g': '1'}}),
    ('a.webm', 'libvpx-vp9', {'options': {'g': '1', 'deadline': 'realtime'}}),
    ('jpeg.avi', 'mjpeg', {'pix_fmt': 'yuvj420p'}),
    ('a.avi', 'mpeg4', {'options': _INTRA}),
  ],
)
def test_damaged_packet_headers_shift_no_numbers(
  tmp_path, name, codec, settings
):
  path = _encode(tmp_path / name, _numbered(), codec, **settings)
  with av.open(str(path)) as container:
    packets = [bytes(packet) for packet in container.demux(video=0)]
  content = bytearray(path.read_bytes())
  start = content.index(packets[12])
  content[start - 6 : start + 10] = bytes(16)
  path.write_bytes(content)
  shown = _shown_numbers(_frames(path))
  assert len(shown) == 30 and shown[12] is None
  # Finding the next packet may cost some.
  assert shown.count(None) <= 5
  for number, found in enumerate(shown):
    assert found in (number, None)


def test_frames_beyond_the_end_of_a_cut_file_are_damaged(tmp_path):
  path = _encode(
    tmp_path / 'a.mp4',
    _numbered(),
    options={'bf': '0'},
    container_options={'movflags': 'faststart'},  # Puts the index first.
  )
  content = path.read_bytes()
  path.write_bytes(content[: len(content) * 2 // 3])
  shown = _shown_numbers(_frames(path))
  cut = shown.index(None)
  assert 10 < cut < 28
  assert shown == list(range(cut)) + [None] * (30 - cut)


_TIMES = [0, 33, 500, 520, 3000]


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4', 'a.webm', 'a.mov'])
@pytest.mark.parametrize('start', [0, 700])
def test_variable_times_are_kept(tmp_path, name, start):
  codec = 'libvpx' if name == 'a.webm' else 'libx264'
  times = [start + time for time in _TIMES]
  path = _encode(tmp_path / name, _pictures(), codec, times=times)
  frames = _frames(path)
  assert [frame.time * 1000 for frame in frames] == _TIMES
  with video.open_writer(tmp_path / 'out.mp4') as write:
    for frame in frames:
      write(frame.image, frame.time, frame.duration)
  found = _frames(tmp_path / 'out.mp4')
  assert [frame.time for frame in found] == [frame.time for frame in frames]
  assert found[-1].duration == frames[-1].duration
  with av.open(str(tmp_path / 'out.mp4')) as container:
    stream = container.streams.video[0]
    duration = stream.duration * stream.time_base
  assert duration == frames[-1].time + frames[-1].duration


def test_durations_are_kept_at_broadcast_rates(tmp_path):
  rate = fractions.Fraction(24000, 1001)
  with video.open_writer(tmp_path / 'a.mp4') as write:
    for number, picture in enumerate(_pictures()):
      write(picture, number / rate)
  for number, frame in enumerate(_frames(tmp_path / 'a.mp4')):
    assert abs(frame.time - number / rate) < 1e-5
    assert abs(frame.duration - 1 / rate) < 3e-5


@pytest.mark.parametrize('count', [1, 2])
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.avi', 'a.m4v'])
def test_short_videos(tmp_path, name, count):
  codec = 'mpeg4' if name == 'a.m4v' else 'libx264'
  frames = _frames(_encode(tmp_path / name, _pictures(count), codec))
  assert [frame.time for frame in frames] == [0, fractions.Fraction(1, _RATE)][
    :count
  ]
  assert frames[-1].duration == fractions.Fraction(1, _RATE)


def test_frames_outside_an_edit_list_are_left_out(tmp_path):
  path = _encode(
    tmp_path / 'a.mp4',
    _numbered(10),
    'mpeg4',
    times=range(-120, 280, 40),
    options={'qscale': '2', 'qmax': '2'},
  )
  frames = _frames(path)
  assert _shown_numbers(frames) == list(range(3, 10))
  assert frames[1].time == fractions.Fraction(40, 1000)


@pytest.mark.parametrize('mirrored', [False, True])
@pytest.mark.parametrize('degrees', [0, 90, 180, 270])
def test_frames_are_turned_and_mirrored_upright(tmp_path, degrees, mirrored):
  stored = np.zeros((48, 80, 3), np.uint8)
  stored[:24, :40], stored[:24, 40:] = 60, 110
  stored[24:, :40], stored[24:, 40:] = 160, 210
  path = _encode(
    tmp_path / 'a.mp4',
    [stored] * 2,
    matrix=(degrees, mirrored),
    sample_aspect_ratio=fractions.Fraction(4, 3),
  )
  upright = np.rot90(stored, degrees // 90)
  upright = upright[:, ::-1] if mirrored else upright
  for frame in _frames(path):
    assert frame.image.shape == upright.shape
    difference = np.abs(frame.image.astype(int) - upright)
    assert np.median(difference) <= 3 and difference.mean() < 5
    is_turned = degrees in (90, 270)
    assert frame.pixel_aspect == fractions.Fraction(4, 3) ** (
      -1 if is_turned else 1
    )


def test_pixel_aspect_is_written(tmp_path):
  aspect = fractions.Fraction(16, 11)
  with video.open_writer(tmp_path / 'a.mp4') as write:
    write(_pictures()[0], 0, pixel_aspect=aspect)
  (frame,) = _frames(tmp_path / 'a.mp4')
  assert frame.pixel_aspect == aspect
  with av.open(str(tmp_path / 'a.mp4')) as container:
    assert container.streams.video[0].sample_aspect_ratio == aspect


_COLOUR = np.array([200, 60, 30])


@pytest.mark.parametrize(
  ('matrix', 'tag', 'size'),
  [
    ('ITU601', 6, (48, 1280)),
    ('ITU709', 1, (48, 80)),
    ('BT2020', 9, (48, 80)),
    ('ITU601', 2, (48, 80)),  # No matrix stated: by the size.
    ('ITU709', 2, (48, 1280)),
  ],
)
@pytest.mark.parametrize(('extent', 'extent_tag'), [('MPEG', 1), ('JPEG', 2)])
def test_colours_are_converted_as_tagged(
  tmp_path, matrix, tag, size, extent, extent_tag
):
  picture = np.zeros((*size, 3), np.uint8) + _COLOUR.astype(np.uint8)
  frame = av.VideoFrame.from_ndarray(picture).reformat(
    format='yuv420p', dst_colorspace=matrix, dst_color_range=extent
  )
  frame.colorspace = tag
  path = _encode(
    tmp_path / 'a.mp4', [frame], colorspace=tag, color_range=extent_tag
  )
  (found,) = _frames(path)
  assert np.abs(found.image - _COLOUR).max() <= 4


def test_colours_are_tagged_as_written(tmp_path):
  picture = np.zeros((48, 80, 3), np.uint8) + _COLOUR.astype(np.uint8)
  path = _write(tmp_path / 'a.mp4', [picture])
  with av.open(str(path)) as container:
    context = container.streams.video[0].codec_context
    tags = context.colorspace, context.color_range, context.color_primaries
    assert tags == (1, 1, 1)
  (frame,) = _frames(path)
  assert np.abs(frame.image - _COLOUR).max() <= 4


def test_cover_pictures_are_no_videos(tmp_path):
  path = tmp_path / 'a.mp4'
  with av.open(str(path), 'w') as container:
    cover = container.add_stream('mjpeg', pix_fmt='yuvj420p')
    cover.disposition = av.stream.Disposition.attached_pic
    cover.height, cover.width = 16, 16
    sound = container.add_stream('aac', rate=16000)
    black = np.zeros((16, 16, 3), np.uint8)
    packets = cover.encode(av.VideoFrame.from_ndarray(black))
    samples = np.zeros((1, 4096), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format='fltp', layout='mono')
    frame.sample_rate = 16000
    container.mux(packets + sound.encode(frame))
    container.mux(sound.encode())
  with pytest.raises(images.UnreadableError, match='it has no video'):
    _read(path)
