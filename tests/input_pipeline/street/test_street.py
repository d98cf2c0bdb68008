"""The street: its layout, and the consistency of its geometry."""

import contextlib
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline import cityscapes, files, street
from input_pipeline.street import folder, render

_DATE = '2000_01_01'
_HEIGHT, _WIDTH, _FRAMES = 96, 320, 5
_EARTH_RADIUS = 6378137.0


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  output = tmp_path_factory.mktemp('street') / 'root'
  assert street.render_street(
    output,
    drives=2,
    frames=_FRAMES,
    height=_HEIGHT,
    width=_WIDTH,
    seed=3,
    test_drives=1,
    workers=1,
  )
  return output


def _small(output, **changed):
  arguments = {
    'drives': 1,
    'frames': 3,
    'height': 32,
    'width': 96,
    'seed': 0,
    'test_drives': 1,
    'workers': 1,
    **changed,
  }
  return street.render_street(output, **arguments)


def _drive(root, number=1):
  return root / _DATE / f'{_DATE}_drive_{number:04d}_sync'


def _read(drive, kind, frame):
  path = drive / kind / 'data' / f'{frame:010d}.png'
  with Image.open(path) as image:
    return np.array(image).astype(np.float64)


def _depth(drive, frame):
  return _read(drive, 'depth_02', frame) / 256


def _poses(drive):
  rows = np.loadtxt(drive / 'poses.txt').reshape(-1, 3, 4)
  poses = np.tile(np.eye(4), (len(rows), 1, 1))
  poses[:, :3] = rows
  return poses


def _calibration(path):
  values = {}
  for line in path.read_text().splitlines():
    name, text = line.split(':', 1)
    if name != 'calib_time':
      values[name] = np.array(text.split(), float)
  return values


def _rigid(path):
  values = _calibration(path)
  transform = np.eye(4)
  transform[:3, :3], transform[:3, 3] = values['R'].reshape(3, 3), values['T']
  return transform


def _rays(intrinsics):
  y, x = np.mgrid[:_HEIGHT, :_WIDTH].astype(float)
  pixels = np.stack([x, y, np.ones_like(x)], -1)
  return pixels @ np.linalg.inv(intrinsics).T


def _sample(image, x, y):
  """Bilinear; [H, W] or [H, W, C] at [H, W] points inside the image."""
  x0 = np.clip(np.floor(x).astype(int), 0, image.shape[1] - 2)
  y0 = np.clip(np.floor(y).astype(int), 0, image.shape[0] - 2)
  wx, wy = (
    w.reshape(w.shape + (1,) * (image.ndim - 2)) for w in (x - x0, y - y0)
  )
  top = image[y0, x0] * (1 - wx) + image[y0, x0 + 1] * wx
  low = image[y0 + 1, x0] * (1 - wx) + image[y0 + 1, x0 + 1] * wx
  return top * (1 - wy) + low * wy


def _rebuild(drive, target, source):
  """Rebuilds a frame with the true depth and motion.

  Returns the difference from the frame, that of the unmoved source, [H, W]
  each, and a mask of where the source sees the same static surface.
  """
  intrinsics = render.intrinsics(_HEIGHT, _WIDTH)
  poses, depth = _poses(drive), _depth(drive, target)
  moved = np.linalg.inv(poses[source]) @ poses[target]
  points = _rays(intrinsics) * depth[..., None]
  points = points @ moved[:3, :3].T + moved[:3, 3]
  valid = (depth > 0) & (points[..., 2] > 0.1)
  z = np.where(valid, points[..., 2], 1)
  x, y = (points @ intrinsics.T)[..., :2].transpose(2, 0, 1) / z
  valid &= (x >= 0) & (x <= _WIDTH - 1) & (y >= 0) & (y <= _HEIGHT - 1)
  x, y = np.where(valid, x, 0), np.where(valid, y, 0)
  seen = _depth(drive, source)
  # Inverse depth is linear over a plane, so its interpolation is exact there
  # and wrong across every border.
  inverse = _sample(np.where(seen > 0, 1 / np.maximum(seen, 0.1), 0), x, y)
  valid &= np.abs(inverse * z - 1) < 0.02
  valid &= ~np.isin(
    _read(drive, 'semantic_02', target), cityscapes.MOVING_CLASSES
  )
  image = _read(drive, 'image_02', target) / 255
  other = _read(drive, 'image_02', source) / 255
  return (
    np.abs(_sample(other, x, y) - image).mean(-1),
    np.abs(other - image).mean(-1),
    valid,
  )


