"""Figures at borders: counts, columns, table."""

import numpy as np
import pytest

from sgde_jax import metrics
from sgde_jax.evaluation import borders, tables

_SIZE = (40, 60)


def _image(seed=0):
  """Returns a near plate (class pole) in front of a far wall (building)."""
  rng = np.random.default_rng(seed)
  labels = np.full(_SIZE, 2, np.uint8)
  depth = np.full(_SIZE, 20.0)
  left = int(rng.integers(10, 40))
  labels[10:30, left : left + 6] = 5
  depth[10:30, left : left + 6] = 5.0
  return depth, labels


def _measure(depth, labels, prediction, *, found=None, dense=True):
  aligned = metrics.depth.align_depth(
    depth, prediction, crop='none', median_scaling=False
  )
  matrix = None if found is None else borders.confusion(labels, found)
  return borders.measure(
    depth, prediction, aligned, labels, matrix=matrix, dense=dense
  )


def test_errors_count_where_they_occur():
  depth, labels = _image()
  blurred = depth.copy()
  post = labels == 5
  blurred[post] = 10.0  # Twice as far as it is.
  figures = borders.summarize([_measure(depth, labels, blurred)])
  assert figures['abs_rel/thin'] == pytest.approx(1)
  assert figures['abs_rel/pole'] == pytest.approx(1)
  assert figures['abs_rel/building'] == 0
  assert figures['abs_rel/away'] == 0
  assert 0.4 < figures['abs_rel/border_1'] < 0.6
  assert 'abs_rel/car' not in figures


def test_sharp_prediction_has_perfect_boundaries():
  depth, labels = _image()
  sharp = borders.summarize([_measure(depth, labels, depth)])
  assert sharp['boundary_f1'] == pytest.approx(1)
  assert sharp['boundary_recall/thin'] > 0
  flat = borders.summarize([_measure(depth, labels, np.full(_SIZE, 10.0))])
  assert flat['boundary_f1'] == flat['boundary_recall/thin'] == 0
  sparse = borders.summarize([_measure(depth, labels, depth, dense=False)])
  assert 'boundary_f1' not in sparse


def test_classes_are_scored_at_the_size_of_the_labels():
  depth, labels = _image()
  perfect = _measure(depth, labels, depth, found=labels)
  assert borders.summarize([perfect])['miou'] == 1
  half = _measure(depth, labels, depth, found=labels[::2, ::2])
  assert 0.5 < borders.summarize([half])['miou'] <= 1


def test_columns_match_their_names_and_pool_over_images():
  rows = []
  for seed in range(3):
    depth, labels = _image(seed)
    rows.append(_measure(depth, labels, depth * 1.1, found=labels))
  names = borders.column_names(semantics=True, dense=True)
  assert all(list(row) == names for row in rows)
  without = borders.column_names(semantics=False, dense=False)
  assert [name for name in names if not name.startswith('iou/')] == without
  figures = borders.summarize(rows)
  assert figures['abs_rel/thin'] == pytest.approx(0.1)
  assert figures['abs_rel/away'] == pytest.approx(0.1)


def test_table_shows_its_figures():
  depth, labels = _image()
  figures = borders.summarize([_measure(depth, labels, depth, found=labels)])
  table = tables.format_borders(figures)
  for text in ('border_1', 'border_3', 'border_5', 'away', 'thin', 'miou 1.0'):
    assert text in table
  assert 'labels on 100 %' in table
  assert tables.format_borders({'abs_rel': 0.1}) == ''
  blank = _measure(depth, np.full(_SIZE, 255, np.uint8), depth)
  unlabelled = tables.format_borders(borders.summarize([blank]))
  assert 'no evaluated image has labels' in unlabelled
  assert borders.summarize([{'index': 0, 'abs_rel': 0.1}]) == {}
