"""The content of every kind of file, against golden networks."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from input_pipeline import files, images
from input_pipeline.sources import kitti
from sgde_jax import cli, models
from sgde_jax.configs import baseline
from sgde_jax.inference import cameras, outputs, predictor
from sgde_jax.inference import images as predict
from tests.support import golden, kitti_folder, predictions, runs

_FOV = 90.0


def _read_ply(path):
  """Returns the comments, points `[N, 3]` and colours `[N, 3]` of a file."""
  head, _, body = path.read_bytes().partition(b'end_header\n')
  lines = head.decode('ascii').splitlines()
  assert lines[:2] == ['ply', 'format binary_little_endian 1.0']
  fields = [line.split()[1:] for line in lines if line.startswith('property')]
  assert [name for _, name in fields] == ['x', 'y', 'z', 'red', 'green', 'blue']
  types = {'float': '<f4', 'uchar': 'u1'}
  rows = np.frombuffer(body, [(name, types[kind]) for kind, name in fields])
  (count,) = (line.split()[2] for line in lines if line.startswith('element'))
  assert len(rows) == int(count)
  comments = [line[8:] for line in lines if line.startswith('comment')]
  points = np.stack([rows[name] for name in 'xyz'], axis=1)
  colours = [rows[name] for name in ('red', 'green', 'blue')]
  return comments, points, np.stack(colours, axis=1)


def _golden_predictor(folder):
  """Saves a golden network's weights; returns its predictor and values."""
  data = golden.load('network_r18')
  size = data['frames'].shape[2:4]
  parts = golden.published_parts(18, int(data['seed']))
  parts['encoder'] |= {'height': size[0], 'width': size[1]}
  folder.mkdir()
  for part in ('encoder', 'depth'):
    np.savez(folder / f'{part}.npz', **parts[part])
  return predictor.load(folder), data


@pytest.mark.parametrize('scale', [None, '30'])
def test_golden_depth_in_every_file(tmp_path, monkeypatch, one_device, scale):
  """Files hold the golden network's disparities within 1e-4."""
  network, data = _golden_predictor(tmp_path / 'weights')
  exact = data['frames'][:, 0]
  frames = np.rint(255 * exact).astype(np.uint8)
  # The golden frames are not of 8 bits.
  monkeypatch.setattr(models, 'to_float', lambda images: jnp.asarray(exact))
  source, output = tmp_path / 'in', tmp_path / 'out'
  source.mkdir()
  for number, frame in enumerate(frames):
    Image.fromarray(frame).save(source / f'{number}.png')
  monkeypatch.setattr(predictor, 'restore', lambda *args: network)
  config = baseline.get_config()
  config.eval.batch_size = len(frames)
  kinds = ['inverse_depth', 'png16', 'ply']
  predict.predict(
    config, tmp_path, source, output, write=kinds, scale=scale, fov=_FOV
  )
  with pytest.raises(ValueError, match='no pose network'):
    network.trajectory(frames)
  unit = float(scale or 1)
  for number, disparity in enumerate(data['eval_disp_0'][..., 0]):

    def check(inverse_depth, atol, disparity=disparity):
      found = (inverse_depth * unit - 0.01) / (10 - 0.01)
      np.testing.assert_allclose(found, disparity, atol=atol)

    array = np.load(output / f'inverse_depth/{number}.npy')
    assert array.dtype == np.float32
    check(array, 1e-4)
    depth = images.read_depth(output / f'png16/{number}.png')
    # Half a step of 1/256 metre, or of the unit.
    near = depth < 65535 / 256
    np.testing.assert_allclose(depth[near], 1 / array[near], atol=0.5 / 256)
    comments, points, colours = _read_ply(output / f'ply/{number}.ply')
    check(1 / points[:, 2].reshape(disparity.shape), 1e-4)
    np.testing.assert_array_equal(colours, frames[number].reshape(-1, 3))
    height, width = disparity.shape
    # 90 degrees: the half width is as far away as the image plane.
    x = points[:, 0] / points[:, 2] * (width / 2) + (width - 1) / 2
    np.testing.assert_allclose(
      x.reshape(height, width),
      np.tile(np.arange(width), (height, 1)),
      atol=1e-3,
    )
    stated = 'depth is in metres, by a scale of 30' if scale else 'is relative'
    assert stated in comments[0]
    for kind in ('inverse_depth', 'png16'):
      with Image.open(output / f'{kind}/{number}.png') as picture:
        assert stated in picture.info['Description']


