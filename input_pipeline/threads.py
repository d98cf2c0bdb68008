"""Reads many files at once: threads, and a line of progress on stderr."""

import concurrent.futures
import os
import sys
import time

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
  started = time.monotonic()
  shown = started
  pool = concurrent.futures.ThreadPoolExecutor(COUNT)
  try:
    for done, _ in enumerate(pool.map(function, range(count)), start=1):
      now = time.monotonic()
      if now - shown > 0.5:
        shown = now
        left = (now - started) / done * (count - done)
        sys.stderr.write(f'\r{what}: {done}/{count}, {left:.0f} s left ')
        sys.stderr.flush()
  finally:
    # After a failure the files still waiting need not be read.
    pool.shutdown(cancel_futures=True)
    if shown > started:
      sys.stderr.write('\n')
