"""The optimizer: Adam, its learning rate schedule, gradient clipping."""

import ml_collections
import optax

_NEVER = 2**31 - 1  # Optax counts steps in 32 bits.


def create_optimizer(
  optimizer_config: ml_collections.ConfigDict, *, steps_per_epoch: float
) -> optax.GradientTransformation:
  """Returns Adam with step decay and optional clipping by global norm.

  Args:
    optimizer_config: `config.optimizer`.
    steps_per_epoch: updates in one pass over the data.
  """
  schedule = optax.piecewise_constant_schedule(
    optimizer_config.learning_rate, _decays(optimizer_config, steps_per_epoch)
  )
  clip = optax.identity()
  if optimizer_config.clip_norm:
    clip = optax.clip_by_global_norm(optimizer_config.clip_norm)
  return optax.chain(clip, optax.adam(schedule))


def describe_schedule(
  optimizer_config: ml_collections.ConfigDict,
  *,
  steps_per_epoch: float,
  num_steps: int,
) -> str:
  """Returns the learning rates as one line, marking decays beyond the end."""
  rate, parts = optimizer_config.learning_rate, []
  decays = _decays(optimizer_config, steps_per_epoch)
  for step, factor in sorted(decays.items()):
    rate *= factor
    beyond = ', which is never reached' if step >= num_steps else ''
    parts.append(f', {rate:.3g} after step {step}{beyond}')
  return f'learning rate {optimizer_config.learning_rate:.3g}{"".join(parts)}'


def _decays(optimizer_config, steps_per_epoch):
  """Maps steps to the factor applied to the learning rate after them."""
  factors = {}
  for epoch in optimizer_config.decay_epochs:
    step = round(min(epoch * steps_per_epoch, _NEVER))
    factors[step] = factors.get(step, 1.0) * optimizer_config.decay_factor
  return factors
