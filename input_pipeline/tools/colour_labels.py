"""Masks -> palette pictures: still masks, and coloured in every viewer."""

import pathlib

import numpy as np
from PIL import Image

from input_pipeline import cityscapes, files, images, progress
from input_pipeline import masks as mask_files

_PALETTE = np.zeros((256, 3), np.uint8)
_PALETTE[: cityscapes.NUM_CLASSES] = cityscapes.COLOURS


def colour(source, output, *, coding=None):
  """Writes masks as 8-bit palette PNGs of train ids in Cityscapes' colours.

  `images.read_mask` reads them like any mask of train ids; unlabelled pixels
  are black. All masks are looked at before the first is written, and no file is
  written over.

  Args:
    source: a mask, or a folder whose `*.png` are masks.
    output: for a mask the file to write, `.png`; for a folder the folder.
    coding: `ids` or `train_ids`; None guesses.

  Returns:
    One line that says what was done.

  Raises:
    FileNotFoundError: there is no such mask, or none in the folder.
    ValueError: a mask cannot be read or holds a value outside the coding, or
      there is a file where one is to be written.
  """
  source, output = pathlib.Path(source), pathlib.Path(output)
  masks, targets = [source], [output]
  if source.is_dir():
    masks = sorted(source.glob('[!.]*.png'))
    targets = [output / mask.name for mask in masks]
  if not masks or not masks[0].is_file():
    raise FileNotFoundError(f'there is no mask {source} or {source}/*.png')
  if source.is_file() and output.suffix.lower() != '.png':
    raise ValueError(f'{output}: name a .png file for the picture of a mask')
  there = [target for target in targets if target.exists()]
  if there:
    raise ValueError(
      f'{there[0]} is there already: move it away, or use another output'
    )
  scan = mask_files.scan_masks([(None, mask) for mask in masks], coding=coding)
  scan.check_problems()
  targets[0].parent.mkdir(parents=True, exist_ok=True)

  def write(number):
    train_ids = images.read_mask(masks[number], coding=scan.coding)
    _write_picture(targets[number], train_ids)

  progress.for_each(write, len(masks), 'writing pictures')
  return (
    f'{output}: {len(masks)} pictures of train ids, from masks coded as '
    f'{scan.coding} ({scan.reason})'
  )


def _write_picture(path, train_ids):
  image = Image.fromarray(train_ids)
  image.putpalette(_PALETTE.tobytes())
  with files.whole_file(path) as partial:
    image.save(partial, format='PNG')
