"""Frames in, batches out: the one door to the data.

Batches are dicts of NumPy arrays:

  frames         [B, F, H, W, 3] uint8, the target frame (offset 0) first
  intrinsics     [B, 3, 3] float32, pixels of the H x W frames
  labels         [B, H, W] uint8, train ids 0 .. 18, 255 = unlabelled
  index          [B] int32, the example's index in its split

with `config.data.semantic_root` also M labelled stills per batch:

  semantic_images  [M, H, W, 3] uint8
  semantic_labels  [M, H, W] uint8, train ids, 255 = unlabelled

and, for evaluation only:

  depth          [B, Hg, Wg] float32, metres, 0 = no measurement; zero-padded
                 at the bottom and the right to the split's largest size
  native_size    [B, 2] int32, height and width of the depth map
  native_labels  [B, Hg, Wg] uint8, the labels at that size, 255 in the padding;
                 absent where `config.data.labels` is `none`
  mask           [B] bool, False for the padding of the last batch
"""

import sys

import numpy as np

from input_pipeline import data, readers, sampling
from input_pipeline.sources import odometry, stills

check_data = data.check_data
example_indices = sampling.example_indices
count_stills = stills.count_stills
is_odometry_root = odometry.is_odometry_root
open_sequences = odometry.open_sequences


def create_train_batches(
  config_data, *, seed, start_step, batch_size, process_index=0, process_count=1
):
  """Training batches from a step on; the order depends on (seed, step) alone.

  Args:
    config_data: the config's `data`.
    seed: non-negative integer.
    start_step: the first step to make a batch for.
    batch_size: global batch size, a multiple of the number of processes.
    process_index: this process, 0 .. process_count - 1.
    process_count: number of processes.

  Returns:
    An endless iterator of this process' rows of each batch.

  Raises:
    FileNotFoundError, ValueError: as `check_data`, or the batch does not
      divide; while iterating: a file cannot be read.
  """
  shard = {'process_index': process_index, 'process_count': process_count}
  order = {'seed': seed, 'start_step': start_step}
  table = data.open_table(
    config_data,
    config_data.train_split,
    frame_offsets=config_data.frame_offsets,
  )
  options = {
    'reader': config_data.reader,
    'replace': config_data.unreadable == 'replace',
  }
  batches = _read_batches(table, batch_size, **options, **order, **shard)
  count = stills.count_stills(config_data, batch_size)
  if not count:
    return batches
  return map(
    _add_stills,
    batches,
    _read_batches(
      stills.open_table(config_data), count, **options, **order, **shard
    ),
  )


def _read_batches(
  table,
  batch_size,
  *,
  reader,
  replace,
  seed,
  start_step,
  process_index,
  process_count,
):
  """An endless iterator of this process' rows, from a step on."""
  rows = sampling.process_rows(
    batch_size, process_index=process_index, process_count=process_count
  )

  def indices(step):
    return sampling.example_indices(
      step, seed=seed, num_examples=len(table), batch_size=batch_size
    )[rows]

  indices(start_step)  # Refuses a bad seed or step before the files are read.
  steps = range(start_step, sys.maxsize)
  if reader == 'tf':
    return readers.tf_batches(
      table,
      indices,
      steps=steps,
      batch_size=batch_size // process_count,
      replace=replace,
    )
  memory = readers.MemoryReader(table, np.arange(len(table)), replace=replace)
  return map(memory.batch, map(indices, steps))


def _add_stills(batch, still_batch):
  """Adds stills, read as single-frame examples, to a batch."""
  return batch | {
    'semantic_images': still_batch['frames'][:, 0],
    'semantic_labels': still_batch['labels'],
  }


def create_eval_batches(
  config_data,
  *,
  split,
  batch_size,
  process_index=0,
  process_count=1,
  frame_offsets=(0,),
):
  """Evaluation batches: every example of a split once, in its order.

  Args:
    config_data: the config's `data`.
    split: path of a split list, or its lines.
    batch_size: global batch size, a multiple of the number of processes.
    process_index: this process, 0 .. process_count - 1.
    process_count: number of processes.
    frame_offsets: frame offsets of an example, 0 first; the target alone by
      default, since test frames may have no neighbours.

  Returns:
    A sized iterable of this process' rows of each batch, which can be gone
    through many times; all processes yield the same number of batches.

  Raises:
    FileNotFoundError, ValueError: as `create_train_batches`.
  """
  rows = sampling.process_rows(
    batch_size, process_index=process_index, process_count=process_count
  )
  table = data.open_table(
    config_data, split, frame_offsets=frame_offsets, ground_truth=True
  )
  return EvalBatches(table, config_data.reader, batch_size, rows)


def create_pair_batches(
  config_data, sequence, *, batch_size, process_index=0, process_count=1
):
  """Batches of the pairs of frames t and t + 1 of a sequence, in order.

  Args:
    config_data: the config's `data`.
    sequence: an `odometry.Sequence`.
    batch_size: global batch size, a multiple of the number of processes.
    process_index: this process, 0 .. process_count - 1.
    process_count: number of processes.

  Returns:
    As `create_eval_batches`, of two frames and without truth.

  Raises:
    ValueError: a frame cannot be read, or the batch does not divide.
  """
  rows = sampling.process_rows(
    batch_size, process_index=process_index, process_count=process_count
  )
  table = sequence.pair_table(
    height=config_data.height, width=config_data.width
  )
  return EvalBatches(table, config_data.reader, batch_size, rows)


class EvalBatches:
  """This process' share of the batches of a table; see `create_eval_batches`.

  The padding of the last batch repeats the last example under a False mask.

  Attributes:
    lines: the `splits.Example` of each index, or None, as the table's.
  """

  def __init__(self, table, reader, batch_size, rows):
    """Plans the batches.

    Args:
      table: an `examples.ExampleTable`.
      reader: `memory` or `tf`.
      batch_size: global batch size.
      rows: slice of the global batch that is this process' share.
    """
    self.lines = table.lines
    self._table = table
    self._indices, self._masks = sampling.ordered_batches(
      len(table), batch_size=batch_size, rows=rows
    )
    self._reader = None
    if reader == 'memory':
      self._reader = readers.MemoryReader(table, self._indices)

  def __len__(self):
    return len(self._indices)

  def __iter__(self):
    if self._reader is None:
      batches = readers.tf_batches(
        self._table,
        self._indices.__getitem__,
        steps=range(len(self)),
        batch_size=self._indices.shape[1],
      )
    else:
      batches = map(self._reader.batch, self._indices)
    for batch, mask in zip(batches, self._masks, strict=True):
      yield batch | {'mask': mask}
