"""Panels: exactly the parts that are present are drawn."""

import numpy as np
import pytest
from PIL import Image

from sgde_jax import metrics, visualization
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


def _cells(monkeypatch, draw):
  """Returns the rows of cells that a function hands to `panel`."""
  seen = []
  monkeypatch.setattr(visualization, 'panel', seen.append)
  draw()
  return seen[0]


@pytest.mark.parametrize(
  ('left_out', 'counts'),
  [
    ((), [3] * 5),  # Nine cells, then three queries at each of two levels.
    (('attention_4',), [3] * 4),
    (('attention_3', 'attention_4'), [3] * 3),
    (('enhanced', 'attention_3', 'attention_4'), [3, 3]),
    (set(_example()) - set(_BASELINE), [3, 1]),
  ],
)
def test_training_panel_grows_with_the_parts(monkeypatch, left_out, counts):
  example = {k: v for k, v in _example().items() if k not in left_out}
  rows = _cells(monkeypatch, lambda: panels.training_panel(example))
  assert list(map(len, rows)) == counts


def test_maps_have_their_range(monkeypatch):
  rows = _cells(monkeypatch, lambda: panels.training_panel(_example()))
  scales = {cell.caption: cell.scale for row in rows for cell in row}
  near = np.percentile(_example()['disparity'], 95)
  coarse, enhanced = scales['coarse disparity'], scales['enhanced disparity']
  assert coarse == enhanced
  assert coarse.ends[1] == f'{near:.3g}'
  # A change of .01 everywhere stays pale.
  change = scales['enhanced - coarse (red: nearer)']
  assert change.high == pytest.approx(0.05 * near)
  attention = scales['attention / mean, level 4']
  assert attention.low == 0 and attention.ends[1].endswith(' x')
  assert scales['frame'] is None


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
  # At the truth's size.
  assert columns * 80 < panel.shape[1] < (columns + 1) * 80
  assert panel.shape[0] > 2 * 40
  resized = np.asarray(Image.fromarray(frame).resize((80, 40)))
  assert all((panel == pixel).all(-1).any() for pixel in resized[0, :9])
  for name, classes in labels.items():
    assert (draw(**{name: 18 - classes}) != panel).any()
