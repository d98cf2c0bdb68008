"""Config -> checked tables: everything that can be refused before training."""

import dataclasses
import functools
import hashlib
import importlib.util
import logging
import os

from input_pipeline import (
  cityscapes,
  command_line,
  examples,
  images,
  splits,
  truths,
)
from input_pipeline.sources import records, stills
from input_pipeline.tools import check_labels

SOURCES = ('street', 'kitti', 'tfds')
READERS = ('memory', 'tf')
UNREADABLE = ('stop', 'replace')
_MASKS_READ = 64  # About so many show whether a folder has the config's coding.


@dataclasses.dataclass(frozen=True)
class DataSummary:
  """What the two splits hold.

  Attributes:
    train_examples: number of training examples.
    eval_examples: number of evaluation examples.
    train_drives: drives of the training split, sorted.
    eval_drives: drives of the evaluation split, sorted.
    sizes: native (height, width) of the images, sorted; the commonest of some
      frames of every drive and camera.
    train_labelled: training examples that have a mask.
    eval_labelled: evaluation examples that have a mask.
    stills: labelled stills for semantics alone.
    replaced: training examples that lack a frame; others take their place.
    lists: a digest of both lists' lines.
  """

  train_examples: int
  eval_examples: int
  train_drives: tuple
  eval_drives: tuple
  sizes: tuple
  train_labelled: int
  eval_labelled: int
  stills: int
  replaced: int
  lists: str = ''

  def __str__(self):
    sizes = ', '.join(f'{width}x{height}' for height, width in self.sizes)
    shared = set(self.train_drives) & set(self.eval_drives)
    train, evaluation, both = (
      command_line.count_of(len(names), 'drive')
      for names in (self.train_drives, self.eval_drives, shared)
    )
    return (
      f'train: {self.train_examples} examples from {train}, '
      f'{self.train_labelled} with labels; eval: {self.eval_examples} from '
      f'{evaluation}, {self.eval_labelled} with labels; images {sizes}'
      + (f'; {self.stills} labelled stills' if self.stills else '')
      + (
        f'; {self.replaced} training examples lack frames and are replaced'
        if self.replaced
        else ''
      )
      + (f'; {both} in both splits' if shared else '')
    )


def check_data(config_data):
  """Checks both splits against the folder or the records, before any training.

  Args:
    config_data: the config's `data`.

  Returns:
    A `DataSummary`; its `str` is one line.

  Raises:
    FileNotFoundError: the root or a split list is absent.
    ValueError: a field of the config, a line of a list or a calibration file is
      wrong, or files are missing: their number and the first ten; or the
      records do not hold what the config asks for.
  """
  check_fields(config_data)
  if config_data.source == 'tfds':
    summary = DataSummary(**records.read_summary(config_data), stills=0)
  else:
    folder = open_folder(config_data)
    summary = check_folder(
      config_data,
      folder,
      truth=_open_truth(config_data, folder),
      replace=config_data.unreadable == 'replace',
    )
  if config_data.semantic_root:
    table = stills.open_table(config_data)
    _check_masks(
      'config.data.semantic_',
      table.coding,
      zip(table.frame_files, table.label_files, strict=True),
      replace=config_data.unreadable == 'replace',
    )
    summary = dataclasses.replace(summary, stills=len(table))
  return summary


def check_folder(config_data, folder, *, truth, replace=False):
  """Checks both split lists against a folder; see `check_data`.

  Args:
    config_data: the config's `data`.
    folder: an `examples.Folder`.
    truth: what `truths.open_truth` returns; without one there is no evaluation
      split.
    replace: whether training examples may lack a frame where others of their
      drive and side do not.

  Returns:
    A `DataSummary` without stills.

  Raises:
    FileNotFoundError, ValueError: as `check_data`.
  """
  train = _read_split(config_data.train_split, folder)
  evaluation = []
  if truth is not None:
    evaluation = _read_split(config_data.eval_split, folder)
  complete = train
  if replace:
    complete = _drop_replaceable(folder, train, config_data.frame_offsets)
  _refuse_missing(
    folder,
    dict.fromkeys(
      examples.find_missing(
        folder, complete, frame_offsets=config_data.frame_offsets
      )
      + examples.find_missing(
        folder, evaluation, frame_offsets=(0,), truth=truth
      )
    ),
  )
  for example in train + evaluation:
    folder.calibration(example).check_camera(example.camera)
  sizes = _usual_sizes(folder, complete + evaluation)
  for path, size in sizes.items():
    if size is None:
      raise ValueError(f'no frame of {path} can be read')
  _refuse_other_shapes(folder, complete + evaluation, sizes)
  _refuse_other_truths(folder, evaluation, sizes, truth)
  train_masks = _list_masks(config_data, folder, train)
  eval_masks = _list_masks(config_data, folder, evaluation)
  _check_masks(
    'config.data.',
    config_data.labels,
    train_masks + eval_masks,
    replace=replace,
  )
  return DataSummary(
    train_examples=len(train),
    eval_examples=len(evaluation),
    train_drives=_drives(train),
    eval_drives=_drives(evaluation),
    sizes=tuple(sorted(set(sizes.values()))),
    train_labelled=len(train_masks),
    eval_labelled=len(eval_masks),
    stills=0,
    replaced=len(train) - len(complete),
    lists=hashlib.sha256(repr((train, evaluation)).encode()).hexdigest(),
  )


