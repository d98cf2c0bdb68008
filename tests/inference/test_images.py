"""Prediction: files for every image, and messages for unreadable ones."""

import fractions
import os
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from input_pipeline import images
from sgde_jax.inference import images as predict
from sgde_jax.inference import predictor as inference
from tests.support import kitti_folder, predictions, runs


def _check_result(output, name, size):
  """Checks the two files of an image; returns the disparity."""
  disparity = np.load(output / f'{name}.npy')
  assert disparity.dtype == np.float32
  assert disparity.shape == size
  # Inverse depth between those of 100 m and 0.1 m.
  assert disparity.min() > 0.01
  assert disparity.max() < 10
  picture = np.array(Image.open(output / f'{name}.png'))
  assert picture.shape == (*size, 3)
  assert picture.std() > 0
  return disparity


@pytest.mark.slow
def test_folder_and_single_file(root, trained, tmp_path, capsys, one_device):
  config = runs.make_config(root)
  folder = tmp_path / 'images'
  sizes = {'a.png': (40, 80), 'b.JPG': (33, 50), 'c.jpeg': (64, 128)}
  for seed, (name, size) in enumerate(sizes.items()):
    predictions.write_image(folder / name, size=size, seed=seed)
  (folder / 'notes.txt').write_text('no image')
  output = tmp_path / 'out' / 'folder'
  predict.predict(config, trained, folder, output)
  assert f'predictions written to {output}: 3\n' in capsys.readouterr().out
  results = {
    name: _check_result(output, name.split('.')[0], size)
    for name, size in sizes.items()
  }
  assert len(list(output.iterdir())) == 6
  alone = tmp_path / 'out' / 'alone'
  predict.predict(config, trained, folder / 'b.JPG', alone)
  np.testing.assert_allclose(
    _check_result(alone, 'b', (33, 50)), results['b.JPG'], rtol=1e-5
  )
  flipped = tmp_path / 'out' / 'flipped'
  flipping = runs.make_config(root, eval__flip=True)
  predict.predict(flipping, trained, folder / 'a.png', flipped)
  assert (_check_result(flipped, 'a', (40, 80)) != results['a.png']).any()


@pytest.mark.slow
def test_mode_predict(trained, tmp_path):
  image = predictions.write_image(tmp_path / 'one.png')
  output, _ = runs.run_main(
    '--mode=predict',
    f'--workdir={trained}',
    f'--input={image}',
    f'--output={tmp_path / "out"}',
  )
  assert f'predictions written to {tmp_path / "out"}: 1\n' in output
  _check_result(tmp_path / 'out', 'one', (40, 80))


@pytest.mark.slow
def test_names_at_the_edge(trained, tmp_path):
  """Predicts all images and videos, however they are named."""
  source, output = tmp_path / 'in', tmp_path / 'out'
  stems = ['A', 'a', 'x' * 246, os.fsdecode(b'\xff'), 'two\nlines', 'a.b']
  for seed, stem in enumerate(stems):
    ending = '.JPG' if stem == 'A' else '.png'
    predictions.write_image(source / f'{stem}{ending}', seed=seed)
  damaged = source / os.fsdecode(b'\xfe.PNG')
  damaged.write_text('no picture')
  arguments = [
    *('--mode=predict', f'--workdir={trained}', f'--input={source}'),
    *(f'--output={output}', '--write=inverse_depth,ply,video', '--fov=60'),
  ]
  environment = os.environ | {
    'JAX_NUM_CPU_DEVICES': '1',
    'PYTHONIOENCODING': 'ascii:strict',
  }
  reader, writer = os.pipe()
  os.close(reader)
  result = subprocess.run(
    [sys.executable, 'main.py', *arguments],
    cwd=kitti_folder.REPOSITORY,
    env=environment,
    stdout=writer,
    stderr=subprocess.PIPE,
    text=True,
    check=False,
  )
  os.close(writer)
  assert result.returncode == 1
  assert 'unreadable images: 1, others are written' in result.stderr
  assert 'in/\\udcfe.PNG cannot be read' in result.stderr
  assert 'Traceback' not in result.stderr
  for stem in stems:
    _check_result(output / 'inverse_depth', stem, (40, 80))
    assert (output / 'ply' / f'{stem}.ply').is_file()
  assert len(predictions.read_video(output / 'video' / 'in.mp4')[0]) == 6


