"""Rows of a table -> batches, from memory or through a tf.data graph.

Both readers call the same functions of the table, in the same order, so their
batches agree bit for bit. TensorFlow is imported by `tf_batches` alone.

A table is an `examples.ExampleTable` or a `records.RecordTable`.
"""

import functools
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from input_pipeline import images, progress, sampling
from input_pipeline.batch import Batch

_PREFETCH = 2  # Batches that the tf.data graph makes ahead.


class MemoryReader:
  """Holds decoded examples; each frame file is decoded once."""

  def __init__(self, table, indices: np.ndarray, *, replace: bool = False):
    """Decodes the examples, `indices`, that `batch` may ask for.

    With `replace` the nearest readable example of its drive replaces one with
    an absent or damaged picture; without it, such a picture raises.
    """
    indices = np.unique(indices)
    frames, rows = np.unique(table.frame_rows[indices], return_inverse=True)
    # Position in the arrays below by index in the split.
    self._positions = np.full(len(table), -1, np.int64)
    self._positions[indices] = np.arange(len(indices))
    self._frame_rows = rows.reshape(len(indices), -1)
    specs = table.field_specs()
    frame_shape, _ = specs.pop('frames')
    self._frames = np.empty((len(frames), *frame_shape[1:]), np.uint8)
    self._fields = _empty_batch(specs, len(indices))
    bad, found = {}, np.empty(len(indices), np.int64)

    def read_frame(row):
      try:
        self._frames[row] = table.read_frame(frames[row])
      except images.UnreadableError as error:
        if not replace:
          raise
        bad[row] = error

    def read_fields(index):
      """Returns the example's position; a replacement is read twice."""
      position = self._positions[index]
      for row in self._frame_rows[position]:
        if row in bad:
          raise bad[row]
      for name, value in table.read_fields(index).items():
        self._fields[name][position] = value
      return position

    read = _replacing(table, read_fields) if replace else read_fields

    def place(number):
      found[number] = read(indices[number])

    progress.for_each(read_frame, len(frames), 'decoding frames')
    progress.for_each(place, len(indices), 'reading examples')
    self._positions[indices] = found

  def batch(self, indices: np.ndarray) -> Batch:
    """Gathers a batch of examples, [B] integers."""
    positions = self._positions[indices]
    fields = {name: field[positions] for name, field in self._fields.items()}
    return {'frames': self._frames[self._frame_rows[positions]]} | fields


class OrderedBatches:
  """Batches of examples of a table, in order; can be iterated again.

  The last batch is padded with the last example, where `mask` is False.
  """

  def __init__(
    self,
    table,
    *,
    reader: str,
    batch_size: int,
    indices: Sequence[int] | None = None,
    **processes: int,
  ):
    """Plans the batches; the reader `memory` (or `tf`) decodes the examples.

    Args:
      table: the table.
      reader: `memory` or `tf`.
      batch_size: the global one.
      indices: which examples; by default each of the table once.
      **processes: see `sampling.process_rows`.
    """
    self._table = table
    chosen = np.arange(len(table)) if indices is None else np.array(indices)
    positions, self._masks = sampling.ordered_batches(
      len(chosen),
      batch_size=batch_size,
      rows=sampling.process_rows(batch_size, **processes),
    )
    self._indices = chosen[positions]
    self._memory = None
    if reader == 'memory':
      self._memory = MemoryReader(table, self._indices)

  def __len__(self):
    return len(self._indices)

  def __iter__(self) -> Iterator[Batch]:
    if self._memory:
      batches = map(self._memory.batch, self._indices)
    else:
      batches = tf_batches(
        self._table,
        self._indices.__getitem__,
        steps=range(len(self)),
        batch_size=self._indices.shape[1],
      )
    for batch, mask in zip(batches, self._masks, strict=True):
      yield batch | {'mask': mask}


def tf_batches(
  table,
  indices: Callable[[int], np.ndarray],
  *,
  steps: range,
  batch_size: int,
  replace: bool = False,
) -> Iterator[Batch]:
  """Reads batches in a tf.data graph: parallel reads, fixed order, prefetch.

  `indices` maps a step to its examples, [batch_size] int64; `replace` is as for
  `MemoryReader`.
  """
  import tensorflow as tf

  for kind in ('GPU', 'TPU'):  # Their memory belongs to JAX.
    tf.config.set_visible_devices([], kind)
  specs = table.field_specs()

  def read(index):
    frames = [table.read_frame(row) for row in table.frame_rows[index]]
    return table.read_fields(index) | {'frames': np.stack(frames)}

  read_any = _replacing(table, read) if replace else read
  make = functools.partial(_make_batch, read_any, specs, indices)

  def make_batch(step):
    # A batch at a time: example by example TensorFlow copies every array twice.
    types = [dtype for _, dtype in specs.values()] + [tf.string]
    *values, error = tf.numpy_function(make, [step], types)
    for value, (shape, _) in zip(values, specs.values(), strict=True):
      value.set_shape((batch_size, *shape))
    return dict(zip(specs, values, strict=True)) | {'error': error}

  # Steps come from a counter and not from a Python generator, which TensorFlow
  # cannot close cleanly when the interpreter ends before the dataset.
  dataset = tf.data.Dataset.range(steps.start, steps.stop)
  dataset = dataset.map(
    make_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
  )
  running = [dataset.prefetch(_PREFETCH).as_numpy_iterator()]
  # The graph's threads call Python: stop them before the interpreter ends, or
  # it waits for them forever.
  stop = weakref.finalize(dataset, running.clear)
  try:
    while (batch := next(running[0], None)) is not None:
      if error := batch.pop('error'):
        raise ValueError(error.decode())
      yield batch
  finally:
    stop()


def _empty_batch(specs, size):
  return {
    name: np.zeros((size, *shape), dtype)
    for name, (shape, dtype) in specs.items()
  }


def _make_batch(read, specs, indices, step):
  """Reads a step's examples: their fields, and a message, empty if all is well.

  A failure is returned as a value, so that it keeps its place in the order and
  has no TensorFlow traceback.
  """
  rows, error = indices(step), ''
  batch = _empty_batch(specs, len(rows))
  try:
    for row, index in enumerate(rows):
      for name, value in read(index).items():
        batch[name][row] = value
  except (ValueError, OSError, MemoryError) as problem:
    error = str(problem) or type(problem).__name__
  return [*batch.values(), error.encode()]


def _replacing(table, read):
  """Returns a function that reads an example, or the nearest readable one.

  It warns once for each replaced example, and raises ValueError if no example
  of its drive and side can be read.
  """
  replaced = set()

  def read_any(index):
    try:
      return read(index)
    except images.UnreadableError as problem:
      error = problem
    for other in table.nearest(index):
      try:
        value = read(other)
      except images.UnreadableError:
        continue
      if index not in replaced:
        replaced.add(index)
        logging.warning(
          f'{error}: example {other} replaces {index}, {len(replaced)} of '
          f'{len(table)} replaced so far'
        )
      return value
    raise ValueError(f'{error}; nor can another example of its drive and side')

  return read_any
