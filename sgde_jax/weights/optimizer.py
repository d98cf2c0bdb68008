"""The optimizer: Adam, its learning rate schedule, gradient clipping."""

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

_NEVER = 2**31 - 1  # Optax counts steps in 32 bits.


def create_optimizer(
  optimizer_config: ml_collections.ConfigDict,
) -> optax.GradientTransformationExtraArgs:
  """Returns Adam with step decay and optional clipping by global norm.

  Its `update` takes the result of `decay_steps` as an argument of that name:
  the steps depend on the data's size, and programs compiled with them serve
  other data.

  Args:
    optimizer_config: `config.optimizer`.
  """
  clip = optax.identity()
  if optimizer_config.clip_norm:
    clip = optax.clip_by_global_norm(optimizer_config.clip_norm)
  adam = optax.chain(optax.scale_by_adam(), _scale_by_rate(optimizer_config))
  return optax.chain(clip, adam)


def decay_steps(
  optimizer_config: ml_collections.ConfigDict, *, steps_per_epoch: float
) -> np.ndarray:
  """Returns the steps after which the learning rate decays, int32, sorted.

  Args:
    optimizer_config: `config.optimizer`.
    steps_per_epoch: updates in one pass over the data.
  """
  epochs = sorted(optimizer_config.decay_epochs)
  steps = [round(min(epoch * steps_per_epoch, _NEVER)) for epoch in epochs]
  return np.array(steps, np.int32)


def describe_schedule(
  optimizer_config: ml_collections.ConfigDict,
  *,
  steps_per_epoch: float,
  num_steps: int,
) -> str:
  """Returns the learning rates as one line, marking decays beyond the end."""
  rate, parts = optimizer_config.learning_rate, []
  for step in decay_steps(optimizer_config, steps_per_epoch=steps_per_epoch):
    rate *= optimizer_config.decay_factor
    beyond = ', which is never reached' if step >= num_steps else ''
    parts.append(f', {rate:.3g} after step {step}{beyond}')
  return f'learning rate {optimizer_config.learning_rate:.3g}{"".join(parts)}'


def _scale_by_rate(optimizer_config):
  """Returns `optax.scale_by_schedule` with the decays as an argument."""

  def update(updates, state, params=None, *, decay_steps):
    def negative_rate(count):
      # Step by step, as Optax multiplies: one power would round differently.
      rate = np.float32(-optimizer_config.learning_rate)
      for step in decay_steps:
        decayed = np.float32(optimizer_config.decay_factor) * rate
        rate = jnp.where(count < step, rate, decayed)
      return rate

    scale = optax.scale_by_schedule(negative_rate)
    return scale.update(updates, state, params)

  init = optax.scale_by_schedule(lambda count: count).init
  return optax.GradientTransformationExtraArgs(init, update)