@pytest.mark.parametrize('number', [1, 2])
@pytest.mark.parametrize('step', [-1, 1])
def test_true_depth_and_motion_rebuild_a_frame_from_its_neighbours(
  root, number, step
):
  drive = _drive(root, number)
  results = [
    _rebuild(drive, frame, frame + step) for frame in range(1, _FRAMES - 1)
  ]
  difference, unmoved, valid = (np.stack(r) for r in zip(*results, strict=True))
  assert valid.mean() > 0.3
  assert difference[valid].mean() < 0.02
  # The motion matters: the neighbour itself is much further off.
  assert unmoved[valid].mean() > 3 * difference[valid].mean()


def test_wrong_motion_does_not_rebuild(root, monkeypatch):
  drive = _drive(root)
  poses = _poses(drive)
  good, _, valid = _rebuild(drive, 2, 1)
  monkeypatch.setitem(globals(), '_poses', lambda _: poses[::-1].copy())
  bad, _, _ = _rebuild(drive, 2, 1)
  assert bad[valid].mean() > 3 * good[valid].mean()


def test_layout_is_that_of_kitti(root):
  date = root / _DATE
  for number in (1, 2):
    drive = _drive(root, number)
    for kind, suffix in (
      ('image_02', 'png'),
      ('semantic_02', 'png'),
      ('depth_02', 'png'),
      ('oxts', 'txt'),
      ('velodyne_points', 'bin'),
    ):
      names = sorted(p.name for p in (drive / kind / 'data').iterdir())
      assert names == [f'{i:010d}.{suffix}' for i in range(_FRAMES)]
    for kind in ('image_02', 'oxts', 'velodyne_points'):
      lines = (drive / kind / 'timestamps.txt').read_text().splitlines()
      assert len(lines) == _FRAMES
      assert lines == sorted(lines)
    assert len(_poses(drive)) == _FRAMES
  calibration = _calibration(date / 'calib_cam_to_cam.txt')
  projection = calibration['P_rect_02'].reshape(3, 4)
  np.testing.assert_allclose(
    projection[:, :3],
    [
      [0.58 * _WIDTH, 0, 0.491 * _WIDTH],
      [0, 1.92 * _HEIGHT, 0.46 * _HEIGHT],
      [0, 0, 1],
    ],
  )
  assert calibration['P_rect_03'][3] < 0
  np.testing.assert_array_equal(calibration['S_rect_02'], [_WIDTH, _HEIGHT])
  np.testing.assert_array_equal(
    calibration['R_rect_00'].reshape(3, 3), np.eye(3)
  )


def test_pictures_have_the_coding_of_kitti(root):
  data = _drive(root)
  with Image.open(data / 'image_02/data/0000000001.png') as image:
    assert (image.mode, image.size) == ('RGB', (_WIDTH, _HEIGHT))
  with Image.open(data / 'semantic_02/data/0000000001.png') as image:
    assert image.mode == 'L'
  with Image.open(data / 'depth_02/data/0000000001.png') as image:
    assert np.array(image).max() > 255  # 16 bits
  assert (data / 'velodyne_points/data/0000000001.bin').stat().st_size % 16 == 0


def test_splits_share_no_drives(root):
  train, test = (
    [
      line.split()
      for line in (root / 'splits' / f'{name}.txt').read_text().splitlines()
    ]
    for name in ('train', 'test')
  )
  first, second = (f'{_DATE}/{_DATE}_drive_{n:04d}_sync' for n in (1, 2))
  assert train == [[first, str(i), 'l'] for i in range(1, _FRAMES - 1)]
  assert test == [[second, str(i), 'l'] for i in range(0, _FRAMES, 2)]


