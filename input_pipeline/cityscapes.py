"""The 19 Cityscapes classes: codings, names, colours, groups.

Train ids are 0 .. 18 and 255 = unlabelled. Cityscapes ids are 0 .. 33, and -1
(a licence plate; 255 in 8 bits). See
https://github.com/mcordts/cityscapesScripts (helpers/labels.py).
"""

import numpy as np

UNLABELLED = 255

# By train id: name, Cityscapes id, RGB.
_CLASSES = (
  ('road', 7, (128, 64, 128)),
  ('sidewalk', 8, (244, 35, 232)),
  ('building', 11, (70, 70, 70)),
  ('wall', 12, (102, 102, 156)),
  ('fence', 13, (190, 153, 153)),
  ('pole', 17, (153, 153, 153)),
  ('traffic light', 19, (250, 170, 30)),
  ('traffic sign', 20, (220, 220, 0)),
  ('vegetation', 21, (107, 142, 35)),
  ('terrain', 22, (152, 251, 152)),
  ('sky', 23, (70, 130, 180)),
  ('person', 24, (220, 20, 60)),
  ('rider', 25, (255, 0, 0)),
  ('car', 26, (0, 0, 142)),
  ('truck', 27, (0, 0, 70)),
  ('bus', 28, (0, 60, 100)),
  ('train', 31, (0, 80, 100)),
  ('motorcycle', 32, (0, 0, 230)),
  ('bicycle', 33, (119, 11, 32)),
)
NAMES, IDS, COLOURS = zip(*_CLASSES, strict=True)
NUM_CLASSES = len(NAMES)

# Train ids of objects a few pixels wide at the training size: pole, traffic
# light, traffic sign, person, rider, motorcycle, bicycle.
THIN_CLASSES = (5, 6, 7, 11, 12, 17, 18)
# Train ids of objects that can move by themselves: person .. bicycle.
MOVING_CLASSES = (11, 12, 13, 14, 15, 16, 17, 18)

CODINGS = ('train_ids', 'ids')

LAST_ID = 33  # The largest Cityscapes id.


_TO_TRAIN_IDS = np.full(256, UNLABELLED, np.uint8)
_TO_TRAIN_IDS[list(IDS)] = np.arange(NUM_CLASSES)
_TO_IDS = np.zeros(256, np.uint8)
_TO_IDS[:NUM_CLASSES] = IDS


def to_train_ids(array: np.ndarray, *, coding: str) -> np.ndarray:
  """Maps values of a mask to train ids, uint8: 0 .. 18, 255 = unlabelled.

  In both codings -1 and 255 are unlabelled. Raises ValueError if a value is
  outside the coding.
  """
  last = {'ids': LAST_ID, 'train_ids': NUM_CLASSES - 1}[coding]
  array = np.asarray(array)
  valid = ((array >= 0) & (array <= last)) | (array == UNLABELLED)
  if np.issubdtype(array.dtype, np.signedinteger):
    valid |= array == -1
  if not valid.all():
    value = array[~valid].flat[0]
    raise ValueError(
      f'value {value} is outside the coding {coding!r}: '
      f'0 .. {last}, and {UNLABELLED} for none'
    )
  values = array.astype(np.uint8)
  return _TO_TRAIN_IDS[values] if coding == 'ids' else values


def train_ids_to_ids(array: np.ndarray) -> np.ndarray:
  """Maps train ids, -1 or 255 to Cityscapes ids, uint8; 0 = unlabelled."""
  return _TO_IDS[to_train_ids(array, coding='train_ids')]
