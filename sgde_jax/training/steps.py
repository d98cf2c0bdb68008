"""The training step, its losses and its preview: pure functions to compile.

`step` counts completed updates: the update from step n to n + 1 takes batch n
and draws its randomness from `fold_in(key(seed), n)` alone.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import traverse_util

from sgde_jax import models
from sgde_jax.inference import steps
from sgde_jax.weights import train_state

_TIE_NOISE = 1e-5  # Monodepth2's noise that breaks ties of the auto-mask.


def train_step(
  run: Mapping[str, jax.Array],
  state: train_state.TrainState,
  batch: Mapping[str, jax.Array],
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformationExtraArgs,
  augment: Callable,
  loss: Callable,
) -> tuple[train_state.TrainState, dict[str, jax.Array]]:
  """Makes one update.

  Args:
    run: what differs between runs of a config: `seed`, uint32, and the
      optimizer's `decay_steps`, int32.
    state: the state after the previous step.
    batch: see `input_pipeline.batch.Batch`.
    model: the network.
    optimizer: an Optax transformation that takes `decay_steps`.
    augment: `augmentation.augment` with its options.
    loss: `losses.weighted_terms` with its options.

  Returns:
    The new state and float32 scalars by name: each weighted loss term, their
    sum `loss`, `gradient_norm`, and `disparity_spread`, the disparity's
    standard deviation over its mean, averaged over the images; with attention
    also `attention_gain`, the root mean square of its gains.
  """
  key = jax.random.fold_in(jax.random.key(run['seed']), state.step)
  augment_key, noise_key, point_key, still_key = jax.random.split(key, 4)
  batch, jittered = _augment(augment_key, batch, augment)
  stills = _augment_stills(still_key, batch, augment)
  noise = _tie_noise(noise_key, batch['frames'])

  def loss_fn(params):
    variables = {'params': params, 'batch_stats': state.batch_stats}
    apply = functools.partial(model.apply, train=True, mutable=['batch_stats'])
    outputs, updates = apply(variables, jittered, rngs={'points': point_key})
    labelled = [(outputs.logits, batch['labels'])]
    if stills is not None:
      images, labels = stills
      # The running statistics stay the video's, which prediction sees.
      logits, _ = apply(variables, images, method='segment')
      labelled.append((logits, labels))
    terms, _ = loss(
      outputs,
      labelled,
      batch['frames'],
      batch['intrinsics'],
      tie_noise=noise,
    )
    total = sum(terms.values())
    spread = _relative_spread(outputs.disparities[0])
    scalars = terms | {'loss': total, 'disparity_spread': spread}
    return total, (scalars, updates['batch_stats'])

  grad_fn = jax.grad(loss_fn, has_aux=True)
  gradients, (scalars, batch_stats) = grad_fn(state.params)
  scalars |= {'gradient_norm': optax.tree.norm(gradients)}
  scalars |= _attention_gain(state.params, model)
  updates, opt_state = optimizer.update(
    gradients,
    state.opt_state,
    state.params,
    decay_steps=run['decay_steps'],
  )
  state = train_state.TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    opt_state=opt_state,
  )
  return state, scalars


def preview_step(
  variables: dict,
  batch: Mapping[str, jax.Array],
  *,
  model: nn.Module,
  loss: Callable,
) -> dict[str, jax.Array]:
  """Predicts a training batch and rebuilds its target frames, for pictures.

  Takes `loss` like `train_step`, and augments nothing.

  Returns:
    A dict of `frame` `[B, H, W, 3]`, `disparity` `[B, H, W, 1]`, `rebuilt`
    `[B, S, H, W, 3]` and `automask` `[B, H, W]` bool. With semantics also
    `labels` and `true_labels` `[B, H, W]` uint8; with SEEM `enhanced`
    `[B, H, W, 1]`, `points` `[B, K, 2]` and `point_mask` `[B, K]`; with
    attention the result of `steps.attention_maps`.
  """
  batch = batch | {'frames': models.to_float(batch['frames'])}
  outputs = model.apply(variables, batch['frames'], train=False)
  labelled = [(outputs.logits, batch['labels'])]
  _, pictures = loss(outputs, labelled, batch['frames'], batch['intrinsics'])
  target = batch['frames'][:, 0]
  pictures |= {'frame': target, 'disparity': outputs.disparities[0]}
  if outputs.logits is not None:
    pictures['labels'] = models.most_likely(outputs.logits)
    pictures['true_labels'] = batch['labels']
  if outputs.enhanced_disparity is not None:
    pictures['enhanced'] = outputs.enhanced_disparity
    pictures['points'], pictures['point_mask'] = model.apply(
      variables, outputs.logits, method='draw_points'
    )
  return pictures | steps.attention_maps(variables, target, model=model)


def _augment(key, batch, augment):
  """Returns the batch, its frames float and clean, and the jittered frames."""
  frames, jittered, intrinsics, labels = augment(
    key,
    models.to_float(batch['frames']),
    batch['intrinsics'],
    batch['labels'],
  )
  clean = {'frames': frames, 'intrinsics': intrinsics, 'labels': labels}
  return batch | clean, jittered


def _augment_stills(key, batch, augment):
  """Returns augmented stills `[M, H, W, 3]`, `[M, H, W]`; None without any."""
  if 'semantic_images' not in batch:
    return None
  images = models.to_float(batch['semantic_images'])[:, None]
  no_camera = jnp.tile(jnp.eye(3)[None], (len(images), 1, 1))
  _, jittered, _, labels = augment(
    key, images, no_camera, batch['semantic_labels']
  )
  return jittered[:, 0], labels


def _attention_gain(params, model):
  """Returns the root mean square of all gains; {} without attention."""
  if not model.attention_levels:
    return {}
  parts = traverse_util.flatten_dict(params).items()
  gains = jnp.concatenate([gain for name, gain in parts if name[-1] == 'gain'])
  rms = jnp.sqrt(jnp.mean(jnp.square(gains)))
  return {'attention_gain': model.attention['gain_rate'] * rms}


def _relative_spread(disparity):
  """Averages the standard deviation over mean of the images `[B, H, W, 1]`."""
  axes = (1, 2, 3)
  means = jnp.mean(disparity, axis=axes)
  return jnp.mean(jnp.std(disparity, axis=axes) / (means + 1e-7))


def _tie_noise(key, frames):
  batch, count, height, width, _ = frames.shape
  shape = (batch, count - 1, height, width)
  return _TIE_NOISE * jax.random.normal(key, shape, frames.dtype)
