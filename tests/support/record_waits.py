"""Runs main.py and records what could make the host wait for the device.

python -m tests.support.record_waits FLAGS

The last line of the output is a JSON list of what happened, in order: `batch
N`, the loop asks for the batch of step N; `compile`; and `read`, the host
reads an array on the device.
"""

import functools
import json
import runpy
from unittest import mock

import jax
import numpy as np

from tests.support import batches


def _record_compilations(events):
  def record_compile(name, seconds, **kwargs):
    del seconds, kwargs
    if name == '/jax/core/compile/backend_compile_duration':
      events.append('compile')

  jax.monitoring.register_event_duration_secs_listener(record_compile)


def _record_reads(events):
  """Records every way in which the host waits for an array's value."""
  array_type = type(jax.numpy.zeros(()))
  value = array_type._value

  def read(array):
    events.append('read')
    return value.fget(array)

  array_type._value = property(read)
  # NumPy reads CPU arrays through their buffer, past `_value`.
  for module, name in (
    (np, 'asarray'),
    (np, 'array'),
    (jax, 'block_until_ready'),
  ):
    original = getattr(module, name)

    @functools.wraps(original)
    def recorded(array, *args, original=original, **kwargs):
      if isinstance(array, array_type):
        events.append('read')
      return original(array, *args, **kwargs)

    mock.patch.object(module, name, recorded).start()


if __name__ == '__main__':
  happened = []
  batches.on_each(lambda step, _: happened.append(f'batch {step}'))
  _record_compilations(happened)
  _record_reads(happened)
  try:
    runpy.run_path('main.py', run_name='__main__')
  finally:
    print(json.dumps(happened))
