"""Predictions never overwrite the user's files."""

import pytest

from sgde_jax.inference import images
from tests.support import predictions, runs


def _write(path):
  if path.suffix == '.avi':
    return predictions.write_video(path)
  return predictions.write_image(path)


def test_output_that_is_a_file(root, tmp_path):
  path = predictions.write_image(tmp_path / 'one.png')
  message = predictions.failure(root, ValueError, path, path)
  assert f'{path} cannot be written to' in message


def test_two_images_with_the_same_name(root, tmp_path):
  predictions.write_image(tmp_path / 'same.png')
  predictions.write_image(tmp_path / 'same.jpg')
  message = predictions.failure(root, ValueError, tmp_path, tmp_path / 'out')
  assert 'has the same name' in message


def test_video_that_would_be_overwritten(root, tmp_path):
  source = predictions.write_video(tmp_path / 'drive.mp4')
  before = source.read_bytes()
  message = predictions.failure(
    root, ValueError, source, tmp_path, write=['video']
  )
  assert f'would overwrite {source}' in message
  assert source.read_bytes() == before


@pytest.mark.parametrize(
  ('name', 'mine'),
  [
    ('a.jpg', 'a.png'),
    ('a.jpg', 'a.npy'),
    ('a.avi', 'a/000000.png'),
    ('a.avi', 'a/000000.npy'),
  ],
)
@pytest.mark.parametrize('folder', ['', 'out'])
def test_own_files_are_not_overwritten(root, tmp_path, name, mine, folder):
  source = _write(tmp_path / name)
  mine = tmp_path / folder / mine
  mine.parent.mkdir(parents=True, exist_ok=True)
  mine.write_text('mine')
  message = predictions.failure(root, ValueError, source, tmp_path / folder)
  assert f'{mine} exists and is not an earlier result' in message
  assert mine.read_text() == 'mine'


@pytest.mark.parametrize(
  ('kind', 'name'),
  [
    ('png16', 'a.png'),
    ('overlay', 'a.png'),
    ('ply', 'a.ply'),
    ('labels', 'a.png'),
    ('labels', 'coloured/a.png'),
    ('trajectory', 'in.txt'),
    ('trajectory', 'in.png'),
    ('video', 'in.mp4'),
  ],
)
def test_every_kind_keeps_own_files(root, tmp_path, kind, name):
  source = _write(tmp_path / 'in' / 'a.jpg')
  _write(tmp_path / 'in' / 'b.jpg')
  mine = tmp_path / 'out' / name
  mine.parent.mkdir(parents=True)
  mine.write_text('mine')
  message = predictions.failure(
    root,
    ValueError,
    source.parent,
    tmp_path / 'out',
    write=[kind],
    fov=90.0,
  )
  assert f'{mine} exists and is not an earlier result' in message


def test_frames_of_another_camera_are_protected(root, tmp_path):
  frames = tmp_path / 'D/R/image_02/data'
  source = predictions.write_image(frames / '0000000000.jpg')
  other = tmp_path / 'D/R/image_03/data'
  other.mkdir(parents=True)
  message = predictions.failure(root, ValueError, source, other)
  assert 'would lie among the frames' in message


def test_depth_picture_is_not_mistaken_for_a_mask(root, tmp_path):
  source = predictions.write_image(tmp_path / 'in' / 'a.jpg')
  picture = predictions.write_image(tmp_path / 'out' / 'a.png')
  with pytest.raises(ValueError, match=f'{picture} exists and is not an earl'):
    images.predict(
      runs.make_config(root),
      tmp_path,
      source,
      tmp_path / 'out',
      write=['labels'],
    )


@pytest.mark.parametrize('write', ['inverse_depth', 'labels'])
@pytest.mark.parametrize('folder', ['', 'data'])
def test_frames_of_a_drive_are_protected(root, tmp_path, folder, write):
  frames = tmp_path / 'D/R/image_02'
  predictions.write_image(frames / 'data' / '0000000000.jpg')
  source = frames / folder
  with pytest.raises(ValueError, match='would lie among the frames'):
    images.predict(
      runs.make_config(root), tmp_path, source, source, write=[write]
    )
  assert len(list(frames.rglob('*.*'))) == 1