def test_labels_are_diverse_and_in_range(root):
  found = set()
  for frame in range(_FRAMES):
    found |= set(np.unique(_read(_drive(root), 'semantic_02', frame)))
  assert found <= set(range(cityscapes.NUM_CLASSES))
  assert len(found) >= 12


def test_thin_objects_are_plentiful(root):
  masks = np.stack(
    [
      _read(_drive(root, n), 'semantic_02', f)
      for n in (1, 2)
      for f in range(_FRAMES)
    ]
  )
  assert np.isin(masks, cityscapes.THIN_CLASSES).mean() > 0.01


def test_only_sky_has_no_depth(root):
  for frame in range(_FRAMES):
    depth = _depth(_drive(root), frame)
    sky = _read(_drive(root), 'semantic_02', frame) == 10
    np.testing.assert_array_equal(depth == 0, sky)
    assert depth[~sky].min() > 1 and depth.max() <= 250


def test_road_depth_is_that_of_its_plane(root):
  drive = _drive(root)
  rays = _rays(render.intrinsics(_HEIGHT, _WIDTH))
  # The world's up in frame 0, and the camera's height, out of the road itself.
  for frame in range(_FRAMES):
    road = _read(drive, 'semantic_02', frame) == 0
    depth = _depth(drive, frame)
    # On n . X = 1 inverse depth is n . ray: three unknowns, all road pixels.
    normal, *_ = np.linalg.lstsq(rays[road], 1 / depth[road], rcond=None)
    np.testing.assert_allclose(
      depth[road], 1 / (rays[road] @ normal), rtol=3e-3
    )
    height = 1 / np.linalg.norm(normal)
    assert abs(height - 1.65) < 0.03
    assert normal[1] * height > 0.999  # straight below, but for the bounce


def test_poses_agree_with_oxts(root):
  camera_from_imu = _rigid(root / _DATE / 'calib_velo_to_cam.txt') @ _rigid(
    root / _DATE / 'calib_imu_to_velo.txt'
  )
  for number in (1, 2):
    drive = _drive(root, number)
    packets = np.stack(
      [np.loadtxt(drive / f'oxts/data/{i:010d}.txt') for i in range(_FRAMES)]
    )
    assert packets.shape == (_FRAMES, 30)
    scale = np.cos(np.radians(packets[0, 0]))
    imu = np.tile(np.eye(4), (_FRAMES, 1, 1))
    for pose, packet in zip(imu, packets, strict=True):
      latitude, longitude, altitude, roll, pitch, yaw = packet[:6]
      pose[:3, 3] = (
        scale * np.radians(longitude) * _EARTH_RADIUS,
        scale * _EARTH_RADIUS * np.log(np.tan(np.radians(90 + latitude) / 2)),
        altitude,
      )
      pose[:3, :3] = _turn(yaw, 2) @ _turn(pitch, 1) @ _turn(roll, 0)
    camera = imu @ np.linalg.inv(camera_from_imu)
    relative = np.linalg.inv(camera[0]) @ camera
    np.testing.assert_allclose(relative, _poses(drive), atol=2e-5)
    steps = np.linalg.norm(np.diff(imu[:, :3, 3], axis=0), axis=1)
    middle = 0.5 * (steps[1:] + steps[:-1])
    np.testing.assert_allclose(packets[1:-1, 8] * 0.1, middle, rtol=0.02)
    assert np.all((packets[:, 8] > 2) & (packets[:, 8] < 13))


def _turn(angle, axis):
  c, s = np.cos(angle), np.sin(angle)
  i, j = (axis + 1) % 3, (axis + 2) % 3
  rotation = np.eye(3)
  rotation[i, i] = rotation[j, j] = c
  rotation[j, i], rotation[i, j] = s, -s
  return rotation


