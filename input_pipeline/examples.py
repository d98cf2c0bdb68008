"""Split lines + folder -> a table of examples, checked file by file.

The table knows where every array of an example comes from, and reads it. It is
the one source of both readers, so it also says what a batch holds.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from input_pipeline import cityscapes, images
from input_pipeline.sources import kitti

# Endings of a kind of file, the preferred ones first; .png where none is given.
_SUFFIXES = {
  'image': kitti.IMAGE_SUFFIXES,
  'velodyne_points': ('.bin',),
  'oxts': ('.txt',),
}
# Files of a folder whose headers tell the size of its frames.
_PROBES = 9
# Kinds that a drive has once and not per camera.
_SHARED = ('velodyne_points', 'oxts')


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleTable:
  """N examples of a split, ready to be read.

  Attributes:
    size: (height, width) of the frames.
    frame_files: the frames' paths, each once.
    frame_rows: [N, F] int64, the rows of `frame_files` that make an example.
    label_files: N paths, None where a frame has no mask.
    coding: coding of the masks, or `none`.
    intrinsics: [N, 3, 3] float32, pixels of the resized frames.
    truths: N functions that give a depth map in metres, or None for training.
    native_sizes: [N, 2] int32, height and width of the depth maps, or None.
    native_frame_sizes: (height, width) that each frame file must have; None
      where any will do.
    lines: N `splits.Example`; None where the examples are no list's but one
      drive's, in order.
  """

  size: tuple
  frame_files: tuple
  frame_rows: np.ndarray
  label_files: tuple
  coding: str
  intrinsics: np.ndarray
  truths: tuple | None
  native_sizes: np.ndarray | None
  native_frame_sizes: tuple | None = None
  lines: tuple | None = None

  def __len__(self):
    return len(self.frame_rows)

  @property
  def labelled(self):
    """Number of examples that have a mask."""
    return sum(path is not None for path in self.label_files)

  def read_frame(self, row):
    """Reads one of `frame_files`: [H, W, 3] uint8."""
    height, width = self.size
    native_size = self.native_frame_sizes and self.native_frame_sizes[row]
    return images.read_frame(
      self.frame_files[row], height=height, width=width, native_size=native_size
    )

  def read(self, index):
    """Reads an example: `read_fields` and `frames` [F, H, W, 3] uint8."""
    frames = [self.read_frame(row) for row in self.frame_rows[index]]
    return self.read_fields(index) | {'frames': np.stack(frames)}

  def nearest(self, index):
    """The other examples of its drive and side, the nearest frame first."""
    if self.lines:
      places = [((line.drive, line.side), line.frame) for line in self.lines]
    else:
      places = [(None, row) for row in range(len(self))]
    drive, frame = places[index]
    distances = [
      (abs(other - frame), row)
      for row, (name, other) in enumerate(places)
      if name == drive
    ]
    return [row for _, row in sorted(distances) if row != index]

  def read_fields(self, index):
    """Reads everything of an example but its frames.

    Args:
      index: the example's index in its split.

    Returns:
      A dict of arrays, as `field_specs` describes them.

    Raises:
      images.UnreadableError: the mask cannot be read, or cannot be its frame's.
      ValueError: another file cannot be read, or the mask holds a value outside
        its coding; the message names the file.
    """
    height, width = self.size
    mask = None
    if self.label_files[index] is not None:
      mask = images.read_mask(self.label_files[index], coding=self.coding)
      self._check_mask(index, mask.shape)
    fields = {
      'intrinsics': self.intrinsics[index],
      'index': np.int32(index),
      'labels': _resize_labels(mask, height, width),
    }
    if self.truths is not None:
      native_size = self.native_sizes[index]
      fields['native_size'] = native_size
      fields['depth'] = _pad(self.truths[index](), self.truth_size, value=0)
      if self.coding != 'none':
        fields['native_labels'] = _pad(
          _resize_labels(mask, *native_size),
          self.truth_size,
          value=cityscapes.UNLABELLED,
        )
    return fields

  def _check_mask(self, index, size):
    """Refuses a mask that cannot be its frame's; another scale is fine."""
    row = self.frame_rows[index][0]
    if self.native_frame_sizes is None:  # Stills have no usual size.
      frame = images.read_size(self.frame_files[row])
    else:
      frame = self.native_frame_sizes[row]
    if frame and images.stretch(size, frame) > images.MASK_STRETCH:
      raise images.UnreadableError(
        f'{self.label_files[index]} is {size[1]}x{size[0]} and its frame '
        f'{frame[1]}x{frame[0]}: a mask must show what its frame shows'
      )

  @functools.cached_property
  def truth_size(self):
    """(height, width) that all depth maps of the split are padded to."""
    return tuple(int(size) for size in self.native_sizes.max(axis=0))

  def field_specs(self):
    """Shape and dtype of every field of an example.

    Returns:
      Name -> (shape, NumPy dtype), the frames included.
    """
    specs = {
      'frames': ((self.frame_rows.shape[1], *self.size, 3), np.uint8),
      'intrinsics': ((3, 3), np.float32),
      'index': ((), np.int32),
      'labels': (self.size, np.uint8),
    }
    if self.truths is not None:
      specs['native_size'] = ((2,), np.int32)
      specs['depth'] = (self.truth_size, np.float32)
      if self.coding != 'none':
        specs['native_labels'] = (self.truth_size, np.uint8)
    return specs


