"""Builds records: a KITTI raw folder and its lists as one TFDS dataset.

  python -m input_pipeline.tools.build_records --root=KITTI --output=DIR \
    --train_split=LIST --eval_split=LIST

  python main.py --config.data.source=tfds --config.data.root=DIR ...

Every frame is resized once, by the readers' own `images.read_frame`, and
stored once, as bare pixels: ArrayRecord compresses them, and they decode eight
times as fast as PNG at a third more space. `records` lists what is stored. A
build appears whole at its end or not at all.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline import (
  cityscapes,
  command_line,
  data,
  examples,
  files,
  images,
  progress,
)
from input_pipeline.sources import kitti, records, truths

# TFDS sorts records by keys of so many bits, in memory a thousandth at a time.
_KEY_BITS = 128
_FILE_FORMAT = 'array_record'


@dataclasses.dataclass(eq=False)
class RecordsConfig(tfds.core.BuilderConfig):
  """The contents of the records and their source; see the config's `data`."""

  root: str = ''
  train_split: str = 'splits/train.txt'
  eval_split: str = 'splits/test.txt'
  height: int = 192  # of the stored frames
  width: int = 640
  labels: str = 'none'  # `none` stores none
  ground_truth: str = 'lidar'  # `none` stores no `eval`
  ground_truth_root: str = ''
  frame_offsets: tuple[int, ...] = (0, -1, 1)
  # The other fields of a config's `data`, which are not fields of this one.
  source = 'kitti'
  reader = 'memory'
  unreadable = 'stop'
  ground_truth_file = ''
  semantic_root = ''
  semantic_labels = 'ids'

  @functools.cached_property
  def contents(self) -> 'Contents':
    """The contents of the dataset; reads the lists and lists the folders."""
    return read_contents(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
  """The contents of a dataset."""

  # `train` and, if there is a ground truth, `eval`.
  tables: dict[str, examples.ExampleTable]
  frames: tuple[tuple[examples.ExampleTable, int], ...]  # table and row of each
  summary: str  # of the opened `data.Data`
  metadata: dict[str, Any]  # what metadata.json holds


def read_contents(config: RecordsConfig) -> Contents:
  """Checks the folder against the lists and plans the records.

  Raises:
    FileNotFoundError, ValueError: as for `data.open_data`, or if labels are
      asked for and no frame has a mask.
  """
  opened = data.open_data(config)
  tables = {'train': opened.train, 'eval': opened.evaluation}
  tables = {name: table for name, table in tables.items() if table is not None}
  labelled = config.labels != 'none'
  if labelled and not any(table.labelled for table in tables.values()):
    raise ValueError(
      f'--labels={config.labels}, but no listed frame of {config.root} has a '
      'mask in DRIVE/semantic_02/data (or semantic_03): add masks, or leave '
      '--labels out'
    )
  offsets = {'train': tuple(config.frame_offsets), 'eval': (0,)}
  lists = {name: str(getattr(config, f'{name}_split')) for name in tables}
  lines = {name: table.lines for name, table in tables.items()}
  rows, frames = {}, []
  for table in tables.values():
    for row, path in enumerate(table.frame_files):
      if path not in rows:
        rows[path] = len(frames)
        frames.append((table, row))
  settings = 'height', 'width', 'labels', 'ground_truth'
  metadata = {
    'settings': {name: getattr(config, name) for name in settings},
    'frame_offsets': offsets,
    'list_paths': lists,
    'examples': {name: list(map(str, value)) for name, value in lines.items()},
    'files': _digest_files(config, lines, offsets),
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
  return Contents(
    tables=tables,
    frames=tuple(frames),
    summary=str(opened),
    # Through JSON, to compare equal to settings that were read back.
    metadata=json.loads(json.dumps(metadata)),
  )


def _digest_files(config, lines, offsets):
  """Returns a fingerprint of the files that a build reads."""
  folder, paths = kitti.Folder(config.root), set()
  truth = truths.open_truth(
    config.ground_truth, folder, improved_root=config.ground_truth_root
  )
  for name, split in lines.items():
    for example in split:
      paths.update(folder.calibration_files(example))
      for offset in offsets[name]:
        paths.add(folder.file('image', example, offset))
      if config.labels != 'none':
        paths.add(folder.file('semantic', example))
      if name == 'eval':
        paths.update(truth.sources(example))
  return folder.digest(filter(None, paths))


class KittiRecords(tfds.core.GeneratorBasedBuilder):
  """Frames once, and examples that point to them; see `records`."""

  VERSION = tfds.core.Version('1.1.0')
  # Nothing is downloaded; to find that out, TFDS 4.9.10 imports the package
  # importlib_resources, which it does not require.
  url_infos = None

  def _info(self):
    contents = self.builder_config.contents
    *_, table = contents.tables.values()  # It has every field that is stored.
    specs = {'frame': ((*table.size, 3), np.uint8)}
    specs |= self._stored(table.field_specs())
    features = {
      # All splits have the same features: a record holds 0 or 1 of each.
      name: tfds.features.Tensor(
        shape=(None, *shape), dtype=dtype, encoding='bytes'
      )
      for name, (shape, dtype) in specs.items()
    }
    return tfds.core.DatasetInfo(
      builder=self,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(contents.metadata),
      description='Driving video for self-supervised depth: frames, and '
      'examples that point to them by the frame_rows of metadata.json.',
      features=tfds.features.FeaturesDict(features),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    contents = self.builder_config.contents

    def read_frame(number):
      table, row = contents.frames[number]
      return {'frame': table.read_frame(row)}

    count = len(contents.frames)
    generators = {'frames': self._generate_examples(count, read_frame)}
    for name, table in contents.tables.items():
      generators[name] = self._generate_examples(
        len(table),
        lambda index, table=table: self._stored(table.read_fields(index)),
      )
    return generators

  def _stored(self, fields):
    stored = {'intrinsics', 'native_size', 'depth'}
    if self.builder_config.labels != 'none':
      stored |= {'labels', 'native_labels'}
    return {name: fields[name] for name in fields if name in stored}

  def _generate_examples(self, count, read):
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

    for row, fields in enumerate(progress.in_order(attempt, range(count))):
      if isinstance(fields, images.UnreadableError):
        problems.append(str(fields))
        continue
      present = {name: value[None] for name, value in fields.items()}
      yield row * (2**_KEY_BITS // count), absent | present
    if problems:  # All at once, because a build takes long.
      raise ValueError(
        f'nothing was built: {files.count_of(len(problems), "picture")} of the '
        'lists cannot be used; replace them, or leave out the examples that '
        f'need them:{files.list_first(problems)}'
      )


def build(
  config: RecordsConfig, output: str | os.PathLike
) -> tuple[pathlib.Path, bool]:
  """Builds a dataset, unless it exists.

  Args:
    config: what to store.
    output: the folder to build in, on a local or mounted disk.

  Returns:
    The dataset's folder, and whether it was built by this call.

  Raises:
    FileNotFoundError: if the root or a list is absent.
    ValueError: if an argument is wrong, a file is missing or cannot be read, or
      the dataset of this name was built with other arguments or files.
  """
  files.check_local(output)
  metadata = config.contents.metadata
  folder = pathlib.Path(output) / KittiRecords.name / config.name
  folder /= str(KittiRecords.VERSION)
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


def _check_same(stored, wanted, folder):
  """Raises ValueError if a dataset differs from the one asked for."""
  other = [
    f'{name} {stored["settings"][name]} (asked for: {value})'
    for name, value in wanted['settings'].items()
    if stored['settings'][name] != value
  ]
  for name, what in (
    ('frame_offsets', 'frame offsets'),
    ('examples', 'lists'),
    ('files', 'files in the root, or other sizes of them'),
  ):
    if stored[name] != wanted[name]:
      other.append(f'other {what}')
  if other:
    raise ValueError(
      f'{folder} was built with {", ".join(other)}: give another --name or '
      '--output, or remove it'
    )


def main(arguments: Sequence[str] | None = None) -> None:
  """Parses the command line and builds."""
  parser = argparse.ArgumentParser(
    prog='python -m input_pipeline.tools.build_records',
    description='Build records from a KITTI raw folder and its lists.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  path = command_line.local_path
  codings, kinds = ('none', *cityscapes.CODINGS), ('none', *truths.KINDS)
  for name, kind, choices, text in (
    ('root', path, None, 'KITTI raw folder'),
    ('output', path, None, 'folder to build in'),
    ('train_split', path, None, 'training list'),
    ('eval_split', path, None, 'evaluation list'),
    ('height', int, None, 'rows of a frame'),
    ('width', int, None, 'columns of a frame'),
    ('labels', str, codings, 'coding of the masks in semantic_02'),
    ('ground_truth', str, kinds, 'ground truth of the evaluation'),
    ('ground_truth_root', path, None, 'root of `improved`, else --root'),
    ('frame_offsets', command_line.whole_numbers, None, 'the target, 0, first'),
    ('name', str, None, 'name of the dataset; WIDTHxHEIGHT if not given'),
  ):
    parser.add_argument(
      f'--{name}',
      type=kind,
      choices=choices,
      help=text,
      required=name in ('root', 'output'),
      default=getattr(RecordsConfig, name, None),
    )
  options = vars(parser.parse_args(arguments))
  output = options.pop('output')
  options['name'] = options['name'] or '{width}x{height}'.format(**options)
  # TFDS raises RuntimeError on a full disk.
  with command_line.report_errors((OSError, ValueError, RuntimeError)):
    config = RecordsConfig(**options)
    folder, built = build(config, output)
  if not built:
    print(f'{folder}: already exists, unchanged')
    return
  print(
    f'{folder}: {len(config.contents.frames)} frames; {config.contents.summary}'
  )
  for leftover in folder.parent.glob(f'{records.INCOMPLETE_PREFIX}*'):
    print(f'{leftover} is left of a build that was killed or is running')


if __name__ == '__main__':
  main()
