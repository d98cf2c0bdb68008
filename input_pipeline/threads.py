"""Reads many files at once: threads, and a line of progress on stderr."""

import concurrent.futures
import os

from input_pipeline import progress

COUNT = min(16, os.cpu_count() or 1)


def for_each(function, count, what):
  """Calls function(0) .. function(count - 1) in threads, in any order.

  Args:
    function: takes a number; what it returns is dropped.
    count: how many calls.
    what: the work, for the line of progress.

  Raises:
    Exception: what a call raised first; those still waiting are not made.
  """
  pool = concurrent.futures.ThreadPoolExecutor(COUNT)
  try:
    with progress.Progress(what, count) as line:
      for _ in pool.map(function, range(count)):
        line.add(1)
  finally:
    # After a failure the files still waiting need not be read.
    pool.shutdown(cancel_futures=True)
