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


def test_frames_are_rotated_upright(tmp_path):
  path = _write(tmp_path / 'phone.mp4', _pictures())
  content = bytearray(path.read_bytes())
  # The matrix of the track's header, which a phone held upright sets to a
  # quarter turn clockwise: x to y and y to -x instead of the identity.
  start = content.index(b'tkhd') + 4 + 40
  one, zero, minus = (
    value.to_bytes(4, 'big', signed=True) for value in (1 << 16, 0, -1 << 16)
  )
  assert content[start : start + 20] == one + 3 * zero + one
  content[start : start + 20] = zero + one + zero + minus + zero
  path.write_bytes(content)
  frames, _ = _read(path)
  assert frames.shape == (5, 80, 48, 3)
  # The left half is now at the top.
  assert frames[0, :30].mean() > frames[0, 50:].mean() + 40


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


def test_frames_before_a_damaged_one_are_read(tmp_path):
  path = _write(tmp_path / 'a.mp4', _pictures())

  class Damaged:
    """A container that fails after two frames."""

    def __init__(self, container):
      self._container = container

    def decode(self, **kwargs):
      frames = self._container.decode(**kwargs)
      yield next(frames)
      yield next(frames)
      raise av.error.InvalidDataError(1, 'Invalid data')

  with av.open(str(path)) as container:
    frames = video._decode(av, Damaged(container), path)
    found = list(frames)
  assert [frame.number for frame in found] == [0, 1, 2]
  assert [frame.image is None for frame in found] == [False, False, True]
