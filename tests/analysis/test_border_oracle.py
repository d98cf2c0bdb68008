"""Tests of `analysis.border_oracle`."""

import numpy as np
import pytest

from analysis import border_oracle
from tests.support import runs


def test_cut_borders_restore_two_planes():
  labels = np.zeros((6, 12), np.uint8)
  labels[:, 6:] = 13
  sharp = np.where(labels == 13, 0.5, 0.1)
  blurred = sharp.copy()
  blurred[:, 4:8] = (0.1, 0.2, 0.4, 0.5)
  np.testing.assert_array_equal(
    border_oracle.cut_borders(blurred, labels, 1), sharp
  )
  # Nothing but the border's pixels may change.
  slope = np.linspace(0.1, 0.6, 12) * np.ones((6, 1))
  changed = border_oracle.cut_borders(slope, labels, 2) != slope
  assert np.flatnonzero(changed[0]).tolist() == [4, 5, 6, 7]


def test_pole_gets_the_values_farthest_inside():
  labels = np.zeros((5, 9), np.uint8)
  labels[:, 3:6] = 5
  depth = np.full(labels.shape, 0.1)
  depth[:, 3:6] = (0.2, 0.5, 0.3)
  cut = border_oracle.cut_borders(depth, labels, 3)
  np.testing.assert_array_equal(cut[:, 3:6], 0.5)
  np.testing.assert_array_equal(cut[:, [0, 1, 2, 6, 7, 8]], 0.1)


def test_borders_are_cut_by_labels_and_by_predicted_classes():
  labels = np.zeros((6, 12), np.uint8)
  labels[:, 6:] = 13
  predicted = np.zeros((3, 6), np.uint8)  # At half the size, two pixels off.
  predicted[:, 4:] = 13
  slope = np.linspace(0.1, 0.6, 12) * np.ones((6, 1))
  rows = border_oracle.cut_by_all(slope, labels, predicted, [1])
  changed = {
    name: np.flatnonzero(cut[0] != slope[0]).tolist()
    for name, cut in rows.items()
  }
  assert changed == {
    'cut by labels, 1 px': [5, 6],
    'cut by predicted classes, 1 px': [7, 8],
  }
  rows = border_oracle.cut_by_all(slope, labels, None, [1])
  assert list(rows) == ['cut by labels, 1 px']


@pytest.mark.slow
def test_oracle_of_a_run_shows_what_seem_changed(root, trained, one_device):
  without = runs.make_config(root, data__ground_truth='none')
  with pytest.raises(ValueError, match='needs .*ground_truth'):
    border_oracle.apply_oracle(without, trained, [1])
  figures = border_oracle.apply_oracle(runs.make_config(root), trained, [1])
  assert set(figures) == {
    'as predicted',
    'without SEEM',
    'cut by labels, 1 px',
    'cut by predicted classes, 1 px',
  }
  errors = {row: values['abs_rel/border_3'] for row, values in figures.items()}
  assert np.isfinite(list(errors.values())).all()
  # Every pixel of random labels is at a border: there is no inside to take.
  assert errors['cut by labels, 1 px'] == errors['as predicted']
  for row in ('without SEEM', 'cut by predicted classes, 1 px'):
    assert errors[row] != errors['as predicted']
