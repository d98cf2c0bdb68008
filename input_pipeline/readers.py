"""Rows of a table -> batches, from memory or through a tf.data graph.

Both readers call the same functions of the table, in the same order, so their
batches agree bit for bit. TensorFlow is imported by `tf_batches` alone.
"""

import functools
import logging
import threading
import weakref

import numpy as np

from input_pipeline import images, progress, sampling

# Batches that the tf.data graph makes ahead.
_PREFETCH = 2


class MemoryReader:
  """Holds decoded examples; each frame file is decoded once."""

  def __init__(self, table, indices, *, replace=False):
    """Decodes the examples.

    Args:
      table: an `examples.ExampleTable`.
      indices: the examples that will be asked for, any order, any number of
        times.
      replace: what to do about an example of which a picture file is absent or
        damaged: put the nearest readable one of its drive in its place, or
        raise.

    Raises:
      ValueError: a file cannot be read; the message names it.
    """
    indices = np.unique(indices)
    frames, rows = np.unique(table.frame_rows[indices], return_inverse=True)
    # Position in the arrays below by index in the split.
    self._positions = np.full(len(table), -1, np.int64)
    self._positions[indices] = np.arange(len(indices))
    self._frame_rows = rows.reshape(len(indices), -1)
    self._frames = np.empty(
      (len(frames), *table.field_specs()['frames'][0][1:]), np.uint8
    )
    self._fields = {
      name: np.empty((len(indices), *shape), dtype)
      for name, (shape, dtype) in table.field_specs().items()
      if name != 'frames'
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
    self._replace(table, errors)

  def _replace(self, table, errors):
    """Points the examples that failed to others."""
    replacements = _Replacements(table)

    def position(index):
      if index in errors:
        raise errors[index]
      return self._positions[index]

    found = {index: replacements.read(index, position) for index in errors}
    for index, place in found.items():
      self._positions[index] = place

  def batch(self, indices):
    """Gathers a batch.

    Args:
      indices: [B] integers, each among those that were decoded.

    Returns:
      Name -> [B, ...] array, as the table's `field_specs`.
    """
    positions = self._positions[indices]
    batch = {'frames': self._frames[self._frame_rows[positions]]}
    return batch | {
      name: field[positions] for name, field in self._fields.items()
    }


class OrderedBatches:
  """Batches of every example of a table once, in order.

  The padding of the last batch repeats the last example under a False mask.
  """

  def __init__(
    self, table, *, reader, batch_size, process_index, process_count
  ):
    """Plans the batches and, with the `memory` reader, decodes the examples.

    Args:
      table: an `examples.ExampleTable` or `records.RecordTable`.
      reader: `memory` or `tf`.
      batch_size: global batch size, a multiple of `process_count`.
      process_index: this process, 0 .. process_count - 1.
      process_count: number of processes.
    """
    self._table = table
    rows = sampling.process_rows(
      batch_size, process_index=process_index, process_count=process_count
    )
    self._indices, self._masks = sampling.ordered_batches(
      len(table), batch_size=batch_size, rows=rows
    )
    self._reader = None
    if reader == 'memory':
      self._reader = MemoryReader(table, self._indices)

  def __len__(self):
    return len(self._indices)

  def __iter__(self):
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


def tf_batches(table, indices, *, steps, batch_size, replace=False):
  """Reads batches in a tf.data graph: parallel reads, fixed order, prefetch.

  Args:
    table: an `examples.ExampleTable`.
    indices: function of a step that gives its examples, [batch_size] int64.
    steps: range of the steps to make batches for.
    batch_size: rows per batch.
    replace: as for `MemoryReader`.

  Yields:
    Name -> [batch_size, ...] array, as the table's `field_specs`.

  Raises:
    ImportError: TensorFlow is not installed; `checking.check_fields` says so
      before.
    ValueError: a file cannot be read; the message names it.
  """
  tf = _import_tensorflow()
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
  """Reads a step's examples: their fields, and a message, empty if all went.

  A failure travels as a value: it comes out at its place in the order, and
  without a trace from inside TensorFlow.
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
  """Reads examples, and the nearest readable one where that fails."""

  def __init__(self, table):
    self._table = table
    self._replaced = set()
    self._lock = threading.Lock()

  def read(self, index, read):
    """Reads an example, or else the nearest one that can be read.

    Args:
      index: the example.
      read: function of an index that raises `images.UnreadableError`.

    Returns:
      What `read` returns.

    Raises:
      ValueError: no example of its drive and side can be read.
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
      self._count(int(index), other, error)
      return value
    raise ValueError(f'{error}; nor can another example of its drive and side')

  def _count(self, index, other, error):
    with self._lock:
      if index in self._replaced:
        return
      self._replaced.add(index)
    logging.warning(
      '%s: example %d takes the place of %d, %d of %d replaced so far',
      error,
      other,
      index,
      len(self._replaced),
      len(self._table),
    )


def _import_tensorflow():
  import tensorflow as tf

  # The accelerator's memory belongs to JAX.
  for kind in ('GPU', 'TPU'):
    tf.config.set_visible_devices([], kind)
  return tf
