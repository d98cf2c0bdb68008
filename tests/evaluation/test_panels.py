"""Panels: exactly the parts that are present are drawn."""

import numpy as np
import pytest

from sgde_jax import metrics
from sgde_jax.evaluation import panels

_SIZE = (32, 64)
_BASELINE = ('frame', 'disparity', 'rebuilt', 'automask')


def _example():
  rng = np.random.default_rng(0)
  height, width = _SIZE
  disparity = rng.uniform(0.1, 0.9, (height, width, 1))
  return {
    'frame': rng.random((height, width, 3)),
    'disparity': disparity,
    'rebuilt': rng.uniform(-0.1, 1.1, (2, height, width, 3)),
    'automask': rng.random(_SIZE) > 0.5,
    'labels': rng.integers(0, 19, _SIZE).astype(np.uint8),
    'true_labels': np.full(_SIZE, 255, np.uint8),
    'enhanced': disparity + 0.01,
    'points': rng.integers(0, (width, height), (20, 2)),
    'point_mask': np.arange(20) < 12,
    'queries': np.array([[1, 2], [60, 30], [32, 16]]),
    'attention_3': rng.random((3, 4, 8)),
    'attention_4': rng.random((3, 2, 4)),
  }


@pytest.mark.parametrize(
  ('left_out', 'rows'),
  [
    ((), 5),  # Nine cells, then three queries at each of two levels.
    (('attention_4',), 4),
    (('attention_3', 'attention_4'), 3),
    (('enhanced', 'attention_3', 'attention_4'), 2),
    (set(_example()) - set(_BASELINE), 2),
  ],
)
def test_training_panel_grows_with_the_parts(left_out, rows):
  example = {k: v for k, v in _example().items() if k not in left_out}
  panel = panels.training_panel(example)
  assert panel.dtype == np.uint8
  assert rows * _SIZE[0] < panel.shape[0] < (rows + 1) * (_SIZE[0] + 24)
  assert panel.shape[1] > 3 * _SIZE[1]


def test_training_panel_shows_its_inputs():
  example = _example()
  before = panels.training_panel(example)
  for name, change in (
    ('labels', lambda x: (x + 1) % 19),
    ('enhanced', lambda x: x[::-1]),
    ('points', lambda x: x[:, :] * 0),
    ('attention_3', lambda x: x[:, ::-1]),
    ('automask', lambda x: ~x),
  ):
    after = panels.training_panel(example | {name: change(example[name])})
    assert (after != before).any(), name


@pytest.mark.parametrize(
  ('given', 'columns'),
  [((), 2), (('labels',), 3), (('labels', 'true_labels'), 3)],
)
def test_evaluation_panel(given, columns):
  rng = np.random.default_rng(0)
  truth = rng.uniform(2, 60, (40, 80)) * (rng.random((40, 80)) < 0.5)
  aligned = metrics.depth.align_depth(
    truth, np.full((40, 80), 10.0), crop='none'
  )
  frame = rng.integers(0, 256, (*_SIZE, 3), np.uint8)
  sizes = {'labels': _SIZE, 'true_labels': truth.shape}
  labels = {name: rng.integers(0, 19, sizes[name], np.uint8) for name in given}

  def draw(**changed):
    classes = dict.fromkeys(sizes) | labels | changed
    return panels.evaluation_panel(
      frame, truth, aligned, **classes, captions=('7', '0.123')
    )

  panel = draw()
  assert columns * _SIZE[1] < panel.shape[1] < (columns + 1) * _SIZE[1]
  assert all((panel == pixel).all(-1).any() for pixel in frame[0, :9])
  for name, classes in labels.items():
    assert (draw(**{name: 18 - classes}) != panel).any()
