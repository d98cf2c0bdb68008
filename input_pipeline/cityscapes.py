"""The 19 Cityscapes classes: codings, names, colours, groups.

Train ids are 0 .. 18 and 255 = unlabelled. Cityscapes ids are 0 .. 33, and -1
(a licence plate; 255 in 8 bits). See
https://github.com/mcordts/cityscapesScripts (helpers/labels.py).
"""

import numpy as np

UNLABELLED = 255

# Train id -> name.
NAMES = (
  'road',
  'sidewalk',
  'building',
  'wall',
  'fence',
  'pole',
  'traffic light',
  'traffic sign',
  'vegetation',
  'terrain',
  'sky',
  'person',
  'rider',
  'car',
  'truck',
  'bus',
  'train',
  'motorcycle',
  'bicycle',
)
NUM_CLASSES = len(NAMES)

# Train id -> Cityscapes id.
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Train id -> RGB.
COLOURS = (
  (128, 64, 128),
  (244, 35, 232),
  (70, 70, 70),
  (102, 102, 156),
  (190, 153, 153),
  (153, 153, 153),
  (250, 170, 30),
  (220, 220, 0),
  (107, 142, 35),
  (152, 251, 152),
  (70, 130, 180),
  (220, 20, 60),
  (255, 0, 0),
  (0, 0, 142),
  (0, 0, 70),
  (0, 60, 100),
  (0, 80, 100),
  (0, 0, 230),
  (119, 11, 32),
)

# Train ids of what is a few pixels wide at the training size: pole, traffic
# light, traffic sign, person, rider, motorcycle, bicycle.
THIN_CLASSES = (5, 6, 7, 11, 12, 17, 18)
# Train ids of what can move by itself: person .. bicycle.
MOVING_CLASSES = (11, 12, 13, 14, 15, 16, 17, 18)

CODINGS = ('train_ids', 'ids')

# The largest Cityscapes id.
LAST_ID = 33


def _make_tables():
  """[256] tables: id -> train id, and train id -> id."""
  to_train_ids = np.full(256, UNLABELLED, np.uint8)
  to_train_ids[list(IDS)] = np.arange(NUM_CLASSES)
  to_ids = np.zeros(256, np.uint8)
  to_ids[:NUM_CLASSES] = IDS
  return to_train_ids, to_ids


_TO_TRAIN_IDS, _TO_IDS = _make_tables()


def ids_to_train_ids(array: np.ndarray) -> np.ndarray:
  """Cityscapes ids 0 .. 33, -1 or 255 -> train ids 0 .. 18 or 255, uint8.

  Raises:
    ValueError: if there is another value.
  """
  return _TO_TRAIN_IDS[_check_values(array, coding='ids')]


def train_ids_to_ids(array: np.ndarray) -> np.ndarray:
  """Train ids 0 .. 18, -1 or 255 -> Cityscapes ids, uint8; 0 = unlabelled.

  Raises:
    ValueError: if there is another value.
  """
  return _TO_IDS[_check_values(array, coding='train_ids')]


def to_train_ids(array: np.ndarray, *, coding: str) -> np.ndarray:
  """Values of a mask -> train ids, uint8: 0 .. 18, 255 = unlabelled.

  Args:
    array: integers of any shape.
    coding: `train_ids` or `ids`, the meaning of the values.

  Raises:
    ValueError: if a value is outside the coding.
  """
  values = _check_values(array, coding=coding)
  return _TO_TRAIN_IDS[values] if coding == 'ids' else values


def _check_values(array, *, coding):
  """Returns the array as uint8; raises for a value outside the coding."""
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
  return array.astype(np.uint8)
