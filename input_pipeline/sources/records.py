"""Reads what `build_records` wrote: frames and examples in random access.

A TFDS dataset in ArrayRecord files, found below `config.data.root`:

  frames   `frame`, [1, H, W, 3] uint8: every frame file once, at one size
  train    per example `intrinsics` and `labels`
  eval     also `depth`, `native_size` and `native_labels`

each field with an axis of length 1, or 0 where the split has no such field. The
metadata, read first, hold the settings of the build, a summary, the lines of
the lists, and which frames make each example. Reading needs no TensorFlow.
"""

import os
import pathlib

import numpy as np

from input_pipeline import cityscapes, splits

BUILDER = 'python -m input_pipeline.tools.build_records'
_INFO_FILE = 'dataset_info.json'
# Of the folders that TFDS renames when they are whole.
INCOMPLETE_PREFIX = 'incomplete.'


class RecordTable:
  """N examples of a split, read from records; as `examples.ExampleTable`.

  Attributes:
    size: (height, width) of the frames.
    frame_rows: [N, F] int64, the records of `frames` that make an example.
    lines: N `splits.Example`.
    labelled: number of examples that have a mask.
  """

  def __init__(self, builder, split, *, columns, labels):
    """Opens a split.

    Args:
      builder: the dataset, as `open_dataset` gives it.
      split: `train` or `eval`.
      columns: which of the stored frames of an example to read, in order.
      labels: whether to give the stored labels; else all is unlabelled.
    """
    stored = builder.info.metadata
    self.size = stored['settings']['height'], stored['settings']['width']
    self.frame_rows = np.array(stored['frame_rows'][split], np.int64)[
      :, columns
    ]
    self.lines = tuple(
      splits.parse_lines(stored['examples'][split], source=builder.data_path)
    )
    self._folder = builder.data_path
    self._features = builder.info.features
    self._labels = labels
    self.labelled = stored['summary'][f'{split}_labelled'] if labels else 0
    self._fields = ['intrinsics'] + ['labels'] * labels
    if split == 'eval' and stored['settings']['ground_truth'] != 'none':
      self._fields += ['native_size', 'depth'] + ['native_labels'] * labels
    self.frames, self.examples = builder.as_data_source(['frames', split])

  def __len__(self):
    return len(self.frame_rows)

  def read_frame(self, row):
    """Reads a record of `frames`: [H, W, 3] uint8."""
    return self._read(self.frames, row)['frame'][0]

  def read(self, index):
    """Reads an example: `read_fields` and `frames` [F, H, W, 3] uint8."""
    frames = [self.read_frame(row) for row in self.frame_rows[index]]
    return self.read_fields(index) | {'frames': np.stack(frames)}

  def read_fields(self, index):
    """Reads everything of an example but its frames.

    Args:
      index: the example's index in its split.

    Returns:
      A dict of arrays, as `field_specs` describes them.

    Raises:
      ValueError: a file of records cannot be read.
    """
    record = self._read(self.examples, index)
    fields = {name: record[name][0] for name in self._fields}
    if not self._labels:
      fields['labels'] = np.full(self.size, cityscapes.UNLABELLED, np.uint8)
    return fields | {'index': np.int32(index)}

  def field_specs(self):
    """Shape and dtype of every field of an example.

    Returns:
      Name -> (shape, NumPy dtype), the frames included.
    """
    return {
      'frames': ((self.frame_rows.shape[1], *self.size, 3), np.uint8),
      'index': ((), np.int32),
      'labels': (self.size, np.uint8),
    } | {
      name: (self._features[name].shape[1:], self._features[name].np_dtype)
      for name in self._fields
    }

  def _read(self, source, row):
    try:
      return source[row]
    except Exception as error:  # ArrayRecord and protobuf raise their own.
      reason = ' '.join(str(error).split()) or type(error).__name__
      raise ValueError(
        f'record {row} of {source.split} in {self._folder} cannot be read: '
        f'{reason[:200]}; copy or build the records again'
      ) from error