class Folder:
  """A KITTI raw folder; lists each of its folders once.

  Attributes:
    root: path of the folder.
  """

  def __init__(self, root):
    self.root = root
    self._calibrations = {}
    self._listings = {}
    self._files = functools.cache(_list_files)

  def frames(self, kind, example):
    """Lists what the example's drive and camera have of a kind.

    Args:
      kind: `image`, `semantic`, `depth`, `velodyne_points` or `oxts`.
      example: a `splits.Example`; its frame does not matter.

    Returns:
      Frame number -> path; empty where there is no such folder.
    """
    folder = self._data_folder(kind, example)
    if folder not in self._listings:
      self._listings[folder] = kitti.list_frames(
        folder, _SUFFIXES.get(kind, ('.png',))
      )
    return self._listings[folder]

  def file(self, kind, example, offset=0):
    """Finds a file of an example.

    Args:
      kind: as for `frames`.
      example: a `splits.Example`.
      offset: frame offset from the example's target frame.

    Returns:
      Its path, or None where it is absent.
    """
    return self.frames(kind, example).get(example.frame + offset)

  def expected_file(self, kind, example, offset=0):
    """Path of the file that `file` looks for, as KITTI names it."""
    suffix = _SUFFIXES.get(kind, ('.png',))[0]
    return os.path.join(
      self._data_folder(kind, example), f'{example.frame + offset:010d}{suffix}'
    )

  def is_file(self, path):
    """Whether there is a file; a link that leads nowhere is none.

    Args:
      path: the file's path, below the root or elsewhere.

    Returns:
      A bool, by a list of its folder: a network's disk answers one question
      for each folder much sooner than one for each file.
    """
    folder, name = os.path.split(path)
    return name in self._files(folder)

  def calibration(self, example):
    """Reads the calibration of the example's date, each date once."""
    folder = self._date_folder(example)
    if folder not in self._calibrations:
      self._calibrations[folder] = kitti.read_calibration(folder)
    return self._calibrations[folder]

  def calibration_files(self, example):
    """Paths of the two calibration files of the example's date."""
    folder = self._date_folder(example)
    return (
      os.path.join(folder, kitti.CAMERA_FILE),
      os.path.join(folder, kitti.VELODYNE_FILE),
    )

  def digest(self, paths):
    """A fingerprint of files.

    Args:
      paths: the files; absent ones do not count.

    Returns:
      A string that changes with their names relative to the root, their sizes
      and what is written in those of calibration.
    """
    total = hashlib.sha256()
    for path in sorted(set(paths)):
      if os.path.isfile(path):
        total.update(
          f'{os.path.relpath(path, self.root)} '
          f'{os.path.getsize(path)}\n'.encode()
        )
        if os.path.basename(path) in (kitti.CAMERA_FILE, kitti.VELODYNE_FILE):
          total.update(pathlib.Path(path).read_bytes())
    return total.hexdigest()

  def _date_folder(self, example):
    return os.path.dirname(os.path.join(self.root, example.drive))

  def _data_folder(self, kind, example):
    camera = None if kind in _SHARED else example.camera
    return kitti.data_folder(
      os.path.join(self.root, example.drive), kind, camera
    )


def _list_files(folder):
  """Names of a folder's files; the disk is asked again about links alone."""
  if not os.path.isdir(folder):
    return frozenset()
  with os.scandir(folder) as entries:
    return frozenset(
      entry.name
      for entry in entries
      if (os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file())
    )


