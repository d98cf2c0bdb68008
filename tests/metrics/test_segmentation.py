"""Confusion of classes and the intersection over union."""

import numpy as np
import pytest

from sgde_jax import metrics


def test_iou_by_hand():
  labels = np.array([0, 0, 0, 1, 1, 255, 3])
  predicted = np.array([0, 0, 1, 1, 2, 0, 3])
  confusion = metrics.segmentation.confusion_matrix(labels, predicted)
  assert confusion.shape == (19, 19)
  assert confusion.sum() == 6
  assert (confusion[0, 1], confusion[1, 2]) == (1, 1)
  found = metrics.segmentation.iou_totals(confusion).finalize()
  assert found == {
    'iou/road': pytest.approx(2 / 3),
    'iou/sidewalk': pytest.approx(1 / 3),
    'iou/building': 0.0,
    'iou/wall': 1.0,
    'miou': pytest.approx(0.5),
  }


@pytest.mark.parametrize(
  ('labels', 'predicted'), [([33], [0]), ([0], [19]), ([0], [-1]), ([0], [255])]
)
def test_values_that_are_not_classes_raise(labels, predicted):
  with pytest.raises(ValueError, match='invalid entry'):
    metrics.segmentation.confusion_matrix(np.array(labels), np.array(predicted))
