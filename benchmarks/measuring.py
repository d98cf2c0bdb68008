"""Shared by the benchmarks: a process per row, times, memory, the table."""

import concurrent.futures
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
  """A step to time."""

  work: str  # train or predict
  part: str  # of configs/ablation.py, or PyTorch
  width: int
  height: int
  batch: int
  dtype: str  # of the networks' computation
  workdir: str = ''  # A run whose weights and frames are predicted.


def run_alone(function: Callable, *arguments) -> Any:
  """Calls a module-level function in a process of its own.

  Peak memory, threads and compiled programs are then those of one row alone.
  """
  with concurrent.futures.ProcessPoolExecutor(
    1, mp_context=multiprocessing.get_context('spawn')
  ) as pool:
    return pool.submit(function, *arguments).result()


def median_ms(run: Callable[[], Any], count: int) -> float:
  """Returns the median milliseconds of `count` calls after an untimed one."""
  run()
  seconds = []
  for _ in range(count):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return 1e3 * statistics.median(seconds)


def random_batch(case: Case) -> dict[str, np.ndarray]:
  """Returns a training batch of noise; see `input_pipeline.batch.Batch`."""
  rng = np.random.default_rng(0)
  batch, height, width = case.batch, case.height, case.width
  intrinsics = np.diag(np.float32([0.58 * width, 1.92 * height, 1]))
  intrinsics[:2, 2] = 0.5 * width, 0.5 * height
  return {
    'frames': rng.integers(0, 256, (batch, 3, height, width, 3), np.uint8),
    'intrinsics': np.tile(intrinsics, (batch, 1, 1)),
    'labels': rng.integers(0, 19, (batch, height, width), np.uint8),
  }


def parse_size(text: str) -> tuple[int, int]:
  """Returns (width, height) of `WIDTHxHEIGHT`."""
  width, height = map(int, text.split('x'))
  return width, height


class Table:
  """Prints a Markdown table row by row, with columns aligned in a terminal."""

  def __init__(self, columns: str, *, width: int):
    """Prints the head of columns such as `part|ms/step:.1f`."""
    columns = [column.partition(':') for column in columns.split('|')]
    names, _, self._formats = zip(*columns, strict=True)
    self._width = width
    self._print(names)
    self._print(['-' * (width - 1) + ':'] * len(names))

  def add(self, *values: Any) -> None:
    """Prints a row, one value per column."""
    self._print(map(format, values, self._formats))

  def _print(self, cells):
    cells = ' | '.join(f'{cell:>{self._width}}' for cell in cells)
    print(f'| {cells} |', flush=True)
