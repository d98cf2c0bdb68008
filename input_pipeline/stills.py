"""Labelled stills: pictures with masks that teach semantics alone.

Two layouts, found by their folders:

    ROOT/leftImg8bit/train/CITY/NAME_leftImg8bit.png   Cityscapes
    ROOT/gtFine/train/CITY/NAME_gtFine_labelIds.png    (or _labelTrainIds)
    ROOT/image_2/NAME.png, ROOT/semantic/NAME.png      KITTI semantic

Pictures are resized to the training size whatever their shape.
"""

import os
import pathlib

import numpy as np

from input_pipeline import examples, labels

_ENDINGS = {'ids': '_gtFine_labelIds.png',
            'train_ids': '_gtFine_labelTrainIds.png'}


def find_stills(root, *, coding):
  """Lists the pictures of a folder and their masks.

  Args:
    root: the folder.
    coding: coding of the masks, `ids` or `train_ids`.

  Returns:
    Two lists of paths, sorted alike.

  Raises:
    FileNotFoundError: there is no such folder, it has neither layout or holds
      no picture.
    ValueError: the coding is unknown, or masks are missing: their number and
      the first ten.
  """
  if coding not in labels.CODINGS:
    raise ValueError(f'config.data.semantic_labels is {coding!r}; choose one '
                     f'of {", ".join(labels.CODINGS)}')
  root = pathlib.Path(root)
  cityscapes, kitti = root / 'leftImg8bit' / 'train', root / 'image_2'
  if cityscapes.is_dir():
    pictures = sorted(cityscapes.glob('*/*_leftImg8bit.png'))
    masks = [
      root / 'gtFine' / 'train' / path.parent.name
      / path.name.replace('_leftImg8bit.png', _ENDINGS[coding])
      for path in pictures]
  elif kitti.is_dir():
    pictures = sorted(kitti.glob('*.png'))
    masks = [root / 'semantic' / path.name for path in pictures]
  else:
    raise FileNotFoundError(
      f'config.data.semantic_root: neither {cityscapes} (Cityscapes) nor '
      f'{kitti} (KITTI semantic) is a folder')
  if not pictures:
    raise FileNotFoundError(
      f'config.data.semantic_root: no picture in {root}')
  missing = [os.fspath(path) for path in masks if not path.is_file()]
  if missing:
    raise ValueError(
      f'config.data.semantic_root: {len(missing)} masks are missing, the '
      f'first of them: {", ".join(missing[:10])}')
  return list(map(os.fspath, pictures)), list(map(os.fspath, masks))


def count_stills(config_data, batch_size):
  """Stills that go with a batch of so many examples.

  Args:
    config_data: the config's `data`.
    batch_size: examples in the batch.

  Returns:
    Their number; 0 where the config names no folder of stills.

  Raises:
    ValueError: the share gives no whole positive number.
  """
  if not config_data.semantic_root:
    return 0
  count = config_data.semantic_share * batch_size
  if count <= 0 or count != round(count):
    raise ValueError(
      f'config.data.semantic_share = {config_data.semantic_share} of a batch '
      f'of {batch_size} is {count} stills: choose it so that this is a '
      'positive whole number')
  return round(count)


def open_table(config_data):
  """Makes the table of the labelled stills.

  Args:
    config_data: the config's `data`, with a `semantic_root`.

  Returns:
    An `examples.ExampleTable` of single frames, whose intrinsics mean nothing.

  Raises:
    FileNotFoundError, ValueError: as `find_stills`.
  """
  coding = config_data.semantic_labels
  pictures, masks = find_stills(config_data.semantic_root, coding=coding)
  count = len(pictures)
  return examples.ExampleTable(
    size=(config_data.height, config_data.width), frame_files=tuple(pictures),
    native_frame_sizes=(None,) * count,
    places=tuple(('', row) for row in range(count)),
    frame_rows=np.arange(count)[:, None], label_files=tuple(masks),
    coding=coding, truths=None, native_sizes=None,
    intrinsics=np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)))
