"""Reads many files at once: threads, and a line of progress on stderr."""

import collections
import concurrent.futures
import os

from input_pipeline import progress

COUNT = min(16, os.cpu_count() or 1)
# Calls of `in_order` that are made before their result is asked for.
AHEAD = 4 * COUNT


def for_each(function, count, what):
  """Calls function(0) .. function(count - 1) in threads, in any order.

  Args:
    function: takes a number; what it returns is dropped.
    count: how many calls.
    what: the work, for the line of progress.

  Raises:
    Exception: what a call raised first; those still waiting are not made.
  """
  with progress.Progress(what, count) as line:
    for _ in in_order(function, count):
      line.add(1)


def in_order(function, count):
  """Yields function(0) .. function(count - 1), computed ahead in threads.

  Args:
    function: takes a number.
    count: how many calls.

  Yields:
    The results, in order; at most `AHEAD` of them wait in memory.

  Raises:
    Exception: what a call raised, in its turn.
  """
  pool = concurrent.futures.ThreadPoolExecutor(COUNT)
  waiting = collections.deque()
  try:
    for number in range(count):
      waiting.append(pool.submit(function, number))
      if len(waiting) == AHEAD:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    # After a failure the files still waiting need not be read.
    pool.shutdown(cancel_futures=True)
