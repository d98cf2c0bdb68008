"""Our training step and prediction, timed by `benchmarks.train_step`."""

import functools
import itertools
import time
from collections.abc import Callable

import jax

import input_pipeline
from benchmarks import measuring
from sgde_jax import configuration, models, parallel
from sgde_jax.configs import ablation, default
from sgde_jax.inference import steps as inference
from sgde_jax.training import loop
from sgde_jax.weights import initial, optimizer


def make_step(case: measuring.Case) -> tuple[Callable[[], None], float]:
  """Compiles a step; returns it and the seconds to compile it."""
  config = ablation.get_config(case.part)
  config.data.width, config.data.height = case.width, case.height
  config.model.dtype = case.dtype
  mesh = parallel.create_mesh()
  model = models.create_model(config.model)
  adam = optimizer.create_optimizer(config.optimizer)
  state = initial.new_state(config, model, adam, mesh, weights={})
  batch = parallel.to_devices(measuring.random_batch(case), mesh)
  if case.work == 'train':
    start = time.perf_counter()
    batches = itertools.repeat(batch)
    step, *_ = loop.compile_steps(
      config, model, adam, mesh, state, batches, steps_per_epoch=1000
    )

    def run():
      nonlocal state  # The step donates the state that it is given.
      state, scalars = step(state, batch)
      jax.block_until_ready((state, scalars))

  else:
    inputs = state.variables, batch['frames'][:, 0]
    if case.workdir:
      inputs = _trained_inputs(config, case, mesh)
    start = time.perf_counter()
    predict = functools.partial(inference.predict_step, model=model)
    predict = parallel.jit(predict).lower(*inputs).compile()

    def run():
      jax.block_until_ready(predict(*inputs))

  return run, time.perf_counter() - start


def describe_device() -> tuple[str, int]:
  """Returns the devices' number and kind, and peak bytes or 0 if unknown."""
  device = jax.devices()[0]
  peak = (device.memory_stats() or {}).get('peak_bytes_in_use', 0)
  return f'{jax.device_count()} {device.device_kind}', peak


def _trained_inputs(config, case, mesh):
  """Returns a run's weights for a config's network, and evaluation frames."""
  _, state = initial.load_trained(config, case.workdir, mesh)
  data = configuration.resolve(default.get_config(), case.workdir, {}).data
  data.height, data.width = case.height, case.width
  evaluation = input_pipeline.open_data(data, train=False)
  batches = evaluation.eval_batches(batch_size=case.batch)
  frames = next(iter(batches))['frames'][:, 0]
  return state.variables, parallel.to_devices(frames, mesh)
