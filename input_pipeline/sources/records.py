"""Reads records made by `build_records`: frames and examples, random access.

A TFDS dataset in ArrayRecord files, found below `config.data.root`:

  frames   `frame`, [1, H, W, 3] uint8: every frame file once, at one size
  train    per example `intrinsics` and `labels`
  eval     also `depth`, `native_size` and `native_labels`

each field with an axis of length 1, or 0 where the split has no such field. The
metadata hold the settings of the build, a summary, the lines of the lists, and
which frames make each example. Reading needs no TensorFlow.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from input_pipeline import cityscapes, splits

BUILDER = 'python -m input_pipeline.tools.build_records'
_INFO_FILE = 'dataset_info.json'
INCOMPLETE_PREFIX = 'incomplete.'  # Of the folders that TFDS has not finished.


class RecordTable:
  """N examples of a split, read from records; like `examples.ExampleTable`.

  Attributes:
    size: (height, width) of the frames.
    frame_rows: [N, F] int64, the records of `frames` that make an example.
    lines: N `splits.Example`.
    labelled: number of examples that have a mask.
  """

  def __init__(
    self, builder, split: str, *, offsets: Sequence[int], labels: bool
  ):
    """Opens the split `train` or `eval` of what `open_dataset` returns.

    `labels`: whether to read the stored labels; else all are unlabelled.
    """
    stored = builder.info.metadata
    self.size = stored['settings']['height'], stored['settings']['width']
    columns = list(map(stored['frame_offsets'][split].index, offsets))
    rows = np.array(stored['frame_rows'][split], np.int64)
    self.frame_rows = rows[:, columns]
    lines = stored['examples'][split]
    self.lines = tuple(splits.parse_lines(lines, source=builder.data_path))
    self.labelled = stored['summary'][f'{split}_labelled'] if labels else 0
    self._folder = builder.data_path
    self._features = builder.info.features
    self._labels = labels
    self._fields = ['intrinsics'] + ['labels'] * labels
    if split == 'eval':
      self._fields += ['native_size', 'depth'] + ['native_labels'] * labels
    self.frames, self.examples = builder.as_data_source(['frames', split])

  def __len__(self):
    return len(self.frame_rows)

  def read_frame(self, row: int) -> np.ndarray:
    """Reads a record of `frames`: [H, W, 3] uint8."""
    return self._read(self.frames, row)['frame'][0]

  def read_fields(self, index: int) -> dict[str, np.ndarray]:
    """Reads all fields of an example except its frames; see `field_specs`."""
    record = self._read(self.examples, index)
    fields = {name: record[name][0] for name in self._fields}
    if not self._labels:
      fields['labels'] = np.full(self.size, cityscapes.UNLABELLED, np.uint8)
    return fields | {'index': np.int32(index)}

  def field_specs(self) -> dict[str, tuple[tuple[int, ...], type]]:
    """Name -> (shape, NumPy dtype) of every field, the frames included."""
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
    except Exception as error:  # ArrayRecord and protobuf have their own.
      raise ValueError(
        f'record {row} of {source.split} in {self._folder} cannot be read: '
        f'{error!r}; copy or build the records again'
      ) from error


def open_tables(
  config_data: ml_collections.ConfigDict,
  frame_offsets: Mapping[str, Sequence[int]],
) -> tuple[dict[str, RecordTable], tuple[tuple[int, int], ...]]:
  """Opens splits, after checking that they match the config.

  Args:
    config_data: the config's `data`. A split is named `train` or `eval`, or is
      the list that was built: a file with its lines, or the path that the
      builder was given.
    frame_offsets: `train`, `eval` or both -> frame offsets, 0 first.

  Returns:
    Name -> table, and the native (height, width) of the images.
  """
  builder, tables = open_dataset(config_data.root), {}
  for name, wanted in frame_offsets.items():
    _check_split(getattr(config_data, f'{name}_split'), name, builder)
    _check_settings(config_data, name, wanted, builder)
    labels = config_data.labels != 'none'
    tables[name] = RecordTable(builder, name, offsets=wanted, labels=labels)
  return tables, tuple(map(tuple, builder.info.metadata['summary']['sizes']))


def open_dataset(root: str | os.PathLike[str]):
  """Opens the only dataset at or below a folder: a TFDS `DatasetBuilder`."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(_find_dataset(root))
  parts = [split.filepaths for split in builder.info.splits.values()]
  missing = [
    path for part in parts for path in part if not os.path.isfile(path)
  ]
  if missing:
    raise FileNotFoundError(
      f'{len(missing)} files of records are missing, the first of them '
      f'{missing[0]}: copy or build the records again'
    )
  return builder


def _find_dataset(root):
  for pattern in ('', '*/', '*/*/', '*/*/*/'):
    found = sorted(
      path.parent
      for path in pathlib.Path(root).glob(f'{pattern}{_INFO_FILE}')
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


def _check_settings(config_data, name, offsets, builder):
  """Raises ValueError if the config needs settings that are not stored."""
  stored = builder.info.metadata
  settings = stored['settings'] | {'ground_truth_file': ''}
  fields = ['height', 'width']
  if config_data.labels != 'none' and settings['labels'] == 'none':
    fields.append('labels')
  if name == 'eval':
    fields += ['ground_truth', 'ground_truth_file']
  other = [
    f'config.data.{field} is {wanted!r}, stored is {settings[field]!r}'
    for field in fields
    if (wanted := getattr(config_data, field)) != settings[field]
  ]
  if not set(offsets) <= set(stored['frame_offsets'].get(name, offsets)):
    other.append(
      f'config.data.frame_offsets are {tuple(offsets)}, stored are '
      f'{tuple(stored["frame_offsets"][name])}'
    )
  if other:
    raise ValueError(
      f'{builder.data_path} does not hold what the config asks for: '
      f'{"; ".join(other)}. Change the config or build other records'
    )


def _check_split(split, name, builder):
  """Raises ValueError for a split or list other than the stored one."""
  stored = builder.info.metadata
  if split == name or name not in stored['examples']:
    return
  if os.path.isfile(split):
    same = list(map(str, splits.read_split(split))) == stored['examples'][name]
  else:
    same = split == stored['list_paths'][name]
  if not same:
    raise ValueError(
      f'config.data.{name}_split is {split!r}, but the {name} split of '
      f'{builder.data_path} was built from {stored["list_paths"][name]!r}: '
      f'pass --config.data.{name}_split={name} to use it, or build other '
      'records'
    )
