"""Runs main.py under a special condition.

python -m tests.support.special_runs CONDITION FLAGS

CONDITION is the name of a function below.
"""

import contextlib
import functools
import json
import runpy
import sys
from unittest import mock


@contextlib.contextmanager
def without_tensorflow():
  """Neither TensorFlow nor clu can be imported."""
  # None marks a module that is known to be absent.
  absent = dict.fromkeys(('tensorflow', 'clu', 'tensorboard'))
  with mock.patch.dict(sys.modules, absent):
    yield


@contextlib.contextmanager
def float64():
  """Training and prediction compute in float64.

  In float32 a rounding error can flip a ReLU, the nearest source frame or the
  pixel that a ray falls into, which changes gradients by far more than
  rounding: whether two ways to compute the same step agree can only be seen in
  float64. XLA has no fast float64 convolutions on CPUs, but matrix products.
  """
  import jax
  import jax.numpy as jnp

  from sgde_jax import models

  create_model = models.create_model

  def create_float64_model(*args, **kwargs):
    return create_model(*args, **kwargs).clone(dtype=jnp.float64)

  def to_float64(images):
    return images.astype(jnp.float64) / 255

  def convolve(x, kernel, strides, padding, **options):
    del options
    height, width, _, features = kernel.shape
    if isinstance(padding, str):
      sizes = x.shape[1:3], (height, width), strides, padding
      padding = jax.lax.padtype_to_pads(*sizes)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    bottom, right = x.shape[1] - height + 1, x.shape[2] - width + 1
    patches = [
      x[:, i : i + bottom : strides[0], j : j + right : strides[1]]
      for i in range(height)
      for j in range(width)
    ]
    return jnp.concatenate(patches, -1) @ kernel.reshape(-1, features)

  with (
    jax.enable_x64(True),
    mock.patch.object(models, 'create_model', create_float64_model),
    mock.patch.object(models, 'to_float', to_float64),
    mock.patch.object(jax.lax, 'conv_general_dilated', convolve),
  ):
    yield


@contextlib.contextmanager
def nan_intrinsics():
  """The third step's batch has NaN intrinsics; prints its examples' numbers."""

  def set_nan(step, batch):
    if step == 3:
      batch['intrinsics'] = float('nan') * batch['intrinsics']
      print(batch['index'].tolist())

  with _each_batch(set_nan):
    yield


@contextlib.contextmanager
def recorded_waits():
  """Records events that could make the host wait for the device.

  The last line of the output is a JSON list of the events, in order: `batch
  N`, the loop asks for the batch of step N; `compile`; and `read`, the host
  reads an array on the device.
  """
  import jax
  import numpy as np

  events = []

  def record_compile(name, seconds, **kwargs):
    del seconds, kwargs
    if name == '/jax/core/compile/backend_compile_duration':
      events.append('compile')

  jax.monitoring.register_event_duration_secs_listener(record_compile)
  array_type = type(jax.numpy.zeros(()))
  value = array_type._value

  def read(array):
    events.append('read')
    return value.fget(array)

  array_type._value = property(read)

  def recorded(original):
    @functools.wraps(original)
    def call(array, *args, **kwargs):
      if isinstance(array, array_type):
        events.append('read')
      return original(array, *args, **kwargs)

    return call

  # NumPy reads CPU arrays through their buffer, without `_value`.
  for module, name in (
    (np, 'asarray'),
    (np, 'array'),
    (jax, 'block_until_ready'),
  ):
    mock.patch.object(module, name, recorded(getattr(module, name))).start()
  with _each_batch(lambda step, _: events.append(f'batch {step}')):
    try:
      yield
    finally:
      print(json.dumps(events))


@contextlib.contextmanager
def _each_batch(function):
  """Calls a function of step and batch before training gets the batch."""
  import input_pipeline

  train_batches = input_pipeline.Data.train_batches

  def seen_batches(self, *, start_step, **kwargs):
    batches = train_batches(self, start_step=start_step, **kwargs)
    for step, batch in enumerate(batches, start=start_step + 1):
      function(step, batch)
      yield batch

  with mock.patch.object(input_pipeline.Data, 'train_batches', seen_batches):
    yield


if __name__ == '__main__':
  condition = sys.argv.pop(1)
  with globals()[condition]():
    runpy.run_path('main.py', run_name='__main__')