def test_missing_image(root, tmp_path):
  message = predictions.failure(
    root, FileNotFoundError, tmp_path / 'absent.png', tmp_path / 'out'
  )
  assert f'{tmp_path}/absent.png' in message
  assert not (tmp_path / 'out').exists()


def test_empty_folder(root, tmp_path):
  message = predictions.failure(
    root, FileNotFoundError, tmp_path, tmp_path / 'out'
  )
  assert str(tmp_path) in message
  assert '.jpg' in message


@pytest.mark.parametrize('kept', [0, 20])
def test_corrupted_image(root, tmp_path, kept):
  path = predictions.write_image(tmp_path / 'torn.png')
  path.write_bytes(path.read_bytes()[:kept])
  message = predictions.failure(root, ValueError, path, tmp_path / 'out')
  assert f'{path} cannot be read' in message


@pytest.mark.slow
def test_unreadable_images_do_not_stop_the_others(
  root, trained, tmp_path, one_device, capsys
):
  for name in ('first', 'last'):
    predictions.write_image(tmp_path / f'{name}.png')
  path = predictions.write_image(tmp_path / 'in_between.png')
  path.write_bytes(path.read_bytes()[:-2000])
  (tmp_path / 'headless.png').write_text('no picture')
  Image.fromarray(np.zeros((40, 80), np.uint16)).save(tmp_path / 'deep.png')
  (tmp_path / '._first.png').write_text('what macOS adds: no picture')
  (tmp_path / 'folder.png').mkdir()
  message = predictions.failure(
    root, ValueError, tmp_path, tmp_path / 'out', workdir=trained
  )
  assert 'unreadable images: 3, others are written' in message
  for bad in (path, tmp_path / 'headless.png', tmp_path / 'deep.png'):
    assert f'{bad} cannot be read' in message
  output = capsys.readouterr().out
  assert f'predictions written to {tmp_path / "out"}: 2\n' in output
  for name in ('first', 'last'):
    _check_result(tmp_path / 'out', name, (40, 80))
  assert not (tmp_path / 'out' / 'in_between.npy').exists()


def test_missing_checkpoint(root, tmp_path):
  image = predictions.write_image(tmp_path / 'one.png')
  message = predictions.failure(
    root, FileNotFoundError, image, tmp_path / 'out', tmp_path / 'run'
  )
  assert f'{tmp_path}/run/checkpoints' in message
  assert 'train first' in message
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_labels_are_written_where_training_looks(
  root, trained, tmp_path, one_device, capsys
):
  config = runs.make_config(root)
  kitti = tmp_path / 'kitti'
  for camera, frame in ((2, 0), (2, 1), (3, 0)):
    name = f'D/R/image_0{camera}/data/{frame:010d}.png'
    predictions.write_image(kitti / name)
  predict.predict(config, trained, kitti, kitti, write=['labels'])
  masks = sorted(kitti.rglob('semantic_0*/data/*.png'))
  assert [str(mask.relative_to(kitti)) for mask in masks] == [
    f'D/R/semantic_0{camera}/data/{frame:010d}.png'
    for camera, frame in ((2, 0), (2, 1), (3, 0))
  ]
  for mask in masks:
    found = images.read_mask(mask, coding='train_ids')
    assert found.shape == (40, 80)
    assert found.max() < 19
  # A second run adds the missing mask and keeps the others.
  of_hand = np.full((40, 80), 255, np.uint8)
  Image.fromarray(of_hand).save(masks[0])
  before = masks[1].read_bytes()
  masks[2].unlink()
  capsys.readouterr()
  predict.predict(config, trained, kitti, kitti, write=['labels'])
  assert f'predictions written to {kitti}: 1\n' in capsys.readouterr().out
  np.testing.assert_array_equal(np.array(Image.open(masks[0])), of_hand)
  assert masks[1].read_bytes() == before and masks[2].is_file()
  predict.predict(
    config,
    trained,
    kitti / 'D/R/image_02/data',
    tmp_path / 'out',
    write=['labels'],
  )
  np.testing.assert_array_equal(
    np.array(Image.open(tmp_path / 'out/0000000001.png')),
    np.array(Image.open(masks[1])),
  )