def test_lidar_lies_on_what_the_camera_sees(root):
  date, drive = root / _DATE, _drive(root)
  projection = _calibration(date / 'calib_cam_to_cam.txt')['P_rect_02'].reshape(
    3, 4
  )
  projection = projection @ _rigid(date / 'calib_velo_to_cam.txt')
  for frame in range(_FRAMES):
    path = drive / f'velodyne_points/data/{frame:010d}.bin'
    points = np.fromfile(path, np.float32).reshape(-1, 4).astype(float)
    assert len(points) > 4000
    assert points[:, 0].min() > 0 and np.abs(points[:, 1]).max() > 3
    assert points[:, 3].min() >= 0 and points[:, 3].max() <= 1
    points[:, 3] = 1
    x, y, z = projection @ points.T
    column, row = np.rint(x / z).astype(int), np.rint(y / z).astype(int)
    truth = _depth(drive, frame)[row, column]
    assert np.mean(np.abs(z / truth - 1) < 0.01) > 0.95


def _contents(root):
  return {
    path.relative_to(root): path.read_bytes()
    for path in sorted(pathlib.Path(root).rglob('*'))
    if path.is_file()
  }


@pytest.mark.slow
def test_seed_decides_every_byte(tmp_path):
  _small(tmp_path / 'a', frames=11)
  _small(tmp_path / 'b', frames=11, workers=2)  # Each renders a part.
  _small(tmp_path / 'c', frames=11, seed=1)
  first, again, other = (_contents(tmp_path / name) for name in 'abc')
  assert first == again
  name = pathlib.Path(
    _DATE, f'{_DATE}_drive_0001_sync/image_02/data/0000000001.png'
  )
  assert first[name] != other[name]


def test_existing_street_is_kept_or_raises(root):
  arguments = dict(
    drives=2, frames=_FRAMES, height=_HEIGHT, width=_WIDTH, seed=3
  )
  arguments |= dict(test_drives=1, workers=1)
  assert street.render_street(root, **arguments) is False
  with pytest.raises(ValueError, match=r'seed 3 \(asked for: 4\)'):
    street.render_street(root, **{**arguments, 'seed': 4})
  record = json.loads((root / 'street.json').read_text())
  assert record['frames'] == _FRAMES and record['version'] == folder.VERSION


def test_another_folder_is_not_changed(tmp_path):
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(ValueError, match='not a rendered street'):
    _small(tmp_path)
  assert (tmp_path / 'notes.txt').read_text() == 'mine'


def test_concurrently_rendered_street_is_kept(tmp_path, monkeypatch):
  whole_folder = files.whole_folder

  @contextlib.contextmanager
  def render_before(output):
    monkeypatch.setattr(files, 'whole_folder', whole_folder)
    assert _small(output)
    with whole_folder(output) as made:
      yield made

  monkeypatch.setattr(files, 'whole_folder', render_before)
  assert not _small(tmp_path / 'root')
  assert [path.name for path in tmp_path.iterdir()] == ['root']


def test_interrupted_render_leaves_nothing(tmp_path, monkeypatch):
  def interrupt(scene, frame, **_):
    raise KeyboardInterrupt

  monkeypatch.setattr(render, 'render_frame', interrupt)
  with pytest.raises(KeyboardInterrupt):
    _small(tmp_path / 'root')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'height': 100}, '--height is 100.*multiple of 32'),
    ({'width': 100}, '--width is 100.*multiple of 32'),
    ({'drives': 0}, '--drives is 0: give at least 1'),
    ({'frames': 2}, '--frames is 2: give at least 3'),
    ({'seed': -1}, '--seed is -1'),
    ({'drives': 2, 'test_drives': -1}, '--test_drives is -1'),
    ({'drives': 2, 'test_drives': 2}, '--test_drives is 2 of 2 drives'),
  ],
)
def test_arguments_out_of_range_raise(tmp_path, changed, message):
  with pytest.raises(ValueError, match=message):
    _small(tmp_path / 'root', **changed)
  assert not list(tmp_path.iterdir())


def test_command_line(tmp_path, capsys):
  arguments = [
    f'--output={tmp_path / "root"}',
    '--drives=1',
    '--frames=3',
    '--height=32',
    '--width=96',
    '--workers=1',
  ]
  folder.main(arguments)
  assert 'rendered' in capsys.readouterr().out
  folder.main(arguments)
  assert 'already exists' in capsys.readouterr().out
  with pytest.raises(SystemExit, match=r'seed 0 \(asked for: 9\)'):
    folder.main([*arguments, '--seed=9'])
