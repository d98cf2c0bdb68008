"""Builds records: a KITTI raw folder and its lists as one TFDS dataset.

  python -m input_pipeline.tools.build_records --root=KITTI --output=DIR \
    --train_split=LIST --eval_split=LIST

  python main.py --config.data.source=tfds --config.data.root=DIR ...

Every frame is resized once, by the readers' own `images.read_frame`, and
stored once, as bare pixels: ArrayRecord compresses them, and they decode eight
times as fast as PNG at a third more space. `records` says what is stored. A
build appears whole at its end or not at all.
"""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import sys
import tempfile

import numpy as np
import tensorflow_datasets as tfds
from absl import app, flags

from input_pipeline import (
  cityscapes,
  command_line,
  data,
  examples,
  files,
  images,
  progress,
  truths,
)
from input_pipeline.sources import records

# TFDS sorts records by keys of so many bits, in memory a thousandth at a time.
_KEY_BITS = 128
_FILE_FORMAT = 'array_record'


@dataclasses.dataclass(eq=False)
class RecordsConfig(tfds.core.BuilderConfig):
  """What is stored, and from where; fields as in the config's `data`.

  Attributes:
    root: KITTI raw folder.
    train_split: path of the training list.
    eval_split: path of the evaluation list.
    height: rows of the stored frames.
    width: columns of the stored frames.
    labels: coding of the masks, or `none` to store none.
    ground_truth: one of `truths.KINDS`, or `none` to store no `eval`.
    ground_truth_root: where `improved` lies; '' is the root.
    frame_offsets: frame offsets of a training example, 0 first.
  """

  root: str = ''
  train_split: str = 'splits/train.txt'
  eval_split: str = 'splits/test.txt'
  height: int = 192
  width: int = 640
  labels: str = 'none'
  ground_truth: str = 'lidar'
  ground_truth_root: str = ''
  frame_offsets: tuple = (0, -1, 1)
  # The other fields of a config's `data`, no fields of this one.
  source = 'kitti'
  reader = 'memory'
  unreadable = 'stop'
  ground_truth_file = ''
  semantic_root = ''

  @functools.cached_property
  def contents(self):
    """The `Contents` of the folder; reads the lists and lists the folders."""
    return read_contents(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
  """What goes into a dataset.

  Attributes:
    tables: `train` and, where there is a ground truth, `eval` ->
      `examples.ExampleTable`.
    frames: table and row of every frame to store.
    summary: `str` of the opened `data.Data`.
    metadata: what metadata.json holds; JSON values.
  """

  tables: dict
  frames: tuple
  summary: str
  metadata: dict


def read_contents(config):
  """Checks the folder against the lists and plans the records.

  Args:
    config: a `RecordsConfig`.

  Returns:
    A `Contents`.

  Raises:
    FileNotFoundError, ValueError: as `data.open_data`; or labels are
      asked for and no frame has one.
  """
  opened = data.open_data(config)
  if config.labels != 'none' and not any(
    table.labelled for table in (opened.train, opened.evaluation) if table
  ):
    raise ValueError(
      f'--labels={config.labels}, and no listed frame of {config.root} has a '
      'mask in DRIVE/semantic_02/data (or semantic_03): add masks, or leave '
      '--labels out'
    )
  folder = examples.Folder(config.root)
  truth = truths.open_truth(
    config.ground_truth, folder, improved_root=config.ground_truth_root
  )
  offsets = {'train': tuple(config.frame_offsets), 'eval': (0,)}
  lists = {'train': str(config.train_split)}
  tables = {'train': opened.train}
  if truth is not None:
    lists['eval'] = str(config.eval_split)
    tables['eval'] = opened.evaluation
  lines = {name: table.lines for name, table in tables.items()}
  rows, frames = {}, []
  for table in tables.values():
    for row, path in enumerate(table.frame_files):
      if path not in rows:
        rows[path] = len(frames)
        frames.append((table, row))
  settings = {
    name: getattr(config, name)
    for name in ('height', 'width', 'labels', 'ground_truth')
  }
  metadata = {
    'settings': settings,
    'frame_offsets': offsets,
    'list_paths': lists,
    'examples': {name: list(map(str, value)) for name, value in lines.items()},
    'files': _digest_files(
      folder, lines, offsets, truth, labelled=config.labels != 'none'
    ),
    'summary': {'sizes': opened.sizes}
    | {f'{name}_labelled': table.labelled for name, table in tables.items()},
    'frame_rows': {
      name: [
        [rows[table.frame_files[row]] for row in example]
        for example in table.frame_rows
      ]
      for name, table in tables.items()
    },
  }
  # Through JSON, to compare equal to what is read back.
  return Contents(
    tables=tables,
    frames=tuple(frames),
    summary=str(opened),
    metadata=json.loads(json.dumps(metadata)),
  )


def _digest_files(folder, lines, offsets, truth, *, labelled):
  """A fingerprint of the files that a build reads."""
  files = set()
  if truth is not None:
    for example in lines['eval']:
      files.update(truth.sources(example))
  for name, split in lines.items():
    for example in split:
      files.update(folder.calibration_files(example))
      files.update(
        folder.file('image', example, offset) for offset in offsets[name]
      )
      if labelled:
        files.add(folder.file('semantic', example))
  return folder.digest(filter(None, files))


class KittiRecords(tfds.core.GeneratorBasedBuilder):
  """Frames once, and examples that point to them; see `records`."""

  VERSION = tfds.core.Version('1.1.0')
  # Nothing is downloaded; to find that out, TFDS 4.9.10 imports the package
  # importlib_resources, which it does not require.
  url_infos = None

  def _info(self):
    contents = self.builder_config.contents
    *_, table = contents.tables.values()  # It has every field that is stored.
    specs = {'frame': ((*table.size, 3), np.uint8)} | {
      name: spec
      for name, spec in table.field_specs().items()
      if name in _stored_fields(self.builder_config)
    }
    return tfds.core.DatasetInfo(
      builder=self,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(contents.metadata),
      description='Driving video for self-supervised depth: frames, and '
      'examples that point to them by the frame_rows of metadata.json.',
      features=tfds.features.FeaturesDict(
        {
          # All splits have the same features: a record holds 0 or 1 of each.
          name: tfds.features.Tensor(
            shape=(None, *shape), dtype=dtype, encoding='bytes'
          )
          for name, (shape, dtype) in specs.items()
        }
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    frames = self.builder_config.contents.frames
    generators = {
      'frames': self._generate(
        len(frames),
        lambda row: {'frame': frames[row][0].read_frame(frames[row][1])},
      )
    }
    for name, table in self.builder_config.contents.tables.items():
      generators[name] = self._generate_examples(table)
    return generators

  def _generate_examples(self, table):
    stored = _stored_fields(self.builder_config)
    return self._generate(
      len(table),
      lambda index: {
        name: value
        for name, value in table.read_fields(index).items()
        if name in stored
      },
    )

  def _generate(self, count, read):
    """Yields keys that keep the order, spread over all of TFDS' buckets."""
    absent = {
      name: np.empty((0, *feature.shape[1:]), feature.np_dtype)
      for name, feature in self.info.features.items()
    }
    problems = []

    def attempt(row):
      try:
        return read(row)
      except images.UnreadableError as error:
        return error

    for row, fields in enumerate(progress.in_order(attempt, count)):
      if isinstance(fields, images.UnreadableError):
        problems.append(str(fields))
        continue
      present = {name: value[None] for name, value in fields.items()}
      yield row * (2**_KEY_BITS // count), absent | present
    if problems:  # All at once, for a build takes long.
      raise ValueError(
        f'nothing was built: {files.count_of(len(problems), "picture")} '
        'of the lists cannot be used; replace them, or leave out the examples '
        f'that need them:{files.list_first(problems)}'
      )


def _stored_fields(config):
  fields = {'intrinsics', 'native_size', 'depth'}
  return fields | (
    {'labels', 'native_labels'} if config.labels != 'none' else set()
  )


def build(config, output):
  """Builds a dataset, unless it is there already.

  Args:
    config: a `RecordsConfig`.
    output: the folder to build in, on a local or mounted disk.

  Returns:
    The dataset's folder, and whether it was built now.

  Raises:
    FileNotFoundError: the root or a list is absent.
    ValueError: an argument is wrong, a file is missing or cannot be read, or
      the dataset of this name was built with others.
  """
  _check_arguments(config, output)
  metadata = config.contents.metadata
  folder = (
    pathlib.Path(output)
    / KittiRecords.name
    / config.name
    / str(KittiRecords.VERSION)
  )
  if folder.exists():
    _check_same(records.open_dataset(folder).info.metadata, metadata, folder)
    return folder, False
  builder = KittiRecords(
    data_dir=output, config=config, file_format=_FILE_FORMAT
  )
  with tempfile.TemporaryDirectory() as scratch:  # TFDS makes it anyway.
    builder.download_and_prepare(
      download_dir=scratch,
      download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
  return folder, True


def _check_arguments(config, output):
  for path in (config.root, output):
    files.check_local(path)
  for name, choices in (
    ('labels', ('none', *cityscapes.CODINGS)),
    ('ground_truth', ('none', *truths.KINDS)),
  ):
    if getattr(config, name) not in choices:
      raise ValueError(
        f'--{name} is {getattr(config, name)!r}; choose one of '
        f'{", ".join(choices)}'
      )
  if not os.path.isdir(config.root):
    raise FileNotFoundError(f'--root: there is no folder {config.root!r}')
  if not config.name or config.name != os.path.basename(config.name):
    raise ValueError(f'--name is {config.name!r}; pass a folder name')
  if os.path.exists(output) and not os.path.isdir(output):
    raise ValueError(f'--output={output} is a file; pass a folder')


def _check_same(stored, wanted, folder):
  """Refuses a finished dataset that another call would not have made."""
  other = [
    f'{name} {stored["settings"][name]} (asked for: {value})'
    for name, value in wanted['settings'].items()
    if stored['settings'][name] != value
  ]
  other += [
    f'other {what}'
    for name, what in (
      ('frame_offsets', 'frame offsets'),
      ('examples', 'lists'),
      ('files', 'files in the root, or other sizes of them'),
    )
    if stored[name] != wanted[name]
  ]
  if other:
    raise ValueError(
      f'{folder} was built with {", ".join(other)}: give another --name or '
      '--output, or remove it'
    )


def _define_flags():
  default = RecordsConfig(name='')
  flags.DEFINE_string('root', None, 'KITTI raw folder.', required=True)
  flags.DEFINE_string('output', None, 'Folder to build in.', required=True)
  flags.DEFINE_string('train_split', default.train_split, 'Training list.')
  flags.DEFINE_string('eval_split', default.eval_split, 'Evaluation list.')
  flags.DEFINE_integer('height', default.height, 'Rows.', lower_bound=1)
  flags.DEFINE_integer('width', default.width, 'Columns.', lower_bound=1)
  flags.DEFINE_enum(
    'labels',
    default.labels,
    ('none', *cityscapes.CODINGS),
    'Coding of semantic_02.',
  )
  flags.DEFINE_enum(
    'ground_truth',
    default.ground_truth,
    ('none', *truths.KINDS),
    'For the evaluation.',
  )
  flags.DEFINE_string('ground_truth_root', '', 'Of `improved`; else the root.')
  flags.DEFINE_list(
    'frame_offsets',
    list(map(str, default.frame_offsets)),
    'The target, 0, then its sources.',
  )
  flags.DEFINE_string('name', None, 'Default: WIDTHxHEIGHT.')


def _parse_offsets(words):
  try:
    return tuple(map(int, words))
  except ValueError:
    raise ValueError(
      f'--frame_offsets is {",".join(words)}: give whole numbers, as in 0,-1,1'
    ) from None


def main(argv):
  """Builds as the flags say."""
  values = flags.FLAGS
  if argv[1:]:
    sys.exit(f'{" ".join(argv[1:])}: not a flag; write --NAME=VALUE')
  logging.getLogger('absl').setLevel(logging.ERROR)
  # RuntimeError: what TFDS makes of a full disk.
  errors = ValueError, OSError, RuntimeError
  with command_line.report_errors(errors):
    config = RecordsConfig(
      name=(
        f'{values.width}x{values.height}'
        if values.name is None
        else values.name
      ),
      frame_offsets=_parse_offsets(values.frame_offsets),
      **{
        name: os.path.expanduser(getattr(values, name))
        for name in ('root', 'ground_truth_root', 'train_split', 'eval_split')
      },
      **{
        name: getattr(values, name)
        for name in ('height', 'width', 'labels', 'ground_truth')
      },
    )
    folder, built = build(config, os.path.expanduser(values.output))
  if not built:
    print(f'{folder}: already there, unchanged')
    return
  print(
    f'{folder}: {len(config.contents.frames)} frames; {config.contents.summary}'
  )
  for path in folder.parent.glob(f'{records.INCOMPLETE_PREFIX}*'):
    print(f'{path} is left of a build that was killed or is running')


if __name__ == '__main__':
  _define_flags()
  app.run(main)
