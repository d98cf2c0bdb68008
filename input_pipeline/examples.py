"""The examples of a split: the sources of their arrays, and reading them.

The table is the one source of both readers, so it also knows a batch's shapes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline import cityscapes, images, splits

Size = tuple[int, int]  # (height, width)


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleTable:
  """N examples, ready to be read.

  Attributes:
    size: (height, width) of the resized frames.
    frame_files: the frames' paths, each once.
    frame_rows: [N, F] int64, the rows of `frame_files` that make an example.
    label_files: N paths, None where a frame has no mask.
    coding: coding of the masks, or `none`.
    intrinsics: [N, 3, 3] float32, pixels of the resized frames; None stands
      for identities.
    truth: the ground truth of `lines`, or None for training.
    native_sizes: [N, 2] int32, height and width of the depth maps, or None.
    native_frame_sizes: (height, width) that each frame file must have; None
      if any is accepted.
    lines: N `splits.Example`; None if the examples do not come from a list.
  """

  size: Size
  frame_files: Sequence[str]
  frame_rows: np.ndarray
  label_files: Sequence[str | None]
  coding: str
  intrinsics: np.ndarray | None = None
  truth: Any = None  # The result of `truths.open_truth`.
  native_sizes: np.ndarray | None = None
  native_frame_sizes: Sequence[Size] | None = None
  lines: tuple[splits.Example, ...] | None = None

  def __len__(self):
    return len(self.frame_rows)

  @property
  def labelled(self) -> int:
    """Number of examples that have a mask."""
    return sum(path is not None for path in self.label_files)

  def read_frame(self, row: int) -> np.ndarray:
    """Reads one of `frame_files`: [H, W, 3] uint8."""
    height, width = self.size
    native_size = self.native_frame_sizes and self.native_frame_sizes[row]
    return images.read_frame(
      self.frame_files[row], height=height, width=width, native_size=native_size
    )

  def nearest(self, index: int) -> list[int]:
    """Returns the other examples of its drive and side, nearest frame first."""
    lines = self.lines
    if lines is None:
      lines = [splits.Example('', row, 'l') for row in range(len(self))]
    own = lines[index]
    distances = [
      (abs(line.frame - own.frame), row)
      for row, line in enumerate(lines)
      if (line.drive, line.side) == (own.drive, own.side) and row != index
    ]
    return [row for _, row in sorted(distances)]

  def read_fields(self, index: int) -> dict[str, np.ndarray]:
    """Reads all fields of an example except its frames; see `field_specs`.

    Raises:
      images.UnreadableError: if the mask cannot be read or fits another frame.
      ValueError: if another file cannot be read, or the mask holds a value
        outside its coding.
    """
    mask = None
    if self.label_files[index] is not None:
      mask = images.read_mask(self.label_files[index], coding=self.coding)
      self._check_mask(index, mask.shape)
    matrix = np.eye(3, dtype=np.float32)
    fields = {
      'intrinsics': matrix
      if self.intrinsics is None
      else self.intrinsics[index],
      'index': np.int32(index),
      'labels': _resize_labels(mask, *self.size),
    }
    if self.truth is not None:
      fields['native_size'] = self.native_sizes[index]
      depth = self.truth.read(self.lines[index])
      fields['depth'] = _pad(depth, self.truth_size, value=0)
      if self.coding != 'none':
        labels = _resize_labels(mask, *self.native_sizes[index])
        fields['native_labels'] = _pad(
          labels, self.truth_size, value=cityscapes.UNLABELLED
        )
    return fields

  def _check_mask(self, index, size):
    """Raises if the aspect ratios of a mask and its frame differ."""
    row, sizes = self.frame_rows[index][0], self.native_frame_sizes
    frame = sizes[row] if sizes else images.read_size(self.frame_files[row])
    if images.stretch(size, frame) > images.MASK_STRETCH:
      raise images.UnreadableError(
        f'{self.label_files[index]} is {size[1]}x{size[0]} and its frame '
        f'{frame[1]}x{frame[0]}: a mask must show what its frame shows'
      )

  @functools.cached_property
  def truth_size(self) -> Size:
    """(height, width) that all depth maps of the split are padded to."""
    return tuple(int(size) for size in self.native_sizes.max(axis=0))

  def field_specs(self) -> dict[str, tuple[tuple[int, ...], type]]:
    """Name -> (shape, NumPy dtype) of every field, the frames included."""
    specs = {
      'frames': ((self.frame_rows.shape[1], *self.size, 3), np.uint8),
      'intrinsics': ((3, 3), np.float32),
      'index': ((), np.int32),
      'labels': (self.size, np.uint8),
    }
    if self.truth is not None:
      specs['native_size'] = ((2,), np.int32)
      specs['depth'] = (self.truth_size, np.float32)
      if self.coding != 'none':
        specs['native_labels'] = (self.truth_size, np.uint8)
    return specs


def _resize_labels(mask, height, width):
  if mask is None:
    return np.full((height, width), cityscapes.UNLABELLED, np.uint8)
  return images.resize_nearest(mask, height=height, width=width)


def _pad(array, size, *, value):
  """Pads [h, w] at the bottom and the right to `size`."""
  rows, columns = np.subtract(size, array.shape)
  return np.pad(array, ((0, rows), (0, columns)), constant_values=value)