def open_tables(config_data, frame_offsets):
  """Opens splits, after checking that they hold what the config asks for.

  Args:
    config_data: the config's `data`, whose fields have been checked. A split is
      named `train` or `eval`, or is the list that was built: a file with its
      lines, or the path that the builder was given.
    frame_offsets: `train`, `eval` or both -> frame offsets, 0 first.

  Returns:
    Name -> `RecordTable`, and the native (height, width) of the images.

  Raises:
    FileNotFoundError: if there is no dataset.
    ValueError: if it does not hold what the config asks for.
  """
  builder = open_dataset(config_data.root)
  stored = builder.info.metadata
  tables = {}
  for name, wanted in frame_offsets.items():
    _check_settings(config_data, builder, ground_truth=name == 'eval')
    _check_split(getattr(config_data, f'{name}_split'), name, builder)
    offsets = stored['frame_offsets'][name]
    missing = [offset for offset in wanted if offset not in offsets]
    if missing:
      raise ValueError(
        f'{builder.data_path} holds the frame offsets {offsets} of its {name} '
        f'examples, not {missing}: change config.data.frame_offsets or build '
        'the records with --frame_offsets'
      )
    tables[name] = RecordTable(
      builder,
      name,
      columns=[offsets.index(offset) for offset in wanted],
      labels=config_data.labels != 'none',
    )
  return tables, tuple(map(tuple, stored['summary']['sizes']))


def open_dataset(root):
  """Finds the one dataset at or below a folder.

  Args:
    root: what was given to the builder as --output, or the dataset's own
      folder where several lie there.

  Returns:
    A `tfds.core.DatasetBuilder` that reads it.

  Raises:
    FileNotFoundError: there is none, or a file of it is missing.
    ValueError: there are several, or it is none of ours.
  """
  folder = find_dataset(root)
  try:
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module  # noqa: F401
  except ImportError as error:
    raise ValueError(
      "config.data.source='tfds' needs the packages tensorflow-datasets and "
      f'array_record ({error}): install them as in requirements.txt'
    ) from error
  try:
    builder = tfds.builder_from_directory(folder)
    known = 'examples' in (builder.info.metadata or {})
    files = [
      os.fspath(path)
      for split in builder.info.splits.values()
      for path in split.filepaths
    ]
  except Exception as error:  # Broken JSON, an unknown feature ...
    raise ValueError(f'{folder} cannot be opened by TFDS: {error}') from error
  if not known:
    raise ValueError(
      f'{folder} was not written by `{BUILDER}`, or by an older one: build it'
    )
  missing = [path for path in files if not os.path.isfile(path)]
  if missing:
    raise FileNotFoundError(
      f'{len(missing)} of {len(files)} files of records are missing, the '
      f'first of them {missing[0]}: copy or build the records again'
    )
  return builder


def find_dataset(root):
  """Path of the one dataset at or below a folder; see `open_dataset`."""
  root = pathlib.Path(root)
  for pattern in ('', '*/', '*/*/', '*/*/*/'):
    found = sorted(
      path.parent
      for path in root.glob(f'{pattern}{_INFO_FILE}')
      if INCOMPLETE_PREFIX not in path.parent.name
    )
    if len(found) > 1:
      raise ValueError(
        f'{root} holds several datasets: pass the folder of one of them as '
        f'--config.data.root, {" or ".join(map(str, found))}'
      )
    if found:
      return found[0]
  raise FileNotFoundError(
    f'there is no dataset in {root} (no {_INFO_FILE}): build one with '
    f'`{BUILDER} --root=KITTI --output={root}`'
  )


def _check_settings(config_data, builder, ground_truth):
  """Refuses a config that asks for what is not stored."""
  settings = builder.info.metadata['settings']
  wanted = {'height': config_data.height, 'width': config_data.width}
  if config_data.labels != 'none' and settings['labels'] == 'none':
    wanted['labels'] = config_data.labels
  if ground_truth:
    wanted['ground_truth'] = config_data.ground_truth
    if config_data.ground_truth_file:
      raise ValueError(
        f'{builder.data_path} holds its ground truth: leave '
        'config.data.ground_truth_file empty'
      )
  other = [
    f'config.data.{name} is {value!r}, stored is {settings[name]!r}'
    for name, value in wanted.items()
    if settings[name] != value
  ]
  if other:
    raise ValueError(
      f'{builder.data_path} does not hold what the config asks for: '
      f'{"; ".join(other)}. Change the config or build records with the flags '
      f'{", ".join(f"--{name}" for name in wanted)}'
    )


def _check_split(split, name, builder):
  """Raises ValueError for another split or list than the stored one."""
  if split == name:
    return
  stored = builder.info.metadata
  if not os.path.isfile(split):
    built_from = stored['list_paths'][name]
    if split != built_from:
      raise ValueError(
        f'config.data.{name}_split is {split!r}, but the {name} split of '
        f'{builder.data_path} was built from {built_from!r}: pass '
        f'--config.data.{name}_split={name} to use it'
      )
    return
  if list(map(str, splits.read_split(split))) != stored['examples'][name]:
    raise ValueError(
      f'{split} is not the list that the {name} split of {builder.data_path} '
      f'was built from: pass --config.data.{name}_split={name}, or build the '
      'records from this list'
    )