def open_table(config_data, split, *, frame_offsets, ground_truth=False):
  """Makes the table of a split, after the checks of `check_data`.

  Args:
    config_data: the config's `data`.
    split: path of a split list, or its lines.
    frame_offsets: frame offsets of an example, 0 first.
    ground_truth: whether examples have the config's ground truth.

  Returns:
    An `examples.ExampleTable`, or a `records.RecordTable` like it.

  Raises:
    FileNotFoundError, ValueError: as `check_data`.
  """
  check_fields(config_data)
  _check_offsets(frame_offsets)
  if config_data.source == 'tfds':
    return records.open_table(
      config_data, split, frame_offsets=frame_offsets, ground_truth=ground_truth
    )
  folder = open_folder(config_data)
  lines = _read_split(split, folder)
  truth = _open_truth(config_data, folder) if ground_truth else None
  complete = lines
  if config_data.unreadable == 'replace' and not ground_truth:
    complete = _drop_replaceable(folder, lines, frame_offsets)
  _refuse_missing(
    folder,
    examples.find_missing(
      folder, complete, frame_offsets=frame_offsets, truth=truth
    ),
  )
  if truth is not None:
    _refuse_other_truths(folder, lines, _usual_sizes(folder, lines), truth)
  return examples.make_table(
    folder,
    lines,
    size=(config_data.height, config_data.width),
    frame_offsets=frame_offsets,
    coding=config_data.labels,
    truth=truth,
  )


def open_folder(config_data):
  """Opens the folder of the config, rendering the street where it is missing.

  Args:
    config_data: the config's `data`.

  Returns:
    An `examples.Folder`.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the street cannot be rendered.
  """
  root = config_data.root
  if config_data.source == 'street':
    _render_street(root, config_data.street)
  if not os.path.isdir(root):
    raise FileNotFoundError(
      f'there is no folder {root}; pass --config.data.root=FOLDER, the folder '
      'that holds 2011_09_26 and the other dates'
    )
  return examples.Folder(root)


def check_size(config_data):
  """Refuses frames without pixels and impossible frame offsets."""
  if config_data.height < 1 or config_data.width < 1:
    raise ValueError(
      'config.data.height and config.data.width must be at '
      f'least 1, got {config_data.height}, {config_data.width}'
    )
  _check_offsets(config_data.frame_offsets)


def check_fields(config_data):
  """Refuses impossible values of the config's fields."""
  for name, choices in (
    ('source', SOURCES),
    ('reader', READERS),
    ('unreadable', UNREADABLE),
    ('labels', ('none', *cityscapes.CODINGS)),
    ('ground_truth', ('none', *truths.KINDS)),
  ):
    value = getattr(config_data, name)
    if value not in choices:
      raise ValueError(
        f'config.data.{name} is {value!r}; choose one of {", ".join(choices)}'
      )
  if (
    config_data.reader == 'tf'
    and importlib.util.find_spec('tensorflow') is None
  ):
    raise ValueError(
      "config.data.reader='tf' needs TensorFlow: install tensorflow-cpu, or "
      'pass --config.data.reader=memory'
    )
  if config_data.source == 'tfds' and config_data.unreadable == 'replace':
    raise ValueError(
      "config.data.unreadable is 'replace', and records hold only what could "
      "be read: use 'stop' with config.data.source='tfds'"
    )
  check_size(config_data)
  if not config_data.root:
    raise ValueError(
      'config.data.root is empty; pass --config.data.root=FOLDER'
      ', the folder that holds 2011_09_26 and the other dates'
    )
  command_line.refuse_url('config.data.root', config_data.root)


def _render_street(root, street_config):
  """Renders the street unless this very street is there already."""
  from input_pipeline.street import folder as street

  render = functools.partial(
    street.render_street,
    root,
    drives=street_config.drives,
    frames=street_config.frames,
    height=street_config.height,
    width=street_config.width,
    seed=street_config.seed,
    test_drives=street_config.test_drives,
    workers=os.cpu_count() or 1,
  )
  try:
    try:
      render()
    except OSError:
      # Another process of this run may have put the same street there first.
      if not os.path.isdir(root):
        raise
      render()
  except ValueError as error:
    raise ValueError(
      f'config.data.root and config.data.street: {error}. For KITTI raw or '
      'other video take --config=configs/kitti_r18.py, or '
      '--config.data.source=kitti'
    ) from None