def find_missing(folder, examples, *, frame_offsets, truth=None):
  """Files that a split needs and the folder lacks.

  Args:
    folder: a `Folder`.
    examples: list of `splits.Example`.
    frame_offsets: frame offsets of an example, 0 first.
    truth: what `truths.open_truth` returns, or None for training.

  Returns:
    Their paths relative to the root, each once, in the order of the split.
  """
  missing = {}
  for example in examples:
    wanted = [folder.calibration_files(example)[0]]
    wanted += [
      folder.file('image', example, offset)
      or folder.expected_file('image', example, offset)
      for offset in frame_offsets
    ]
    missing |= dict.fromkeys(
      os.path.relpath(path, folder.root)
      for path in wanted
      if not folder.is_file(path)
    )
    if truth is not None:
      missing |= dict.fromkeys(truth.missing(example))
  return list(missing)


def usual_sizes(paths):
  """The size that most frames of a folder have.

  Args:
    paths: iterable of frame files.

  Returns:
    Folder -> (height, width), the most common one of some of its files.

  Raises:
    ValueError: if none of these files of a folder can be read.
  """
  files = {}
  for path in paths:
    files.setdefault(os.path.dirname(path), []).append(path)
  sizes = {}
  for folder, inside in files.items():
    found = collections.Counter()
    for path in inside[:: -(-len(inside) // _PROBES)]:
      # Training reports or replaces an unreadable one when it reads it.
      with contextlib.suppress(images.UnreadableError):
        found[images.read_size(path)] += 1
    if not found:
      raise ValueError(f'no frame of {folder} can be read')
    sizes[folder] = found.most_common(1)[0][0]
  return sizes


def make_table(
  folder, examples, *, size, native_sizes, frame_offsets, coding, truth=None
):
  """Makes the table of a split.

  Args:
    folder: a `Folder`.
    examples: list of `splits.Example`; reading one of which `find_missing`
      names a frame fails.
    size: (height, width) of the resized frames.
    native_sizes: what `usual_sizes` returns.
    frame_offsets: frame offsets of an example, 0 first.
    coding: coding of the masks: `none`, `train_ids` or `ids`.
    truth: what `truths.open_truth` returns, or None for training.

  Returns:
    An `ExampleTable`.

  Raises:
    ValueError: a calibration file or the header of a depth map cannot be read.
  """
  rows, frame_rows = {}, []
  for example in examples:
    paths = [
      folder.file('image', example, offset)
      or folder.expected_file('image', example, offset)
      for offset in frame_offsets
    ]
    frame_rows.append([rows.setdefault(path, len(rows)) for path in paths])
  cameras = {}
  for example in examples:
    key = (os.path.dirname(example.drive), example.camera)
    if key not in cameras:
      cameras[key] = kitti.intrinsics(
        folder.calibration(example),
        camera=example.camera,
        height=size[0],
        width=size[1],
      )
  label_files = [None] * len(examples)
  if coding != 'none':
    label_files = [folder.file('semantic', example) for example in examples]
  readers, truth_sizes = None, None
  if truth is not None:
    readers = tuple(
      functools.partial(truth.read, example) for example in examples
    )
    truth_sizes = np.array(list(map(truth.size, examples)), np.int32)
  return ExampleTable(
    size=tuple(size),
    frame_files=tuple(rows),
    native_frame_sizes=tuple(
      native_sizes[os.path.dirname(path)] for path in rows
    ),
    frame_rows=np.array(frame_rows, np.int64),
    lines=tuple(examples),
    label_files=tuple(label_files),
    coding=coding,
    truths=readers,
    native_sizes=truth_sizes,
    intrinsics=np.stack(
      [
        cameras[os.path.dirname(example.drive), example.camera]
        for example in examples
      ]
    ),
  )


def _resize_labels(mask, height, width):
  if mask is None:
    return np.full((height, width), cityscapes.UNLABELLED, np.uint8)
  return images.resize_nearest(mask, height=height, width=width)


def _pad(array, size, *, value):
  """Pads [h, w] at the bottom and the right to `size`."""
  rows, columns = (
    new - old for new, old in zip(size, array.shape, strict=True)
  )
  return np.pad(array, ((0, rows), (0, columns)), constant_values=value)