@pytest.mark.slow
def test_video(root, trained, tmp_path, one_device, capsys):
  config = runs.make_config(root)
  source = predictions.write_video(tmp_path / 'drive.mp4')
  output = tmp_path / 'out'
  kinds = ['inverse_depth', 'labels', 'video', 'trajectory']
  predict.predict(config, trained, source, output, write=kinds)
  assert f'predictions written to {output}: 3\n' in capsys.readouterr().out
  frames, times = predictions.read_video(source)
  assert times == [0, fractions.Fraction(1, 10), fractions.Fraction(2, 10)]
  Image.fromarray(frames[2]).save(tmp_path / 'third.png')
  predict.predict(config, trained, tmp_path / 'third.png', tmp_path / 'alone')
  depth = output / 'inverse_depth' / 'drive'
  np.testing.assert_allclose(
    _check_result(depth, '000002', (40, 80)),
    _check_result(tmp_path / 'alone', 'third', (40, 80)),
    rtol=1e-5,
  )
  for frame in range(3):
    mask = output / f'labels/drive/{frame:06d}.png'
    assert images.read_mask(mask, coding='train_ids').shape == (40, 80)
  # The frames above their inverse depth and classes, as fast as before.
  shown, times = predictions.read_video(output / 'video' / 'drive.mp4')
  assert [round(float(time), 3) for time in times] == [0, 0.1, 0.2]
  assert shown[0].shape == (120, 80, 3)
  difference = np.abs(shown[1][:40].astype(float) - frames[1])
  assert difference.mean() < 20 < np.abs(frames[1] - 128.0).mean()
  poses = np.loadtxt(output / 'trajectory' / 'drive.txt')
  assert poses.shape == (3, 8)
  np.testing.assert_allclose(poses[:, 0], [0, 0.1, 0.2], atol=1e-6)
  np.testing.assert_array_equal(poses[0, 1:], [0, 0, 0, 0, 0, 0, 1])
  # The same command has nothing to do; a shorter video leaves no rest.
  (depth / '7 notes.txt').touch()
  before = (depth / '000000.png').stat().st_mtime_ns
  predict.predict(config, trained, source, output, write=kinds)
  assert f'predictions written to {output}: 0\n' in capsys.readouterr().out
  assert (depth / '000000.png').stat().st_mtime_ns == before
  predictions.write_video(source, frames=2)
  predict.predict(config, trained, source, output, write=kinds)
  assert f'predictions written to {output}: 2\n' in capsys.readouterr().out
  assert sorted(path.name for path in depth.iterdir()) == [
    *('000000.npy', '000000.png', '000001.npy', '000001.png', '7 notes.txt')
  ]


@pytest.mark.slow
def test_masks_have_the_coding_of_the_run(root, trained, tmp_path, one_device):
  source = predictions.write_image(tmp_path / 'a.png')
  masks = []
  for coding in ('train_ids', 'ids'):
    config = runs.make_config(root, data__labels=coding)
    predict.predict(
      config, trained, source, tmp_path / coding, write=['labels']
    )
    masks.append(images.read_mask(tmp_path / coding / 'a.png', coding=coding))
  np.testing.assert_array_equal(*masks)


