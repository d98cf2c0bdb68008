"""Rows of a table -> batches, from memory or through a tf.data graph.

Both readers call the same functions of the table, in the same order, so their
batches agree bit for bit. TensorFlow is imported by `tf_batches` alone.

A table is an `examples.ExampleTable` or a `records.RecordTable`.
"""

import functools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np

from input_pipeline import images, progress, sampling
from input_pipeline.batch import Batch

_PREFETCH = 2  # Batches that the tf.data graph makes ahead.


class MemoryReader:
  """Holds decoded examples; each frame file is decoded once."""

  def __init__(self, table, indices: np.ndarray, *, replace: bool = False):
    """Decodes the examples.

    Args:
      table: the table.
      indices: the examples that `batch` may ask for.
      replace: whether an example with an absent or damaged picture is replaced
        by the nearest readable one of its drive; else it raises.
    """
    indices = np.unique(indices)
    frames, rows = np.unique(table.frame_rows[indices], return_inverse=True)
    # Position in the arrays below by index in the split.
    self._positions = np.full(len(table), -1, np.int64)
    self._positions[indices] = np.arange(len(indices))
    self._frame_rows = rows.reshape(len(indices), -1)
    specs = table.field_specs()
    self._frames = np.empty(
      (len(frames), *specs.pop('frames')[0][1:]), np.uint8
    )
    self._fields = {
      name: np.empty((len(indices), *shape), dtype)
      for name, (shape, dtype) in specs.items()
    }
    errors = {}  # By index in the split.

    def report(positions, error):
      if not replace:
        raise error
      errors.update(dict.fromkeys(indices[positions].tolist(), error))

    def read_frame(row):
      try:
        self._frames[row] = table.read_frame(frames[row])
      except images.UnreadableError as error:
        report((self._frame_rows == row).any(axis=1), error)

    def read_fields(position):
      try:
        for name, value in table.read_fields(indices[position]).items():
          self._fields[name][position] = value
      except images.UnreadableError as error:
        report([position], error)

    progress.for_each(read_frame, len(frames), 'decoding frames')
    progress.for_each(read_fields, len(indices), 'reading examples')

    def find(index):
      if index in errors:
        raise errors[index]
      return self._positions[index]

    replacements = _Replacements(table)
    found = {index: replacements.read(index, find) for index in errors}
    for index, position in found.items():
      self._positions[index] = position

  def batch(self, indices: np.ndarray) -> Batch:
    """Gathers a batch of examples, [B] integers."""
    positions = self._positions[indices]
    batch = {'frames': self._frames[self._frame_rows[positions]]}
    return batch | {
      name: field[positions] for name, field in self._fields.items()
    }


class OrderedBatches:
  """Batches of every example of a table once, in order; can be iterated often.

  The last batch is padded with the last example, under a False `mask`.
  """

  def __init__(
    self,
    table,
    *,
    reader: str,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
  ):
    """Plans the batches; the reader `memory` (or `tf`) decodes the examples.

    `batch_size` is the global one; see `sampling.process_rows`.
    """
    rows = sampling.process_rows(
      batch_size, process_index=process_index, process_count=process_count
    )
    self._table = table
    self._indices, self._masks = sampling.ordered_batches(
      len(table), batch_size=batch_size, rows=rows
    )
    self._reader = None
    if reader == 'memory':
      self._reader = MemoryReader(table, self._indices)

  def __len__(self):
    return len(self._indices)

  def __iter__(self) -> Iterator[Batch]:
    if self._reader is None:
      batches = tf_batches(
        self._table,
        self._indices.__getitem__,
        steps=range(len(self)),
        batch_size=self._indices.shape[1],
      )
    else:
      batches = map(self._reader.batch, self._indices)
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

  Args:
    table: the table.
    indices: maps a step to its examples, [batch_size] int64.
    steps: the steps to make batches for.
    batch_size: rows per batch.
    replace: as for `MemoryReader`.
  """
  import tensorflow as tf

  for kind in ('GPU', 'TPU'):  # Their memory belongs to JAX.
    tf.config.set_visible_devices([], kind)
  specs = table.field_specs()
  read = table.read
  if replace:
    read = functools.partial(_Replacements(table).read, read=read)
  make = functools.partial(_make_batch, read, specs, indices)

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


def _make_batch(read, specs, indices, step):
  """Reads a step's examples: their fields, and a message, empty if all is well.

  A failure travels as a value: so it keeps its place in the order and comes
  without a trace of TensorFlow's.
  """
  rows, error = indices(step), ''
  batch = {
    name: np.zeros((len(rows), *shape), dtype)
    for name, (shape, dtype) in specs.items()
  }
  try:
    for row, index in enumerate(rows):
      for name, value in read(index).items():
        batch[name][row] = value
  except (ValueError, OSError, MemoryError) as problem:
    error = str(problem) or type(problem).__name__
  return [*batch.values(), error.encode()]


class _Replacements:
  """Reads examples, or else the nearest readable one."""

  def __init__(self, table):
    self._table = table
    self._replaced = set()
    self._lock = threading.Lock()

  def read(self, index, read):
    """Reads an example, or else the nearest readable one.

    Raises:
      ValueError: if no example of its drive and side can be read.
    """
    try:
      return read(index)
    except images.UnreadableError as problem:
      error = problem
    for other in self._table.nearest(index):
      try:
        value = read(other)
      except images.UnreadableError:
        continue
      self._log(int(index), other, error)
      return value
    raise ValueError(f'{error}; nor can another example of its drive and side')

  def _log(self, index, other, error):
    """Warns once for each replaced example."""
    with self._lock:
      if index in self._replaced:
        return
      self._replaced.add(index)
    logging.warning(
      '%s: example %d replaces %d, %d of %d replaced so far',
      error,
      other,
      index,
      len(self._replaced),
      len(self._table),
    )
