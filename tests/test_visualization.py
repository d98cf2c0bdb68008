"""Pictures: colours, masks, captions and files."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from input_pipeline import cityscapes
from sgde_jax import visualization
from tests.support import kitti_folder

_COLOURS = np.array(cityscapes.COLOURS, np.uint8)
_GREY = (112, 112, 112)


def _gradient():
  return np.tile(np.linspace(0.01, 1.0, 50), (20, 1))


def test_inverse_depth_is_magma_up_to_the_95th_percentile():
  picture = visualization.colorize_inverse_depth(_gradient())
  assert picture.shape == (20, 50, 3)
  assert picture.dtype == np.uint8
  brightness = picture.astype(int).sum(axis=2)[0]
  assert (np.diff(brightness) >= 0).all()
  np.testing.assert_array_equal(picture[0, 0], (0, 0, 3))
  # Everything beyond the percentile has magma's last colour.
  np.testing.assert_array_equal(picture[0, -3:], [(251, 252, 191)] * 3)
  assert (picture[0, 40] != picture[0, -1]).any()


def test_inverse_depth_colours_do_not_depend_on_its_unit():
  disparity = np.random.default_rng(0).uniform(0.1, 1.0, (8, 9))
  np.testing.assert_array_equal(
    visualization.colorize_inverse_depth(disparity),
    visualization.colorize_inverse_depth(8 * disparity),
  )


@pytest.mark.parametrize('value', [0.0, 0.3, 1e9])
def test_constant_maps_are_drawn(value):
  constant = np.full((6, 7), value)
  for picture in (
    visualization.colorize_inverse_depth(constant),
    visualization.colorize_depth(constant),
  ):
    assert picture.dtype == np.uint8
    assert (picture == picture[0, 0]).all()


def test_sparse_points_are_widened_and_the_nearest_wins():
  depth = np.zeros((30, 40))
  depth[10, 10] = 5.0
  depth[10, 13] = 50.0
  picture = visualization.colorize_depth(depth)
  near, far = picture[10, 10], picture[10, 15]
  assert (picture[8:13, 8:13] == near).all()
  assert (picture[8:13, 13:16] == far).all()
  assert (near != far).any()
  assert (picture[13:] == _GREY).all()
  assert np.any(picture != _GREY, axis=2).sum() == 5 * 8


def test_dense_depth_has_the_picture_of_its_inverse():
  disparity = _gradient()
  np.testing.assert_array_equal(
    visualization.colorize_depth(1 / disparity),
    visualization.colorize_inverse_depth(disparity),
  )


def test_error_shows_only_valid_pixels():
  truth = np.full((6, 8), 10.0)
  prediction = truth.copy()
  prediction[:, 4:] = 20.0
  valid = np.ones((6, 8), bool)
  valid[0] = False
  truth[0], prediction[0] = 0.0, np.nan
  picture = visualization.colorize_error(truth, prediction, valid)
  assert (picture[0] == _GREY).all()
  good, bad = picture[1, 0].astype(int), picture[1, 7].astype(int)
  assert (picture[1:, :4] == good).all()
  assert (picture[1:, 4:] == bad).all()
  assert good[2] > good[0]
  assert bad[0] > bad[2]


def test_flat_maps_look_flat():
  noise = np.random.default_rng(0).uniform(0.99, 1.0, (20, 30))
  for picture in (
    visualization.colorize_inverse_depth(noise),
    visualization.colorize_depth(noise),
  ):
    assert np.ptp(picture.astype(int), axis=(0, 1)).max() < 20
  change = visualization.difference_scale(noise - 1, least=0.5)
  assert (change.colorize(noise - 1) > 240).all()


def test_scale_names_its_ends():
  disparity = np.linspace(0.01, 0.5, 1001)
  assert visualization.inverse_depth_scale(disparity, vmax=0.4).ends == (
    '0.01',
    '0.4',
  )
  metric = visualization.inverse_depth_scale(disparity, vmax=0.4, metric=True)
  assert metric.ends == ('100 m', '2.5 m')
  assert visualization.error_scale().ends == ('0', '50 %')
  bar = metric.colour_bar(5)
  np.testing.assert_array_equal(bar[0], (0, 0, 3))
  np.testing.assert_array_equal(bar[-1], (251, 252, 191))


def test_colours_are_those_of_matplotlib():
  values = np.linspace(-0.2, 1.2, 2000)
  for name in ('magma', 'turbo', 'inferno', 'bwr'):
    scale = visualization.Scale(name, 0.0, 1.0, ('', ''))
    expected = matplotlib.colormaps[name](values, bytes=True)[:, :3]
    np.testing.assert_array_equal(scale.colorize(values), expected)


def test_difference_is_white_at_zero_and_symmetric():
  difference = np.zeros((5, 5))
  difference[1, 1], difference[2, 2] = 0.5, -0.5
  picture = visualization.difference_scale(difference).colorize(difference)
  np.testing.assert_array_equal(picture[1, 1], (255, 0, 0))
  np.testing.assert_array_equal(picture[2, 2], (0, 0, 255))
  assert (picture[0] >= 254).all()


def test_labels_have_their_colours():
  labels = np.array([[0, 18, 255]], np.uint8)
  picture = visualization.colorize_labels(labels)
  np.testing.assert_array_equal(
    picture, [[_COLOURS[0], _COLOURS[18], (0, 0, 0)]]
  )


def test_overlay_leaves_unlabelled_pixels():
  image = np.full((1, 2, 3), 100, np.uint8)
  labels = np.array([[13, 255]], np.uint8)
  picture = visualization.overlay_labels(image, labels)
  np.testing.assert_array_equal(picture[0, 1], image[0, 1])
  np.testing.assert_array_equal(picture[0, 0], (50, 50, 121))


def test_points_are_drawn_where_the_mask_allows():
  image = np.zeros((10, 12, 3), np.uint8)
  points = np.array([[8.2, 3.0], [2.0, 7.0], [11.0, 9.0]])
  picture = visualization.draw_points(
    image, points, np.array([True, False, True]), radius=1
  )
  rows, columns = np.nonzero(picture[..., 1])
  assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {
    *((y, x) for y in (2, 3, 4) for x in (7, 8, 9)),
    *((y, x) for y in (8, 9) for x in (10, 11)),
  }
  assert not image.any()


def test_panel_places_images_of_any_size_under_captions():
  red = np.full((40, 120, 3), (255, 0, 0), np.uint8)
  blue = np.full((10, 30, 3), (0, 0, 255), np.uint8)
  picture = visualization.panel(
    [
      [visualization.Cell(blue, 'first'), visualization.Cell(red, 'second')],
      [visualization.Cell(blue, 'third')],
    ]
  )
  assert picture.dtype == np.uint8
  assert (picture == (255, 0, 0)).all(axis=2).sum() == 40 * 120
  assert (picture == (0, 0, 255)).all(axis=2).sum() == 2 * 40 * 120
  # The captions are there, dark on white.
  assert (picture < 80).all(axis=2).any()


def test_panel_has_colour_bars_and_a_legend():
  grey = np.full((40, 120, 3), 200, np.uint8)
  scale = visualization.Scale('turbo', 0.0, 1.0, ('0', '1'))
  plain, scaled, classes = (
    visualization.panel([[visualization.Cell(grey, 'a', *options)]])
    for options in ((), (scale,), (None, np.array([[5, 255]], np.uint8)))
  )
  assert scaled.shape[0] > plain.shape[0]
  for colour in scale.colour_bar(2):
    assert (scaled == colour).all(axis=2).any()
  assert classes.shape[0] > plain.shape[0]
  pole = tuple(_COLOURS[5].tolist())
  assert (classes == pole).all(axis=2).sum() > 50
  assert (classes != _COLOURS[0]).any(axis=2).all()


def test_legend_wraps():
  image = np.zeros((40, 120, 3), np.uint8)
  labels = np.arange(19, dtype=np.uint8)[None]
  picture = visualization.panel(
    [[visualization.Cell(image, 'a', None, labels)]]
  )
  for colour in _COLOURS:
    assert (picture == colour).all(axis=2).sum() > 50


def test_png_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'pictures' / 'a.png'
  image = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
  visualization.write_png(path, image)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
  with pytest.raises(TypeError):
    visualization.write_png(path, image.astype(np.float64))
  np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
  assert list(path.parent.iterdir()) == [path]


def test_trajectories_are_drawn_from_above():
  ahead = np.tile(np.eye(4), (5, 1, 1))
  ahead[:, 2, 3] = 10.0 * np.arange(5)
  right = np.tile(np.eye(4), (5, 1, 1))
  right[:, 0, 3] = 10.0 * np.arange(5)
  pictures = [
    visualization.draw_trajectories({'truth': poses}, title='09')
    for poses in (ahead, right)
  ]
  # Matplotlib's first colour, the line's, away from legend and margins.
  for picture, axis in zip(pictures, (0, 1), strict=True):
    assert picture.dtype == np.uint8
    line = (picture == (31, 119, 180)).all(axis=2)[120:-60, 60:-20]
    rows, columns = (np.ptp(places) for places in np.nonzero(line))
    along, across = (rows, columns) if axis == 0 else (columns, rows)
    assert along > 10 * across


@pytest.mark.parametrize(
  'backend', ['module://nonsense', 'module://matplotlib_inline.nonsense', 'Qt']
)
def test_plots_do_not_depend_on_the_users_settings(tmp_path, backend):
  code = (
    'import numpy as np\n'
    'from sgde_jax import visualization\n'
    'poses = np.tile(np.eye(4), (3, 1, 1))\n'
    "picture = visualization.draw_trajectories({'a': poses}, title='b')\n"
    "visualization.write_png('picture.png', picture)\n"
    "import os; assert os.environ['MPLBACKEND']\n"
  )
  settings = 'text.usetex: True\nfigure.dpi: 7\naxes.facecolor: red\n'
  (tmp_path / 'matplotlibrc').write_text(settings)
  subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env=os.environ
    | {'MPLBACKEND': backend, 'PYTHONPATH': str(kitti_folder.REPOSITORY)},
    check=True,
  )
  poses = np.tile(np.eye(4), (3, 1, 1))
  expected = visualization.draw_trajectories({'a': poses}, title='b')
  found = np.asarray(Image.open(tmp_path / 'picture.png'))
  np.testing.assert_array_equal(found, expected)


def test_plots_leave_the_users_settings(monkeypatch):
  monkeypatch.setitem(matplotlib.rcParams, 'figure.dpi', 33)
  monkeypatch.setenv('MPLBACKEND', 'nonsense')
  with visualization.figure() as plot:
    assert plot.dpi == 100
  assert matplotlib.rcParams['figure.dpi'] == 33
  assert os.environ['MPLBACKEND'] == 'nonsense'
