"""Opens the data of a config: checked once, then read as often as needed."""

import dataclasses
import functools
import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np

from input_pipeline import (
  cityscapes,
  examples,
  files,
  masks,
  readers,
  sampling,
  splits,
)
from input_pipeline.batch import Batch
from input_pipeline.sources import folders, records, stills, truths

Config = ml_collections.ConfigDict
_CHOICES = {
  'source': ('street', 'kitti', 'tfds'),
  'reader': ('memory', 'tf'),
  'unreadable': ('stop', 'replace'),
  'labels': ('none', *cityscapes.CODINGS),
  'semantic_labels': cityscapes.CODINGS,
  'ground_truth': ('none', *truths.KINDS),
}
_SCANNED_MASKS = 64  # Enough to see whether a folder has the config's coding.


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
  """Opened and checked data; see `open_data`.

  Attributes:
    config: the config's `data`.
    train: table of the training examples, or None.
    evaluation: table of the evaluation examples, or None.
    still_table: table of the labelled stills, or None.
    sizes: native (height, width) of the images, sorted.
    replaced: training examples that lack a frame and are replaced by others.
  """

  config: Config
  train: examples.ExampleTable | records.RecordTable | None
  evaluation: examples.ExampleTable | records.RecordTable | None
  still_table: examples.ExampleTable | None
  sizes: tuple[tuple[int, int], ...]
  replaced: int

  @property
  def train_examples(self) -> int:
    """Number of training examples."""
    return len(self.train or ())

  @property
  def train_labelled(self) -> int:
    """Number of training examples that have a mask."""
    return self.train.labelled if self.train else 0

  @property
  def stills(self) -> int:
    """Number of labelled stills for training."""
    return len(self.still_table or ())

  @property
  def eval_split(self) -> str:
    """The evaluation list, as the config names it."""
    return self.config.eval_split

  @property
  def eval_lines(self) -> tuple[splits.Example, ...]:
    """The lines of the evaluation list, in the order of `index`."""
    return self.evaluation.lines if self.evaluation else ()

  @property
  def digest(self) -> str:
    """A hash that is equal on hosts that see the same examples."""
    lines = [table.lines for table in (self.train, self.evaluation) if table]
    paths = self.still_table.frame_files if self.still_table else ()
    content = str(self), lines, list(map(os.path.basename, paths))
    return hashlib.sha256(repr(content).encode()).hexdigest()

  def __str__(self):
    parts, drives = [], []
    for name, table in (('train', self.train), ('eval', self.evaluation)):
      if table:
        drives.append({line.drive for line in table.lines})
        parts.append(
          f'{name}: {len(table)} examples from '
          f'{files.count_of(len(drives[-1]), "drive")}, '
          f'{table.labelled} with labels'
        )
    sizes = ', '.join(f'{width}x{height}' for height, width in self.sizes)
    size = f'{self.config.width}x{self.config.height}'
    resized = '' if sizes == size else f', resized to {size}'
    parts.append(f'images {sizes}{resized}')
    if self.stills:
      parts.append(f'{self.stills} labelled stills')
    if self.replaced:
      parts.append(
        f'{self.replaced} training examples lack frames and are replaced'
      )
    if len(drives) == 2 and (both := drives[0] & drives[1]):
      parts.append(f'{files.count_of(len(both), "drive")} in both splits')
    return '; '.join(parts)

  def stills_per_batch(self, batch_size: int) -> int:
    """The number of stills that go with a batch of `batch_size` examples."""
    if not self.still_table:
      return 0
    count = self.config.semantic_share * batch_size
    if not (0 < count < math.inf and math.isclose(count, round(count))):
      raise ValueError(
        f'config.data.semantic_share = {self.config.semantic_share} of a batch '
        f'of {batch_size} is {count} stills: choose it so that this is a '
        'positive whole number'
      )
    return round(count)

  def train_batches(
    self,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
  ) -> Iterator[Batch]:
    """Returns an endless iterator of this process' rows of training batches.

    The order depends only on the step and the seed, a non-negative integer.
    `batch_size` is the global one, a multiple of `process_count`.
    """

    def read(table, size):
      rows = sampling.process_rows(
        size, process_index=process_index, process_count=process_count
      )

      def indices(step):
        return sampling.example_indices(
          step, seed=seed, num_examples=len(table), batch_size=size
        )[rows]

      steps = range(start_step, sys.maxsize)
      options = {'replace': self.config.unreadable == 'replace'}
      if self.config.reader == 'tf':
        options |= {'steps': steps, 'batch_size': size // process_count}
        return readers.tf_batches(table, indices, **options)
      memory = readers.MemoryReader(table, np.arange(len(table)), **options)
      return map(memory.batch, map(indices, steps))

    batches = read(self.train, batch_size)
    if not self.still_table:
      return batches
    still_batches = read(self.still_table, self.stills_per_batch(batch_size))
    return map(_add_stills, batches, still_batches)

  def eval_batches(
    self,
    *,
    batch_size: int,
    indices: Sequence[int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
  ) -> readers.OrderedBatches:
    """Returns this process' rows of the evaluation examples, in order.

    Of every example once, or of those at `indices`. All processes get the same
    number of batches.
    """
    return readers.OrderedBatches(
      self.evaluation,
      reader=self.config.reader,
      batch_size=batch_size,
      indices=indices,
      process_index=process_index,
      process_count=process_count,
    )

  def describe_step(self, step: int, *, seed: int, batch_size: int) -> str:
    """Names the examples and stills of the update to `step`, for messages."""
    order = functools.partial(sampling.example_indices, step - 1, seed=seed)
    numbers = order(
      num_examples=len(self.train), batch_size=batch_size
    ).tolist()
    text = f'its examples are numbers {numbers} (from 0) of '
    text += self.config.train_split
    if self.still_table:
      size = self.stills_per_batch(batch_size)
      numbers = order(num_examples=self.stills, batch_size=size).tolist()
      text += f', its stills numbers {numbers} (from 0, by name) of '
      text += self.config.semantic_root
    return text


def open_data(
  config_data: Config,
  *,
  train: bool = True,
  evaluation: bool = True,
  eval_offsets: Sequence[int] = (0,),
) -> Data:
  """Opens and checks the data of a config, before any training.

  Checks that all files of the lists exist, that images, calibration, masks and
  depth maps fit together, and that masks have the config's coding.

  Args:
    config_data: the config's `data`.
    train: whether to open the training examples and the labelled stills.
    evaluation: whether to open the evaluation examples; there are none if
      `config_data.ground_truth` is `none`.
    eval_offsets: frame offsets of an evaluation example, 0 first; the target
      alone by default, since test frames may have no neighbours.

  Raises:
    FileNotFoundError: if the root or a list is missing.
    ValueError: if files are missing or something does not fit.
  """
  check_paths(config_data, train=train, evaluation=evaluation)
  offsets = {}
  if train:
    offsets['train'] = tuple(config_data.frame_offsets)
  if evaluation and config_data.ground_truth != 'none':
    offsets['eval'] = tuple(eval_offsets)
  replaced, still_table = 0, None
  if config_data.source == 'tfds':
    tables, sizes = records.open_tables(config_data, offsets)
  else:
    tables, sizes, replaced = folders.open_tables(config_data, offsets)
    _check_masks('labels', config_data, list(tables.values()))
  if train and config_data.semantic_root:
    still_table = stills.open_table(
      config_data.semantic_root,
      coding=config_data.semantic_labels,
      split='train',
      size=(config_data.height, config_data.width),
    )
    _check_masks('semantic_labels', config_data, [still_table])
  return Data(
    config=config_data,
    train=tables.get('train'),
    evaluation=tables.get('eval'),
    still_table=still_table,
    sizes=sizes,
    replaced=replaced,
  )


def check_paths(
  config_data: Config, *, train: bool = True, evaluation: bool = True
) -> None:
  """Checks the fields of the config's `data` and that its paths exist.

  Takes milliseconds and imports neither TensorFlow nor JAX. The arguments are
  as for `open_data`.
  """
  problems = [
    f'{name} is {getattr(config_data, name)!r}; choose one of '
    + ', '.join(choices)
    for name, choices in _CHOICES.items()
    if getattr(config_data, name) not in choices
  ]
  if config_data.reader == 'tf' and not importlib.util.find_spec('tensorflow'):
    problems.append(
      "reader='tf' needs TensorFlow: install tensorflow-cpu, or pass "
      '--config.data.reader=memory'
    )
  if config_data.source == 'tfds' and config_data.unreadable == 'replace':
    problems.append(
      "unreadable is 'replace', but records hold only what could be read: use "
      "'stop' with --config.data.source=tfds"
    )
  offsets = tuple(config_data.frame_offsets)
  if offsets[:1] != (0,) or len(set(offsets)) != len(offsets):
    problems.append(
      f'frame_offsets must start with 0 and name each offset once: {offsets}'
    )
  if problems:
    raise ValueError('; '.join(f'config.data.{text}' for text in problems))
  root = config_data.root
  files.check_local(root)
  if train and config_data.semantic_root:
    stills.find_layout(config_data.semantic_root, split='train')
  if not os.path.isdir(root):
    if config_data.source == 'street' and root:
      return  # It will be rendered.
    raise FileNotFoundError(
      f'there is no folder {root!r}; pass --config.data.root=FOLDER, the '
      'folder that holds 2011_09_26 and the other dates'
    )
  if config_data.source != 'tfds':
    if train:
      splits.find_split(config_data.train_split, root)
    if evaluation and config_data.ground_truth != 'none':
      splits.find_split(config_data.eval_split, root)


def _check_masks(field, config_data, tables):
  """Scans some masks, spread over the tables, together with their pictures.

  Raises ValueError for values outside the coding, and for unreadable masks and
  different aspect ratios unless such examples are replaced.
  """
  pairs = [
    (table.frame_files[rows[0]], mask)
    for table in tables
    for rows, mask in zip(table.frame_rows, table.label_files, strict=True)
    if mask is not None
  ]
  if pairs:
    scan = masks.scan_masks(
      pairs[:: max(1, len(pairs) // _SCANNED_MASKS)],
      coding=tables[0].coding,
      any_scale=True,
    )
    replace = config_data.unreadable == 'replace'
    scan.check(f'config.data.{field}', values_only=replace)


def _add_stills(batch, still_batch):
  """Adds stills, read as single-frame examples, to a batch."""
  return batch | {
    'semantic_images': still_batch['frames'][:, 0],
    'semantic_labels': still_batch['labels'],
  }
