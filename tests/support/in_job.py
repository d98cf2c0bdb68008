"""One process of a job without a model; see test_job.py.

python -m tests.support.in_job WHAT ADDRESS COUNT NUMBER
"""

import sys
import time

import jax

from sgde_jax import parallel
from sgde_jax.training import preemption


def resume():
  """Starts slowly, and at a later step."""
  print('ready', flush=True)
  time.sleep(5)
  loop(1001)


def loop(start=1):
  """Steps until the job is asked to stop."""
  with preemption.Signals() as signals:
    for step in range(start, start + 1000):
      if step == 5:
        print('ready', flush=True)
      time.sleep(0.02)
      if signals.stop_after(step):
        print(step, flush=True)
        signals.stop(step)


def fail():
  """Fails in process 1 alone."""
  with parallel.failing_together():
    if jax.process_index():
      raise ValueError('no such file')


def differ():
  """Uses another seed in process 1."""
  parallel.check_same({'root': 'kitti', 'size': '640x192'})
  seed = str(jax.process_index())
  parallel.check_same({'root': 'kitti', 'seeds': seed})


if __name__ == '__main__':
  what, address, count, number = sys.argv[1:]
  jax.distributed.initialize(address, int(count), int(number))
  try:
    {'loop': loop, 'resume': resume, 'fail': fail, 'differ': differ}[what]()
  except (ValueError, ConnectionError) as error:
    print(f'{type(error).__name__}: {error}', flush=True)
