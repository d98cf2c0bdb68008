"""Step -> examples, as a pure function of (seed, step).

Step n takes positions nB .. nB + B - 1 of the endless concatenation of
per-epoch permutations, so that a resumed run continues exactly where it
stopped, at no cost and on any number of hosts.
"""

import functools

import numpy as np


def example_indices(
  step: int, *, seed: int, num_examples: int, batch_size: int
) -> np.ndarray:
  """Returns the examples of a training step, of all processes: [batch_size].

  Steps count from 0; `batch_size` is the global one and may exceed the number
  of examples.
  """
  first = step * batch_size
  epochs = range(
    first // num_examples, (first + batch_size - 1) // num_examples + 1
  )
  order = np.concatenate(
    [_permutation(seed, epoch, num_examples) for epoch in epochs]
  )
  start = first - epochs[0] * num_examples
  return order[start : start + batch_size]


def process_rows(
  batch_size: int, *, process_index: int, process_count: int
) -> slice:
  """Returns the rows p B / P .. (p + 1) B / P of process p in the batch."""
  if batch_size % process_count:
    raise ValueError(
      f'the global batch size {batch_size} is not a multiple of the '
      f'{process_count} processes; change the batch size'
    )
  share = batch_size // process_count
  return slice(process_index * share, (process_index + 1) * share)


def ordered_batches(
  num_examples: int, *, batch_size: int, rows: slice
) -> tuple[np.ndarray, np.ndarray]:
  """Lists every example once, in order; the last one pads the last batch.

  Returns:
    [N, b] int64 examples, b being the `rows` of the global batch, and [N, b]
    bool, False for the padding.
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
