"""Tests of input_pipeline.sampling."""

import math

import numpy as np
import pytest

from input_pipeline import sampling


def take(steps, **kwargs):
  kwargs = {'seed': 3, 'num_examples': 10, 'batch_size': 4} | kwargs
  return np.concatenate(
    [sampling.example_indices(step, **kwargs) for step in steps]
  )


@pytest.mark.parametrize('batch_size', [1, 3, 4, 10, 25])
def test_epochs_are_permutations_for_any_batch_size(batch_size):
  indices = take(range(100), batch_size=batch_size)[:100]
  for epoch in indices.reshape(-1, 10):
    assert sorted(epoch) == list(range(10))
  np.testing.assert_array_equal(indices, take(range(100), batch_size=1)[:100])


def test_order_is_pinned():
  # Made by this function; a change would change the order of resumed runs.
  assert take(range(3)).tolist() == [0, 1, 2, 7, 5, 6, 9, 8, 4, 3, 5, 8]


def test_seeds_and_epochs_differ():
  first, second = take(range(5)).reshape(2, 10)
  assert first.tolist() != second.tolist()
  assert take(range(5)).tolist() != take(range(5), seed=4).tolist()


def test_late_steps_are_fast_and_one_example_works():
  assert take([10**15]).shape == (4,)
  assert take([7], num_examples=1).tolist() == [0, 0, 0, 0]


def test_result_is_writable():
  take([0], batch_size=10)[:] = 0
  sampling.example_indices(0, seed=3, num_examples=10, batch_size=10)[:] = 0
  assert sorted(take([0], batch_size=10)) == list(range(10))


def test_process_rows_cover_the_batch_in_order():
  slices = [
    sampling.process_rows(12, process_index=p, process_count=4)
    for p in range(4)
  ]
  rows = np.concatenate([np.arange(12)[rows] for rows in slices])
  assert rows.tolist() == list(range(12))


@pytest.mark.parametrize('count, batch_size', [(5, 4), (4, 4), (1, 8), (9, 2)])
def test_ordered_batches_contain_every_example_once(count, batch_size):
  seen = []
  for process in range(2):
    rows = sampling.process_rows(
      batch_size, process_index=process, process_count=2
    )
    indices, mask = sampling.ordered_batches(
      count, batch_size=batch_size, rows=rows
    )
    assert (
      indices.shape
      == mask.shape
      == (math.ceil(count / batch_size), batch_size // 2)
    )
    assert indices.max() < count
    seen += indices[mask].tolist()
  assert sorted(seen) == list(range(count))


def test_indivisible_batch_raises():
  with pytest.raises(ValueError, match='10 is not a multiple of the 4'):
    sampling.process_rows(10, process_index=0, process_count=4)