def _open_truth(config_data, folder):
  return truths.open_truth(
    config_data.ground_truth,
    folder,
    improved_root=config_data.ground_truth_root,
    file=config_data.ground_truth_file,
  )


def _check_offsets(frame_offsets):
  offsets = tuple(frame_offsets)
  if not offsets or offsets[0] != 0 or len(set(offsets)) != len(offsets):
    raise ValueError(
      'frame_offsets must start with 0 and name each offset '
      f'once, got {offsets}'
    )


def _read_split(split, folder):
  if isinstance(split, str | os.PathLike):
    return splits.read_split(splits.find_split(split, folder.root))
  return splits.parse_lines(split, source='the list of lines')


def _drop_replaceable(folder, lines, frame_offsets):
  """The examples without those that lack a frame and that others replace.

  Those of a drive and side without a complete example stay: nothing can take
  their place.
  """
  lacking = {
    example
    for example in lines
    if examples.find_missing(folder, [example], frame_offsets=frame_offsets)
  }
  whole = {
    (example.drive, example.side) for example in lines if example not in lacking
  }
  return [
    example
    for example in lines
    if example not in lacking or (example.drive, example.side) not in whole
  ]


def _refuse_other_shapes(folder, lines, sizes):
  """Refuses frames larger than their calibration says, warns of others."""
  cameras = {
    os.path.dirname(folder.file('image', example)): example
    for example in reversed(lines)
  }
  for path, example in cameras.items():
    height, width = sizes[path]
    rows, columns = folder.calibration(example).sizes[example.camera]
    message = (
      f'{path} holds frames of {width}x{height}, and S_rect_0{example.camera} '
      f'of {folder.calibration_files(example)[0]} says {columns}x{rows}'
    )
    if height > rows or width > columns:
      raise ValueError(
        f'{message}: take rectified frames (_sync drives), or '
        'the calibration that belongs to these'
      )
    if images.stretch((height, width), (rows, columns)) > 0.01:
      logging.warning(
        '%s: right if they were resized, wrong if cropped', message
      )


def _usual_sizes(folder, lines):
  """`examples.usual_sizes` of the frames of some examples."""
  return examples.usual_sizes(
    folder.file('image', example) for example in lines
  )


def _refuse_other_truths(folder, lines, sizes, truth):
  """Refuses depth maps that have neither their frame's nor its camera's shape.

  Scans are projected to the camera's size; frames may have been resized.
  """
  for example in lines:
    frame = sizes[os.path.dirname(folder.file('image', example))]
    camera = folder.calibration(example).sizes[example.camera]
    size = truth.size(example)
    if all(
      images.stretch(size, other) > 0.01 for other in (frame, camera) if other
    ):
      height, width = size
      rows, columns = frame or camera
      raise ValueError(
        f'the ground truth of {example} is {width}x{height} and its frame '
        f'{columns}x{rows}: it was cropped or stretched, and a depth map must '
        'show what its frame shows'
      )


def _refuse_missing(folder, missing):
  missing = list(missing)
  if not missing:
    return
  hints = [
    'check the root, the lists and the kind of ground truth with its '
    'own root or file'
  ]
  if any(path.split('/')[0].isdecimal() for path in missing):
    hints.append(
      'a list of numbered drives is one of KITTI odometry, and '
      'training takes KITTI raw'
    )
  if any('proj_depth' in path for path in missing):
    hints.append(truths.IMPROVED_GAPS)
  raise ValueError(
    f'{folder.root} lacks {command_line.count_of(len(missing), "file")} that '
    'the split lists need, beginning with '
    + ', '.join(missing[:10])
    + '. Frames may be .png or .jpg; '
    + '; '.join(hints)
  )


def _drives(lines):
  return tuple(sorted({example.drive for example in lines}))


def _check_masks(prefix, coding, pairs, *, replace):
  """Reads some masks, spread over the list, beside their pictures.

  Refuses values outside the coding, and what cannot be read or differs in size
  unless others take its place.
  """
  pairs = list(pairs)
  if not pairs:
    return
  some = pairs[:: max(1, len(pairs) // _MASKS_READ)]
  scan = check_labels.scan_masks(some, coding=coding, any_scale=True)
  scan.compare_coding(f'{prefix}labels')
  if not replace:
    try:
      scan.refuse_problems()
    except ValueError as error:
      raise ValueError(
        f'{prefix}labels: of {len(some)} masks looked at, {error}; python -m '
        'input_pipeline.tools.labels check FOLDER looks at all'
      ) from None


def _list_masks(config_data, folder, lines):
  """Pairs (picture, mask) of the examples that have a mask."""
  if config_data.labels == 'none':
    return []
  pairs = (
    [folder.file(kind, example) for kind in ('image', 'semantic')]
    for example in lines
  )
  return [pair for pair in pairs if pair[1] is not None]
