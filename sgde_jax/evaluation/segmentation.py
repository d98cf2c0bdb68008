"""The semantic decoder on labelled stills: IoU per class, at their own size.

Like video frames, pictures are stretched to the network's size; the predicted
classes are resized to the size of the labels by nearest neighbour.
"""

import concurrent.futures
import functools
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from input_pipeline import (
  cityscapes,
  examples,
  images,
  masks,
  progress,
  sampling,
)
from input_pipeline.sources import stills
from sgde_jax import metrics, parallel
from sgde_jax.evaluation import borders


def open_stills(
  config: ml_collections.ConfigDict,
) -> examples.ExampleTable | None:
  """Opens `config.eval.semantic_root`, if it is set, and scans its masks.

  Raises:
    FileNotFoundError, ValueError: if pictures are absent or masks do not fit.
  """
  options = config.eval
  if not options.semantic_root:
    return None
  table = stills.open_table(
    options.semantic_root,
    coding=options.semantic_labels,
    split=options.semantic_split,
    size=(config.data.height, config.data.width),
  )
  pairs = zip(table.frame_files, table.label_files, strict=True)
  scan = masks.scan_masks(pairs, coding=table.coding)
  scan.check('config.eval.semantic_labels')
  return table


def measure(
  table: examples.ExampleTable,
  predict: Callable[[np.ndarray], np.ndarray],
  batch_size: int,
) -> dict[str, float]:
  """Evaluates a prediction on every still once, over all processes.

  Args:
    table: the stills.
    predict: maps this process' rows of a batch, `[B / P, H, W, 3]` uint8, to
      their classes, `[B / P, H, W]` uint8.
    batch_size: global batch size B.

  Returns:
    `iou/NAME` for each class that occurs in truth or prediction, their mean
    `miou`, and `images`.
  """
  rows = sampling.process_rows(
    batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  batches = sampling.ordered_batches(
    len(table), batch_size=batch_size, rows=rows
  )
  confusion = np.zeros((cityscapes.NUM_CLASSES,) * 2, np.int64)
  compare = functools.partial(_compare, table)
  batches = progress.bar(list(zip(*batches, strict=True)), 'batches of stills')
  with concurrent.futures.ThreadPoolExecutor(progress.THREADS) as pool:
    for indices, mask in batches:
      found = predict(np.stack(list(pool.map(table.read_frame, indices))))
      confusion += sum(pool.map(compare, indices[mask], found[mask]))
  confusion = parallel.gather_rows(confusion[None]).sum(axis=0)
  figures = metrics.segmentation.iou_totals(confusion).finalize()
  return {'images': len(table)} | figures


def _compare(table, index, found):
  labels = images.read_mask(table.label_files[index], coding=table.coding)
  return borders.confusion(labels, found)
