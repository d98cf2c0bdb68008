"""Tests of input_pipeline.sources.kitti."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from input_pipeline.sources import kitti
from tests.support import kitti_folder

needs_real_drive = pytest.mark.skipif(
  not kitti_folder.REAL_DRIVE.is_dir(),
  reason='no real drive at ../shared/kitti',
)


def project_point_by_point(points, calibration, camera, forward_distance):
  """The published protocol as a loop: nearest point per pixel."""
  height, width = calibration.sizes[camera]
  rectification = np.eye(4)
  rectification[:3, :3] = calibration.rectification
  matrix = (
    calibration.projections[camera] @ rectification @ calibration.velo_to_cam
  )
  depth = np.zeros((height, width))
  for point in points.astype(np.float64):
    if point[0] < 0:
      continue
    x, y, z = matrix @ np.array([*point[:3], 1.0])
    column, row = round(x / z) - 1, round(y / z) - 1
    if 0 <= column < width and 0 <= row < height:
      value = point[0] if forward_distance else z
      if depth[row, column] == 0 or value < depth[row, column]:
        depth[row, column] = value
  return depth


@pytest.fixture(name='date')
def fixture_date(tmp_path):
  kitti_folder.write_date(tmp_path)
  return tmp_path


def test_reads_calibration(date):
  calibration = kitti.read_calibration(date)
  assert calibration.sizes == {2: (12, 40), 3: (12, 40)}
  np.testing.assert_array_equal(
    calibration.projections[3],
    [[20, 0, 18.5, -9], [0, 21, 5.5, 0.2], [0, 0, 1, 0.003]],
  )
  np.testing.assert_array_equal(
    calibration.velo_to_cam,
    [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, -0.25], [0, 0, 0, 1]],
  )
  assert calibration.projections[2].dtype == np.float64


def test_calibration_without_velodyne_is_enough_to_train(date):
  (date / kitti.VELODYNE_FILE).unlink()
  calibration = kitti.read_calibration(date)
  kitti.intrinsics(calibration, camera=2, height=6, width=20)
  assert calibration.velo_to_cam is None


def test_absent_calibration_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='calib_cam_to_cam.txt'):
    kitti.read_calibration(tmp_path)


@pytest.mark.parametrize(
  'name, line, message',
  [
    ('P_rect_02', 'P_rect_02: 20 0 19.5', 'P_rect_02 needs 12 finite'),
    ('P_rect_02', 'P_rect_02: 20 x' + 10 * ' 0', 'P_rect_02 needs 12'),
    ('P_rect_02', 'P_rect_02: 20 nan' + 10 * ' 0', 'P_rect_02 needs 12'),
    ('R_rect_00', '', 'R_rect_00 needs 9 finite'),
  ],
)
def test_bad_calibration_line(date, name, line, message):
  path = date / kitti.CAMERA_FILE
  lines = [
    line if old.startswith(name) else old for old in kitti_folder.CAMERA_LINES
  ]
  path.write_text('\n'.join(lines))
  with pytest.raises(ValueError, match=f'{kitti.CAMERA_FILE}.*{message}'):
    kitti.read_calibration(date)


@pytest.mark.parametrize(
  'line', ['', 'P_rect_03: 60 0 58.5 0 0 63 17.5 0 0 0 1 0']
)
def test_inconsistent_camera_raises_when_used(date, line):
  lines = [*kitti_folder.CAMERA_LINES[:-1], line]
  (date / kitti.CAMERA_FILE).write_text('\n'.join(lines))
  calibration = kitti.read_calibration(date)
  kitti.intrinsics(calibration, camera=2, height=6, width=20)
  message = f'{kitti.CAMERA_FILE} needs P_rect_03 and S_rect_03'
  with pytest.raises(ValueError, match=message):
    kitti.intrinsics(calibration, camera=3, height=6, width=20)


def test_calibration_may_begin_with_a_byte_order_mark(date):
  path = date / kitti.CAMERA_FILE
  path.write_text('\n'.join(kitti_folder.CAMERA_LINES[2:]), 'utf-8-sig')
  assert kitti.read_calibration(date).sizes == {2: (12, 40), 3: (12, 40)}


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
  content=st.one_of(
    st.binary(max_size=200),
    st.lists(st.text('P_rect02SR:.-+e159 naif', max_size=40)).map(
      lambda lines: '\n'.join(lines).encode()
    ),
  )
)
def test_random_calibration_bytes_raise_with_the_file_name(
  tmp_path_factory, content
):
  date = tmp_path_factory.mktemp('date')
  (date / kitti.CAMERA_FILE).write_bytes(content)
  with pytest.raises(ValueError, match=kitti.CAMERA_FILE):
    kitti.read_calibration(date)


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(index=st.integers(0, 11), word=st.text(max_size=12))
def test_any_projection_word_is_a_number_or_raises(
  tmp_path_factory, index, word
):
  date = tmp_path_factory.mktemp('date')
  kitti_folder.write_date(date)
  words = kitti_folder.CAMERA_LINES[4].split()
  words[1 + index] = word
  path = date / kitti.CAMERA_FILE
  path.write_bytes(
    '\n'.join([*kitti_folder.CAMERA_LINES[:4], ' '.join(words)]).encode(
      errors='replace'
    )
  )
  try:
    calibration = kitti.read_calibration(date)
  except ValueError as error:
    assert kitti.CAMERA_FILE in str(error)
  else:
    value = calibration.projections[2].flat[index]
    assert math.isfinite(value) and value == float(word)


def test_intrinsics_keep_rays_under_resizing(date):
  calibration = kitti.read_calibration(date)
  matrix = kitti.intrinsics(calibration, camera=3, height=6, width=80)
  assert matrix.dtype == np.float32
  # The centre of the native image's pixel (x, y) lies at (2 x + 0.5, y/2 -
  # 0.25) of an image of twice the width and half the height.
  native = calibration.projections[3][:, :3]
  point = np.array([0.3, -0.1, 2.0])
  x, y = (native @ point)[:2] / 2
  np.testing.assert_allclose(
    (matrix @ point)[:2] / 2, [2 * x + 0.5, y / 2 - 0.25], rtol=1e-6
  )


def test_intrinsics_at_native_size_are_the_projection(date):
  calibration = kitti.read_calibration(date)
  np.testing.assert_array_equal(
    kitti.intrinsics(calibration, camera=2, height=12, width=40),
    calibration.projections[2][:, :3].astype(np.float32),
  )
  with pytest.raises(ValueError, match='P_rect_01'):
    kitti.intrinsics(calibration, camera=1, height=12, width=40)


@pytest.mark.parametrize('forward_distance', [True, False])
@pytest.mark.parametrize('camera', [2, 3])
def test_scan_depth_equals_the_loop(tmp_path, camera, forward_distance):
  kitti_folder.write_drive(tmp_path, frames=1)
  drive = tmp_path / kitti_folder.DRIVE
  points = kitti.read_scan(drive / 'velodyne_points/data/0000000000.bin')
  calibration = kitti.read_calibration(drive.parent)
  depth = kitti.scan_depth(
    points, calibration, camera=camera, forward_distance=forward_distance
  )
  expected = project_point_by_point(
    points, calibration, camera, forward_distance
  )
  assert depth.dtype == np.float32
  assert 20 < np.count_nonzero(depth) < 400
  np.testing.assert_array_equal(depth, expected.astype(np.float32))


def test_nearest_lidar_point_wins_and_points_behind_are_dropped(date):
  # Straight ahead; the principal point (19.5, 5.5) rounds to (20, 6), minus 1.
  # Half numbers round to even, as NumPy's.
  points = np.array(
    [[30, 0, 0, 1], [10, 0, 0, 1], [20, 0, 0, 1], [-5, 0, 0, 1]], np.float32
  )
  calibration = kitti.read_calibration(date)
  calibration.projections[2][:, 3] = 0
  depth = kitti.scan_depth(points, calibration)
  assert np.argwhere(depth).tolist() == [[5, 19]]
  assert depth[5, 19] == 10
  camera_z = kitti.scan_depth(points, calibration, forward_distance=False)
  assert camera_z[5, 19] == 9.75


def test_empty_scan_and_point_in_the_image_plane(date):
  calibration = kitti.read_calibration(date)
  calibration.projections[2][:, 3] = 0
  empty = kitti.scan_depth(np.zeros((0, 4), np.float32), calibration)
  assert empty.shape == (12, 40) and not empty.any()
  plane = np.array([[0.25, 0, 0, 1], [0.25, 1, 1, 1]], np.float32)
  assert not kitti.scan_depth(plane, calibration).any()


def test_truncated_scan_is_named(tmp_path):
  path = tmp_path / 'scan.bin'
  path.write_bytes(b'\0' * 20)
  with pytest.raises(ValueError, match='scan.bin is truncated: 20 bytes'):
    kitti.read_scan(path)


def test_list_frames_prefers_the_first_suffix(tmp_path):
  for name in ('0000000003.jpg', '3.png', '04.JPG', 'notes.txt', '-5.png'):
    (tmp_path / name).write_bytes(b'')
  files = kitti.list_frames(tmp_path, ('.png', '.jpg'))
  assert files == {3: str(tmp_path / '3.png'), 4: str(tmp_path / '04.JPG')}
  assert kitti.list_frames(tmp_path / 'absent', ('.png',)) == {}


@needs_real_drive
def test_real_drive_intrinsics():
  calibration = kitti.read_calibration(kitti_folder.REAL_DRIVE.parent)
  assert calibration.sizes[2] == (375, 1242)
  matrix = kitti.intrinsics(calibration, camera=2, height=192, width=640)
  scale = 640 / 1242, 192 / 375
  np.testing.assert_allclose(
    matrix,
    [
      [721.5377 * scale[0], 0, 610.0593 * scale[0] - 0.5],
      [0, 721.5377 * scale[1], 173.354 * scale[1] - 0.5],
      [0, 0, 1],
    ],
    rtol=1e-6,
  )


@needs_real_drive
@pytest.mark.parametrize('forward_distance', [True, False])
def test_real_drive_lidar(forward_distance):
  points = kitti.read_scan(
    kitti_folder.REAL_DRIVE / 'velodyne_points/data/0000000016.bin'
  )
  calibration = kitti.read_calibration(kitti_folder.REAL_DRIVE.parent)
  depth = kitti.scan_depth(
    points, calibration, forward_distance=forward_distance
  )
  expected = project_point_by_point(points, calibration, 2, forward_distance)
  assert np.count_nonzero(depth) > 15_000
  np.testing.assert_array_equal(depth, expected.astype(np.float32))
