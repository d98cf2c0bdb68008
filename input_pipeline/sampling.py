"""Step -> examples, as a pure function of (seed, step).

Step n takes positions nB .. nB + B - 1 of the endless concatenation of
per-epoch permutations, so that a resumed run goes on exactly where it stopped,
at no cost and on any number of hosts.
"""

import functools

import numpy as np


def example_indices(step, *, seed, num_examples, batch_size):
  """Examples of one training step, for all processes together.

  Args:
    step: number of the step, from 0.
    seed: non-negative integer.
    num_examples: size of the split, at least 1.
    batch_size: global batch size; may exceed the number of examples.

  Returns:
    [batch_size] int64, each in 0 .. num_examples - 1.

  Raises:
    ValueError: an argument is out of its range.
  """
  if step < 0 or seed < 0 or num_examples < 1 or batch_size < 1:
    raise ValueError(
      'a step and a seed of at least 0, and at least one example and a batch '
      f'of one are needed, got step {step}, seed {seed}, {num_examples} '
      f'examples, batch size {batch_size}'
    )
  first = step * batch_size
  epochs = range(
    first // num_examples, (first + batch_size - 1) // num_examples + 1
  )
  order = np.concatenate(
    [_permutation(seed, epoch, num_examples) for epoch in epochs]
  )
  start = first - epochs[0] * num_examples
  return order[start : start + batch_size]


def process_rows(batch_size, *, process_index, process_count):
  """Rows of the global batch that one process feeds.

  Args:
    batch_size: global batch size B.
    process_index: p, in 0 .. process_count - 1.
    process_count: P.

  Returns:
    slice(p B / P, (p + 1) B / P).

  Raises:
    ValueError: the batch does not divide, or there is no such process.
  """
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'process_index {process_index} is not below '
      f'process_count {process_count}'
    )
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f'the global batch size {batch_size} is not a positive multiple of the '
      f'{process_count} processes; change the batch size'
    )
  share = batch_size // process_count
  return slice(process_index * share, (process_index + 1) * share)


def ordered_batches(num_examples, *, batch_size, rows):
  """Every example once, in order; the last one again where a batch is left.

  Args:
    num_examples: size of the split, at least 1.
    batch_size: global batch size B.
    rows: slice of the global batch that is this process' share, b rows.

  Returns:
    [N, b] int64 examples, and [N, b] bool, False for the repeated ones.
  """
  positions = np.arange(-(-num_examples // batch_size) * batch_size)
  positions = positions.reshape(-1, batch_size)[:, rows]
  return np.minimum(positions, num_examples - 1), positions < num_examples


@functools.lru_cache(maxsize=4)
def _permutation(seed, epoch, num_examples):
  # Sorted raw bits rather than Generator.permutation: NumPy promises the same
  # bit stream in every version, but not the same permutation.
  bits = np.random.Philox(np.random.SeedSequence([seed, epoch]))
  order = np.argsort(bits.random_raw(num_examples), kind='stable')
  order.setflags(write=False)
  return order
