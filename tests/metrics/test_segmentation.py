"""Border, class and IoU figures by hand; (sum, count) pairs add up."""

import numpy as np
import pytest

from sgde_jax import metrics


def _scene(seed=0, shape=(60, 90)):
  """A truth with holes, a prediction and labels in blocks."""
  rng = np.random.default_rng(seed)
  truth = rng.uniform(2, 60, shape) * (rng.random(shape) < 0.5)
  prediction = np.where(truth > 0, truth, 9.0) * rng.uniform(0.7, 1.4, shape)
  blocks = rng.integers(0, 19, (shape[0] // 10, shape[1] // 10))
  labels = np.kron(blocks, np.ones((10, 10), int)).astype(np.uint8)
  labels[:5] = 255
  return truth, prediction, labels


def test_border_distance_by_hand():
  labels = np.array([[1, 1, 1, 2, 2, 2, 2]], np.uint8)
  np.testing.assert_array_equal(
    metrics.border_distance(labels, limit=2), [[3, 2, 1, 1, 2, 3, 3]]
  )
  diagonal = np.full((3, 3), 4, np.uint8)
  diagonal[0, 0] = 5
  np.testing.assert_array_equal(
    metrics.border_distance(diagonal), [[1, 1, 2], [1, 2, 3], [2, 3, 4]]
  )


def test_unlabelled_pixels_make_no_border():
  labels = np.array([[1, 1, 255, 2, 2]], np.uint8)
  assert (metrics.border_distance(labels) == 6).all()
  assert (metrics.border_distance(np.full((3, 4), 255, np.uint8)) == 6).all()


def test_border_errors_by_hand():
  labels = np.array([[1] * 8 + [2] * 8 + [255]], np.uint8)
  truth = np.full(labels.shape, 10.0)
  prediction = truth.copy()
  prediction[0, 7:9] = 15.0  # On both sides of the border.
  prediction[0, -1] = 99.0
  valid = np.ones(labels.shape, bool)
  found = metrics.border_errors(truth, prediction, valid, labels)
  assert found.pairs['abs_rel/border_1'] == (pytest.approx(1.0), 2)
  assert found.pairs['abs_rel/border_3'] == (pytest.approx(1.0), 6)
  assert found.pairs['abs_rel/border_5'] == (pytest.approx(1.0), 10)
  assert found.pairs['abs_rel/away'] == (0.0, 6)
  assert found.finalize()['rmse/border_1'] == pytest.approx(5.0)


def test_class_errors_by_hand():
  labels = np.array([[0, 5, 5, 11, 255]], np.uint8)
  truth = np.full(labels.shape, 10.0)
  prediction = truth + [[0.0, 1.0, 2.0, 3.0, 50.0]]
  valid = np.array([[True, True, False, True, True]])
  found = metrics.class_errors(truth, prediction, valid, labels).finalize()
  assert found == {
    'abs_rel/road': 0.0,
    'rmse/road': 0.0,
    'abs_rel/pole': pytest.approx(0.1),
    'rmse/pole': pytest.approx(1.0),
    'abs_rel/person': pytest.approx(0.3),
    'rmse/person': pytest.approx(3.0),
    'abs_rel/thin': pytest.approx(0.2),
    'rmse/thin': pytest.approx(np.sqrt(5.0)),
  }


def test_totals_of_parts_merge_to_the_whole():
  scenes = [_scene(seed) for seed in range(4)]

  def totals(chosen):
    merged = metrics.Totals()
    for truth, prediction, labels in chosen:
      valid = truth > 0
      confusion = metrics.confusion_matrix(
        labels, np.roll(np.where(labels == 255, 0, labels), 3)
      )
      for part in (
        metrics.border_errors(truth, prediction, valid, labels),
        metrics.class_errors(truth, prediction, valid, labels),
        metrics.iou_totals(confusion),
        metrics.boundary_totals(prediction, labels, dense_truth=truth),
      ):
        merged = merged.merge(part)
    return merged

  whole = totals(scenes)
  halves = totals(scenes[2:]).merge(totals(scenes[:2]))
  assert list(whole.pairs) == list(halves.pairs)
  np.testing.assert_allclose(
    list(halves.pairs.values()), list(whole.pairs.values()), rtol=1e-12
  )
  assert halves.finalize() == pytest.approx(whole.finalize())
  # One image more adds to the same names, so hosts can add plain arrays.
  assert totals(scenes[:1]).pairs.keys() == whole.pairs.keys()


def test_class_errors_do_not_depend_on_the_order_of_pixels():
  truth, prediction, labels = _scene()
  order = np.random.default_rng(1).permutation(truth.size)
  mixed = [
    array.ravel()[order].reshape(array.shape)
    for array in (truth, prediction, truth > 0, labels)
  ]
  assert metrics.class_errors(*mixed).finalize() == pytest.approx(
    metrics.class_errors(truth, prediction, truth > 0, labels).finalize()
  )


def test_iou_by_hand():
  labels = np.array([0, 0, 0, 1, 1, 255, 3])
  predicted = np.array([0, 0, 1, 1, 2, 0, 3])
  confusion = metrics.confusion_matrix(labels, predicted)
  assert confusion.shape == (19, 19)
  assert confusion.sum() == 6
  assert (confusion[0, 1], confusion[1, 2]) == (1, 1)
  found = metrics.iou_totals(confusion).finalize()
  assert found == {
    'iou/road': pytest.approx(2 / 3),
    'iou/sidewalk': pytest.approx(1 / 3),
    'iou/building': 0.0,
    'iou/wall': 1.0,
    'miou': pytest.approx(0.5),
  }


@pytest.mark.parametrize(
  ('labels', 'predicted', 'message'),
  [
    ([33], [0], r'^labels holds \[33\]'),
    ([0], [19], r'^predicted_labels holds \[19\]'),
    ([0], [-1], r'^predicted_labels holds \[-1\]'),
    ([0], [255], 'must choose a class'),
    ([0.0], [0], 'integer'),
    ([0, 1], [0], 'same shape'),
  ],
)
def test_confusion_matrix_refuses(labels, predicted, message):
  with pytest.raises(ValueError, match=message):
    metrics.confusion_matrix(np.array(labels), np.array(predicted))
