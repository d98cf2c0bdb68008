"""A folder in KITTI's raw layout and its lists, checked against each other."""

import collections
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from input_pipeline import (
  examples,
  files,
  images,
  progress,
  splits,
  street,
)
from input_pipeline.sources import kitti, truths

_PROBES = 9  # Files of a folder whose headers give the size of its frames.
_TOLERANCE = 0.01  # Of aspect ratios; a cropped picture differs more.


def open_folder(config_data: ml_collections.ConfigDict) -> kitti.Folder:
  """Opens the folder of the config; renders the street if it is missing."""
  if config_data.source == 'street':
    options = config_data.street.to_dict() | {'workers': os.cpu_count() or 1}
    street.render_street(config_data.root, **options)
  return kitti.Folder(config_data.root)


def open_tables(
  config_data: ml_collections.ConfigDict,
  frame_offsets: Mapping[str, Sequence[int]],
) -> tuple[dict[str, examples.ExampleTable], tuple[examples.Size, ...], int]:
  """Opens splits, after checking the lists against the folder.

  `frame_offsets` are of `train`, `eval` or both, 0 first. Returns the tables by
  these names, the native sizes, and how many training examples are replaced.
  """
  folder = open_folder(config_data)
  truth = {'train': None}
  if 'eval' in frame_offsets:
    truth['eval'] = truths.open_truth(
      config_data.ground_truth,
      folder,
      improved_root=config_data.ground_truth_root,
      file=config_data.ground_truth_file,
    )
  lines, replaced = _read_lists(config_data, folder, frame_offsets, truth)
  every_line = [line for part in lines.values() for line in part]
  absent = set(replaced)
  sizes = _usual_sizes(
    folder.file('image', line) for line in every_line if line not in absent
  )
  tables = {
    name: _make_table(
      config_data, folder, lines[name], offsets, sizes, truth[name]
    )
    for name, offsets in frame_offsets.items()
  }
  _check_cameras(folder, every_line, sizes)
  if 'eval' in tables:
    _check_truths(folder, tables['eval'], sizes)
  return tables, tuple(sorted(set(sizes.values()))), len(replaced)


def _read_lists(config_data, folder, frame_offsets, truth):
  """Reads the lists, and returns which training examples are replaced.

  Raises ValueError if other examples lack files.
  """
  lines, missing, replaced = {}, {}, []
  for name, offsets in frame_offsets.items():
    path = splits.find_split(getattr(config_data, f'{name}_split'), folder.root)
    lines[name] = splits.read_split(path)
    lacking, whole = {}, set()
    for line in progress.bar(lines[name], f'looking for the files of {path}'):
      wanted = [folder.expected_file('image', line, x) for x in offsets]
      absent = folder.missing([folder.calibration_files(line)[0], *wanted])
      if truth[name]:
        absent += truth[name].missing(line)
      if absent:
        lacking[line] = absent
    if name == 'train' and config_data.unreadable == 'replace':
      # A complete example of the same drive and side replaces another.
      whole = {(x.drive, x.side) for x in lines[name] if x not in lacking}
    for line in lines[name]:
      if line in lacking and (line.drive, line.side) in whole:
        replaced.append(line)
      else:
        missing |= dict.fromkeys(lacking.get(line, ()))
  if missing:
    hint = ''
    if config_data.ground_truth == 'improved':
      hint = f'; {truths.IMPROVED_HINT}'
    raise ValueError(
      f'{folder.root} lacks {files.count_of(len(missing), "file")} that the '
      f'split lists need, beginning with {", ".join(list(missing)[:10])}. '
      'Frames may be .png or .jpg, in the layout of KITTI raw, not of KITTI '
      f'odometry; check the root, the lists and the kind of ground truth{hint}'
    )
  return lines, replaced


def _usual_sizes(paths):
  """Returns folder -> the most common (height, width) of its probed frames."""
  groups = collections.defaultdict(list)
  for path in paths:
    groups[os.path.dirname(path)].append(path)
  sizes = {}
  for folder, inside in groups.items():
    found = collections.Counter()
    for path in inside[:: -(-len(inside) // _PROBES)]:
      # An unreadable one is reported or replaced when it is read.
      with contextlib.suppress(images.UnreadableError):
        found[images.read_size(path)] += 1
    if not found:
      raise ValueError(f'no frame of {folder} can be read')
    sizes[folder] = found.most_common(1)[0][0]
  return sizes


def _make_table(config_data, folder, lines, offsets, sizes, truth):
  """Makes a table; an example whose frames are missing cannot be read."""
  height, width = config_data.height, config_data.width
  rows, frame_rows = {}, []
  for line in lines:
    paths = [folder.expected_file('image', line, x) for x in offsets]
    frame_rows.append([rows.setdefault(path, len(rows)) for path in paths])
  label_files = [None] * len(lines)
  if config_data.labels != 'none':
    label_files = [folder.file('semantic', line) for line in lines]
  intrinsics = [
    kitti.intrinsics(
      folder.calibration(line), camera=line.camera, height=height, width=width
    )
    for line in lines
  ]
  return examples.ExampleTable(
    size=(height, width),
    frame_files=tuple(rows),
    frame_rows=np.array(frame_rows, np.int64),
    label_files=label_files,
    coding=config_data.labels,
    intrinsics=np.stack(intrinsics),
    truth=truth,
    native_sizes=truth and np.array(list(map(truth.size, lines)), np.int32),
    native_frame_sizes=[sizes[os.path.dirname(path)] for path in rows],
    lines=tuple(lines),
  )


def _check_cameras(folder, lines, sizes):
  """Raises ValueError for frames larger than their calibration's.

  Warns if their aspect ratio differs.
  """
  for line in {(x.drive, x.camera): x for x in reversed(lines)}.values():
    path = os.path.dirname(folder.expected_file('image', line))
    height, width = sizes[path]
    rows, columns = folder.calibration(line).sizes[line.camera]
    message = (
      f'{path} holds frames of {width}x{height}, but S_rect_0{line.camera} '
      f'of {folder.calibration_files(line)[0]} is {columns}x{rows}'
    )
    if height > rows or width > columns:
      raise ValueError(
        f'{message}: use rectified frames (_sync drives), or the calibration '
        'that belongs to these'
      )
    if images.stretch((height, width), (rows, columns)) > _TOLERANCE:
      logging.warning(
        '%s: correct if they were resized, wrong if cropped', message
      )


def _check_truths(folder, table, sizes):
  """Raises ValueError if a depth map was cropped or stretched.

  Scans are projected to the camera's size; frames may have been resized.
  """
  for line, size in zip(table.lines, table.native_sizes.tolist(), strict=True):
    frame = sizes[os.path.dirname(folder.file('image', line))]
    camera = folder.calibration(line).sizes[line.camera]
    if min(images.stretch(size, x) for x in (frame, camera)) > _TOLERANCE:
      raise ValueError(
        f'the ground truth of {line} is {size[1]}x{size[0]} and its frame '
        f'{frame[1]}x{frame[0]}: it was cropped or stretched, but a depth map '
        'must show what its frame shows'
      )
