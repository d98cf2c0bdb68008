"""The semantic decoder on labelled stills: IoU per class, at their own size.

For `--mode=evaluate` with `config.eval.semantic_root`, in the layouts of
`input_pipeline.stills`. As for the frames of a video, a picture is squeezed to
the network's size, and the predicted classes return to the size of the labels
by nearest neighbour.
"""

import concurrent.futures
import functools
import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from input_pipeline import (
  cityscapes,
  examples,
  files,
  images,
  masks,
  progress,
  sampling,
)
from input_pipeline.sources import stills
from sgde_jax import metrics, parallel
from sgde_jax.evaluation import borders
from sgde_jax.inference import steps


def open_table(config) -> examples.ExampleTable | None:
  """Finds the stills and looks at every mask, before anything is compiled.

  Args:
    config: the whole config.

  Returns:
    The table of the stills; None where the config names no folder.

  Raises:
    FileNotFoundError: there is no such folder, or no picture in it.
    ValueError: masks are missing, cannot be read, hold values outside the
      coding or differ in size from their picture.
  """
  options = config.eval
  if not options.semantic_root:
    return None
  coding = options.semantic_labels
  pictures, mask_files = stills.find_stills(
    options.semantic_root,
    coding=coding,
    split=options.semantic_split,
    section='config.eval',
  )
  pairs = list(zip(pictures, mask_files, strict=True))
  scan = masks.scan_masks(pairs, coding=coding)
  try:
    scan.check_problems()
  except ValueError as error:
    raise ValueError(f'config.eval.semantic_root: {error}') from None
  scan.check_coding('config.eval.semantic_labels')
  size = (config.data.height, config.data.width)
  return stills.make_table(pictures, mask_files, coding=coding, size=size)


def evaluate(config, table, folder, *, model, state, mesh):
  """Measures a trained run's classes on stills.

  Prints a table and writes `stills.json` into the folder. The stills are
  normalised by the running statistics of batch norm, which are the video's
  also where training took stills.

  Args:
    config: the whole config.
    table: what `open_table` returns, not None.
    folder: folder for the results.
    model: the network, with semantics.
    state: a `steps.TrainState` on the mesh.
    mesh: the mesh.

  Returns:
    `stills/NAME` for the figures of `measure`.

  Raises:
    ValueError: as `measure`.
  """
  label = parallel.jit_by_rows(
    functools.partial(steps.label_step, model=model), mesh
  )
  figures = measure(
    table, functools.partial(label, state.variables), config.eval.batch_size
  )
  if jax.process_index() == 0:
    place = os.path.commonpath(list(map(os.path.dirname, table.frame_files)))
    result = {'step': int(state.step), 'folder': place} | figures
    files.write_json(pathlib.Path(folder) / 'stills.json', result)
    print(format_table(figures, place))
  return {f'stills/{name}': value for name, value in figures.items()}


def measure(
  table: examples.ExampleTable,
  predict: Callable[[np.ndarray], np.ndarray],
  batch_size: int,
) -> dict[str, float]:
  """Measures a prediction on every still once, over all processes.

  Args:
    table: the stills.
    predict: maps this process' rows of a batch, `[B / P, H, W, 3]` uint8, to
      their classes, `[B / P, H, W]` uint8.
    batch_size: global batch size B.

  Returns:
    `iou/NAME` for each class that occurs in truth or prediction, their mean
    `miou`, and `images`.

  Raises:
    ValueError: a picture or a mask cannot be read.
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
  start = time.monotonic()
  compare = functools.partial(_compare, table)
  with concurrent.futures.ThreadPoolExecutor(progress.THREADS) as pool:
    for indices, mask in zip(*batches, strict=True):
      frames = np.stack(list(pool.map(table.read_frame, indices)))
      found = predict(frames)
      confusion += sum(pool.map(compare, indices[mask], found[mask]))
  seconds = time.monotonic() - start
  logging.info('%d stills, %.1f a second', len(table), len(table) / seconds)
  confusion = parallel.gather_rows(confusion[None]).sum(axis=0)
  figures = metrics.iou_totals(confusion).finalize()
  return {'images': len(table)} | figures


def format_table(figures: Mapping[str, float], place: str) -> str:
  """Formats what `measure` returns, a row per class.

  Args:
    figures: the figures.
    place: where the stills lie.

  Returns:
    Lines of text; `-` for a class in neither truth nor prediction.
  """
  lines = [f'{"":<14}{"iou":>10}']
  rows = [(name, f'iou/{name}') for name in cityscapes.NAMES]
  for row, name in [*rows, ('mean', 'miou')]:
    figure = figures.get(name)
    lines.append(f'{row:<14}{"-" if figure is None else f"{figure:.4f}":>10}')
  return '\n'.join([*lines, f'{figures["images"]} stills of {place}'])


def _compare(table, index, found):
  """Confusion of one still."""
  labels = images.read_mask(table.label_files[index], coding=table.coding)
  return borders.confusion(labels, found)
