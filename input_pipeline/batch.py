"""The batch: the data passed from here to training and evaluation."""

from typing import NotRequired, TypedDict

import numpy as np


class Batch(TypedDict):
  """One batch of NumPy arrays.

  B examples of F frames of H x W pixels, and M labelled stills. H x W is
  `config.data.height` x `width`; Hg x Wg is the largest native size of the
  split's depth maps.
  """

  # [B, F, H, W, 3] uint8, RGB, in the order of the frame offsets: the target
  # (offset 0) first.
  frames: np.ndarray
  # [B, 3, 3] float32, pixels of the H x W frames, from each example's own
  # calibration file.
  intrinsics: np.ndarray
  # [B, H, W] uint8, train ids 0 .. 18, 255 = unlabelled; all 255 where a frame
  # has no mask.
  labels: np.ndarray
  # [B] int32, the example's index in its split.
  index: np.ndarray

  # With `config.data.semantic_root` only: stills for the cross-entropy alone.
  semantic_images: NotRequired[np.ndarray]  # [M, H, W, 3] uint8
  semantic_labels: NotRequired[np.ndarray]  # [M, H, W] uint8, train ids or 255

  # For evaluation only.
  # [B, Hg, Wg] float32, metres, 0 = no measurement; zero-padded at the bottom
  # and the right.
  depth: NotRequired[np.ndarray]
  # [B, 2] int32, height and width of the depth map without the padding.
  native_size: NotRequired[np.ndarray]
  # [B, Hg, Wg] uint8, the labels at the depth map's size, 255 in the padding;
  # absent where `config.data.labels` is `none`.
  native_labels: NotRequired[np.ndarray]
  # [B] bool, False for the padding of the last batch.
  mask: NotRequired[np.ndarray]