@pytest.mark.slow
def test_kinds_of_a_kitti_folder(root, trained, tmp_path, one_device, caplog):
  """Points and benchmark of drives, by their calibration and evaluation."""
  config, output = runs.make_config(root), tmp_path / 'out'
  workdir = tmp_path / 'run'
  workdir.mkdir()
  (workdir / 'checkpoints').symlink_to(trained / 'checkpoints')
  kinds = ['ply', 'benchmark', 'overlay', 'video', 'trajectory']
  options = {'write': kinds, 'scale': 'evaluation'}
  message = predictions.failure(
    root, FileNotFoundError, root, output, workdir, **options
  )
  assert 'run --mode=evaluate first' in message
  files.write_json(
    workdir / 'evaluation' / 'metrics.json',
    {'ratio': 12.5, 'ratio_std': 0.08, 'images': 7, 'step': 20},
  )
  with caplog.at_level(logging.INFO):
    predict.predict(config, workdir, root, output, **options)
  assert 'scale 12.5, the median over 7 images, relative deviation 0.080' in (
    caplog.text
  )
  drive, name = kitti_folder.DRIVE, '0000000003'
  comments, points, _ = _read_ply(
    output / f'ply/{drive}/ply_02/data/{name}.ply'
  )
  assert 'by a scale of 12.5' in comments[0]
  alone = predictor.load(trained)(root / drive / f'image_02/data/{name}.png')
  calibration = kitti.read_calibration((root / drive).parent)
  matrix = kitti.intrinsics(calibration, camera=2, height=40, width=80)
  np.testing.assert_allclose(points, alone.points(matrix, 12.5), rtol=1e-4)
  # KITTI takes 16 bits at the images' names and size, in one folder.
  depth = images.read_depth(output / f'benchmark/{name}.png')
  expected = np.clip(alone.depth(12.5), 1e-3, 80)
  np.testing.assert_allclose(depth, expected, atol=0.51 / 256)
  with Image.open(output / f'overlay/{drive}/overlay_02/data/{name}.png') as x:
    assert x.size == (80, 40)
  shown, times = predictions.read_video(output / f'video/{drive}/video_02.mp4')
  assert len(shown) == 6 and shown[0].shape == (120, 80, 3)
  assert float(times[-1]) == pytest.approx(0.5, abs=1e-3)
  path = output / f'trajectory/{drive}/trajectory_02.txt'
  assert 'position is in metres' in path.read_text().splitlines()[0]
  poses = np.loadtxt(path)
  assert poses[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
  np.testing.assert_allclose(np.linalg.norm(poses[:, 4:], axis=1), 1, rtol=1e-6)
  relative = predictor.load(trained).trajectory(
    sorted((root / drive / 'image_02/data').iterdir())
  )
  np.testing.assert_allclose(
    poses[:, 1:4], 12.5 * relative[:, :3, 3], atol=1e-4
  )
  assert path.with_suffix('.png').is_file()


@pytest.mark.slow
def test_repeated_command_continues(
  root, trained, tmp_path, one_device, capsys
):
  config, source = runs.make_config(root), tmp_path / 'in'
  for name in 'abc':
    predictions.write_image(source / f'{name}.png', seed=ord(name))
  options = {'write': ['png16', 'inverse_depth']}

  def run(count, **changes):
    output = tmp_path / 'out'
    predict.predict(config, trained, source, output, **options | changes)
    assert f'written to {output}: {count}\n' in capsys.readouterr().out
    return {
      path.relative_to(output).as_posix(): path.stat().st_mtime_ns
      for path in output.rglob('*.*')
    }

  first = run(3)
  assert run(0) == first
  # What was interrupted or changed is predicted again, the rest kept.
  (tmp_path / 'out/png16/a.png').unlink()
  (tmp_path / 'out/inverse_depth/b.npy').unlink()
  predictions.write_image(source / 'c.png', seed=7)
  second = run(3)
  kept = {name for name in first if first[name] == second[name]}
  assert kept == {
    *('inverse_depth/a.npy', 'inverse_depth/a.png', 'png16/b.png')
  }
  third = run(3, scale='2')
  assert not [name for name in second if second[name] == third[name]]


def test_points_need_intrinsics(root, tmp_path):
  source = predictions.write_image(tmp_path / 'image_02' / 'data' / 'a.png')
  options = {'write': ['ply']}
  for wrong, text in (
    ({}, "needs the camera's intrinsics"),
    ({'intrinsics': ['1', '2', '3']}, 'give fx,fy,cx,cy'),
    ({'intrinsics': ['1', '-2', '3', '4']}, 'not a positive number'),
    ({'fov': 180.0}, 'between 0 and 180'),
    ({'fov': 90.0, 'scale': 'x'}, "'x' is not a positive number"),
  ):
    message = predictions.failure(
      root, ValueError, source, tmp_path / 'out', **options | wrong
    )
    assert text in message
  assert not (tmp_path / 'out').exists()
  find = cameras.open_intrinsics([source], numbers=['9', '8', '3', '4'])
  assert find(source, (4, 6)).tolist() == [[9, 0, 3], [0, 8, 4], [0, 0, 1]]


@pytest.mark.parametrize(
  ('kind', 'text'),
  [
    ('benchmark', 'is in metres: give --scale'),
    ('video', 'needs a video or a folder'),
    ('trajectory', 'needs a video or a folder'),
  ],
)
def test_kinds_that_cannot_be_made(root, tmp_path, kind, text):
  source = predictions.write_image(tmp_path / 'a.png')
  message = predictions.failure(
    root, ValueError, source, tmp_path / 'out', write=[kind]
  )
  assert text in message


def test_names_of_the_kinds():
  assert cli._KINDS.split(', ') == list(outputs.KINDS)
