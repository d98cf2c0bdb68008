"""Labelled stills: pictures with masks, to teach or to measure semantics alone.

Two layouts, found by their folders:

    ROOT/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png   Cityscapes
    ROOT/gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png    (or _labelTrainIds)
    ROOT/image_2/NAME.png, ROOT/semantic/NAME.png      KITTI semantic

Cityscapes' split is `train` or `val`; KITTI semantic has none, and is the same
for both. Pictures are resized to the training size whatever their shape.
"""

import os
import pathlib

import numpy as np

from input_pipeline import cityscapes as labels
from input_pipeline import examples, files

SPLITS = ('train', 'val')
ENDINGS = {
  'ids': '_gtFine_labelIds.png',
  'train_ids': '_gtFine_labelTrainIds.png',
}


def find_layout(root, *, split):
  """Returns the folder of the pictures: Cityscapes' or KITTI semantic's.

  Raises:
    FileNotFoundError: if the root has neither layout.
  """
  root = pathlib.Path(root)
  cityscapes, kitti = root / 'leftImg8bit' / split, root / 'image_2'
  for folder in (cityscapes, kitti):
    if folder.is_dir():
      return folder
  raise FileNotFoundError(
    f'no labelled stills in {root}: neither {cityscapes} (Cityscapes) nor '
    f'{kitti} (KITTI semantic) is a folder'
  )


def list_files(root, *, coding, split):
  """Lists the pictures of a folder and the masks, existing or not.

  Args:
    root: the folder.
    coding: coding of the masks, `ids` or `train_ids`.
    split: `train` or `val`.

  Returns:
    The pictures, the mask that belongs to each, and the masks that exist: three
    sorted lists of paths, the first two in the same order.

  Raises:
    FileNotFoundError: if the folder has neither layout.
  """
  root, folder = pathlib.Path(root), find_layout(root, split=split)
  if folder.name == 'image_2':
    pictures = sorted(folder.glob('[!.]*.png'))
    masks = [root / 'semantic' / path.name for path in pictures]
    found = sorted((root / 'semantic').glob('[!.]*.png'))
  else:
    pictures = sorted(folder.glob('*/[!.]*_leftImg8bit.png'))
    ending, folder = ENDINGS[coding], root / 'gtFine' / split
    masks = [
      folder / path.parent.name / path.name.replace('_leftImg8bit.png', ending)
      for path in pictures
    ]
    found = sorted(folder.glob(f'*/[!.]*{ending}'))
  return tuple(
    list(map(os.fspath, paths)) for paths in (pictures, masks, found)
  )


def find_stills(root, *, coding, split='train', section='config.data'):
  """Lists the pictures of a folder and their masks.

  Args:
    root: the folder.
    coding: coding of the masks, `ids` or `train_ids`.
    split: `train` or `val`.
    section: part of the config that names the folder, for messages.

  Returns:
    Two lists of paths, sorted alike.

  Raises:
    FileNotFoundError: there is no such folder, it has neither layout or holds
      no picture.
    ValueError: the coding is unknown, or masks are missing: their number and
      the first ten.
  """
  if coding not in labels.CODINGS:
    raise ValueError(
      f'{section}.semantic_labels is {coding!r}; choose one '
      f'of {", ".join(labels.CODINGS)}'
    )
  pictures, masks, found = list_files(root, coding=coding, split=split)
  if not pictures:
    raise FileNotFoundError(f'{section}.semantic_root: no picture in {root}')
  found = set(found)
  missing = [path for path in masks if path not in found]
  if missing:
    raise ValueError(
      f'{section}.semantic_root lacks '
      f'{files.count_of(len(missing), "mask")}, beginning with '
      f'{", ".join(missing[:10])}'
    )
  return pictures, masks


def open_table(config_data):
  """Makes the table of the labelled stills that training takes.

  Args:
    config_data: the config's `data`, with a `semantic_root`.

  Returns:
    An `examples.ExampleTable` of single frames, whose intrinsics mean nothing.

  Raises:
    FileNotFoundError, ValueError: as `find_stills`.
  """
  coding = config_data.semantic_labels
  pictures, masks = find_stills(config_data.semantic_root, coding=coding)
  return make_table(
    pictures, masks, coding=coding, size=(config_data.height, config_data.width)
  )


def make_table(pictures, masks, *, coding, size):
  """Makes a table of stills.

  Args:
    pictures: list of paths.
    masks: the paths of their masks.
    coding: coding of the masks, `ids` or `train_ids`.
    size: (height, width) that the pictures are resized to.

  Returns:
    An `examples.ExampleTable` of single frames, whose intrinsics mean nothing.
  """
  count = len(pictures)
  return examples.ExampleTable(
    size=size,
    frame_files=tuple(pictures),
    frame_rows=np.arange(count)[:, None],
    label_files=tuple(masks),
    coding=coding,
    truths=None,
    native_sizes=None,
    intrinsics=np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
  )