def test_circular_links_are_followed_once(tmp_path):
  frame = predictions.write_image(tmp_path / 'D/R/image_02/data/0000000000.png')
  (tmp_path / 'self').symlink_to(tmp_path)
  (tmp_path / 'D/self').symlink_to(tmp_path / 'D')
  assert predict._list_images(tmp_path) == [frame]


def test_drives_come_before_other_pictures(tmp_path):
  picture = predictions.write_image(tmp_path / 'map.jpg')
  assert predict._list_images(tmp_path) == [picture]
  frame = predictions.write_image(tmp_path / 'D/R/image_02/data/0000000000.png')
  assert predict._list_images(tmp_path) == [frame]


def test_numbered_frames_are_in_temporal_order(tmp_path):
  for name in ('10.png', '9.PNG', '0000000008.jpg', 'last.png'):
    predictions.write_image(tmp_path / name)
  (sequence,) = predict._find_sequences(tmp_path)
  assert [path.stem for path in sequence.paths] == [
    *('0000000008', '9', '10', 'last')
  ]
  assert [item.time for item in sequence.items()] == [8, 9, 10, 3]


@pytest.mark.slow
def test_photos_are_rotated_upright(root, trained, tmp_path, one_device):
  source = predictions.write_image(tmp_path / 'upright.png')
  with Image.open(source) as image:
    exif = image.getexif()
    exif[0x0112] = 6  # Stored lying on its side.
    lying = image.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / 'lying.png', exif=exif)
  for name in ('upright', 'lying'):
    predict.predict(
      runs.make_config(root), trained, tmp_path / f'{name}.png', tmp_path / 'o'
    )
  np.testing.assert_array_equal(
    _check_result(tmp_path / 'o', 'lying', (40, 80)),
    _check_result(tmp_path / 'o', 'upright', (40, 80)),
  )
  predict.predict(  # A mask covers the pixels as training reads them.
    runs.make_config(root),
    trained,
    tmp_path / 'lying.png',
    tmp_path / 'm',
    write=['labels'],
  )
  upright = inference.load(trained).labels(source)
  with Image.open(tmp_path / 'm' / 'lying.png') as mask:
    turned = np.rot90(np.array(mask), -1)
  assert np.mean(turned == upright) > 0.99


def test_file_that_is_not_a_video(root, tmp_path):
  source = tmp_path / 'drive.mp4'
  source.write_text('no video')
  message = predictions.failure(root, ValueError, source, tmp_path / 'out')
  assert str(source) in message
  assert not (tmp_path / 'out').exists()


def test_videos_need_pyav(root, tmp_path, monkeypatch):
  source = predictions.write_video(tmp_path / 'drive.mp4')
  monkeypatch.setitem(sys.modules, 'av', None)
  message = predictions.failure(root, ImportError, source, tmp_path / 'out')
  assert 'av' in message


def test_labels_need_semantics(root, tmp_path):
  config = runs.make_config(
    root,
    model__semantics=False,
    model__seem__enabled=False,
    model__attention__levels=(),
  )
  with pytest.raises(ValueError, match='config.model.semantics'):
    predict.predict(
      config, 'none', tmp_path, tmp_path / 'out', write=['labels']
    )


@pytest.mark.slow
def test_damaged_video_frame_costs_itself(root, trained, tmp_path, one_device):
  source = predictions.write_video(tmp_path / 'drive.mp4', frames=4)
  with av.open(str(source)) as container:
    packets = [bytes(packet) for packet in container.demux(video=0)]
  content = source.read_bytes()
  noise = np.random.default_rng(1).bytes(len(packets[1]))
  source.write_bytes(content.replace(packets[1], noise))
  output = tmp_path / 'out'
  message = predictions.failure(
    root, ValueError, source, output, workdir=trained
  )
  assert 'unreadable images: 1' in message
  assert f'frame 1 of {source}' in message
  names = sorted(path.name for path in (output / 'drive').glob('*.npy'))
  assert names == ['000000.npy', '000002.npy', '000003.npy']
