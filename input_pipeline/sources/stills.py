"""Labelled stills: pictures with masks, to train or to measure semantics alone.

Two layouts, found by their folders:

    ROOT/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png   Cityscapes
    ROOT/gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png    (or _labelTrainIds)
    ROOT/image_2/NAME.png, ROOT/semantic/NAME.png      KITTI semantic

Cityscapes' split is `train` or `val`; KITTI semantic has none, and is the same
for both. Pictures of any shape are resized to the training size.
"""

import os
import pathlib

import numpy as np

from input_pipeline import examples, files

Path = str | os.PathLike[str]

SPLITS = ('train', 'val')
ENDINGS = {
  'ids': '_gtFine_labelIds.png',
  'train_ids': '_gtFine_labelTrainIds.png',
}


def find_layout(root: Path, *, split: str) -> pathlib.Path:
  """Returns the folder of the pictures: Cityscapes' or KITTI semantic's."""
  root = pathlib.Path(root)
  cityscapes, kitti = root / 'leftImg8bit' / split, root / 'image_2'
  for folder in (cityscapes, kitti):
    if folder.is_dir():
      return folder
  raise FileNotFoundError(
    f'no labelled stills in {root}: neither {cityscapes} (Cityscapes) nor '
    f'{kitti} (KITTI semantic) is a folder'
  )


def list_files(root: Path, *, coding: str, split: str) -> list[list[str]]:
  """Lists the pictures of a folder, the mask of each, and the existing masks.

  All are sorted; the pictures and their masks, existing or not, correspond.
  """
  root, folder = pathlib.Path(root), find_layout(root, split=split)
  if folder.name == 'image_2':
    places, endings = [(folder, root / 'semantic')], ('.png', '.png')
  else:
    truth = root / 'gtFine' / split
    cities = {path.name for x in (folder, truth) for path in x.glob('[!.]*')}
    places = [(folder / city, truth / city) for city in sorted(cities)]
    endings = '_leftImg8bit.png', ENDINGS[coding]
  pictures, masks, found = [], [], []
  for picture_folder, mask_folder in places:
    below = files.list_stems(picture_folder, endings[:1])
    existing = files.list_stems(mask_folder, endings[1:])
    pictures += below.values()
    masks += [
      existing.get(stem, os.path.join(mask_folder, f'{stem}{endings[1]}'))
      for stem in below
    ]
    found += existing.values()
  return [pictures, masks, found]


def open_table(
  root: Path, *, coding: str, split: str, size: tuple[int, int]
) -> examples.ExampleTable:
  """Makes the table of the stills of a folder, resized to (height, width)."""
  pictures, masks, found = list_files(root, coding=coding, split=split)
  missing = sorted(set(masks) - set(found))
  if missing or not pictures:
    raise ValueError(
      f'{root} has {files.count_of(len(pictures), "picture")} and lacks '
      f'{files.count_of(len(missing), "mask")}, {", ".join(missing[:10])}'
    )
  return examples.ExampleTable(
    size=size,
    frame_files=pictures,
    frame_rows=np.arange(len(pictures))[:, None],
    label_files=masks,
    coding=coding,
  )
