"""Long work over many items: a progress bar, and threads that read files."""

import collections
import concurrent.futures
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import tqdm

S = TypeVar('S')
T = TypeVar('T')

THREADS = min(16, os.cpu_count() or 1)
AHEAD = 4 * THREADS  # Results of `in_order` that wait in memory.
_DELAY = 5.0  # Seconds until a file gets its first line,
_INTERVAL = 30.0  # and between the others.


def bar(
  iterable: Iterable[T], what: str, total: int | None = None
) -> Iterator[T]:
  """Yields the items and shows the progress on stderr.

  A bar on a terminal; elsewhere a line every 30 seconds, the first after 5.
  `what` names the work, such as `decoding frames`; `total` is the number of
  items, by default the length of `iterable`, if it has one.
  """
  if sys.stderr.isatty():
    yield from tqdm.tqdm(iterable, what, total, delay=1)
    return
  if total is None and hasattr(iterable, '__len__'):
    total = len(iterable)
  start = time.monotonic()
  due = start + _DELAY
  for done, item in enumerate(iterable, start=1):
    yield item
    now = time.monotonic()
    if now >= due:
      due = now + _INTERVAL
      text = tqdm.tqdm.format_meter(done, total, now - start, prefix=what)
      print(text, file=sys.stderr, flush=True)


def for_each(function: Callable[[int], object], count: int, what: str) -> None:
  """Calls function(0) .. function(count - 1) in threads, with a progress bar.

  The first exception is raised; calls that have not started are dropped.
  """
  for _ in bar(in_order(function, range(count)), what, count):
    pass


def in_order(
  function: Callable[[S], T], items: Iterable[S], *, ahead: int = AHEAD
) -> Iterator[T]:
  """Yields function(item) of every item, computed ahead in threads.

  At most `ahead` results, 2 or more, wait in memory. Exceptions are raised in
  order, too. The items are taken in the caller's thread.
  """
  pool = concurrent.futures.ThreadPoolExecutor(THREADS)
  waiting = collections.deque()
  try:
    for item in items:
      waiting.append(pool.submit(function, item))
      if len(waiting) == ahead:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    # After a failure the items still waiting need no work.
    pool.shutdown(cancel_futures=True)
