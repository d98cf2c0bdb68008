"""The training step, its losses and its preview: pure functions to compile.

`step` counts completed updates: the update from step n to n + 1 takes batch n
and draws its randomness from `fold_in(key(seed), n)` alone.
"""

import functools
import itertools
import logging
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from sgde_jax import parallel
from sgde_jax.inference import steps as inference
from sgde_jax.ops import augmentation, losses
from sgde_jax.weights import train_state

_TIE_NOISE = 1e-5  # Monodepth2's noise that breaks ties of the auto-mask.
# Pixels whose attention is drawn, as fractions of width and height.
_QUERIES = ((0.5, 0.85), (0.2, 0.6), (0.8, 0.6))


def train_step(
  seed, state, batch, *, model, optimizer, augmentation_options, loss_options
):
  """Makes one update.

  Args:
    seed: the run's seed, uint32.
    state: a `TrainState`.
    batch: `frames` `[B, F, H, W, 3]` uint8, `intrinsics` `[B, 3, 3]`,
      `labels` `[B, H, W]` uint8; with labelled stills also `semantic_images`
      and `semantic_labels`; see the README's table.
    model: the network.
    optimizer: an Optax transformation.
    augmentation_options: keyword arguments of `augmentation.augment`.
    loss_options: the config's `loss` as a dict, see `losses.weighted_terms`.

  Returns:
    The new state and float32 scalars by name: each weighted loss term, their
    sum `loss`, `gradient_norm`, and `disparity_spread`, the disparity's
    standard deviation over its mean, averaged over the images; with attention
    also `attention_gain`, the root mean square of its gains.
  """
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  augment_key, noise_key, point_key, still_key = jax.random.split(key, 4)
  batch, jittered = _augment(augment_key, batch, augmentation_options)
  stills = _augment_stills(still_key, batch, augmentation_options)
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
    terms, _ = _compute_losses(
      outputs, labelled, batch, model, loss_options, noise
    )
    loss = sum(terms.values())
    spread = _relative_spread(outputs.disparities[0])
    scalars = terms | {'loss': loss, 'disparity_spread': spread}
    return loss, (scalars, updates['batch_stats'])

  grad_fn = jax.grad(loss_fn, has_aux=True)
  gradients, (scalars, batch_stats) = grad_fn(state.params)
  scalars |= {'gradient_norm': optax.tree.norm(gradients)}
  scalars |= _attention_gain(state.params, model)
  updates, opt_state = optimizer.update(
    gradients, state.opt_state, state.params
  )
  state = train_state.TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    opt_state=opt_state,
  )
  return state, scalars


def compile_steps(config, model, optimizer, mesh, state, batches):
  """Compiles the training step, so that nothing can recompile it later.

  Args:
    config: the whole config.
    model: the network.
    optimizer: an Optax transformation.
    mesh: the mesh.
    state: a `TrainState` on the mesh; the step takes it over (donated).
    batches: iterator of batches on the mesh.

  Returns:
    The compiled `train_step`, a function of state and batch; the jitted
    `preview_step`, a function of variables and batch; and the batches, none of
    them used up.
  """
  replicated, rows = parallel.replicated(mesh), parallel.batch_sharded(mesh)
  loss_options = config.loss.to_dict()
  train = parallel.jit(
    functools.partial(
      train_step,
      model=model,
      optimizer=optimizer,
      augmentation_options=config.augmentation.to_dict(),
      loss_options=loss_options,
    ),
    in_shardings=(replicated, replicated, rows),
    out_shardings=(replicated, replicated),
    donate_argnums=1,
  )
  preview = parallel.jit(
    functools.partial(preview_step, model=model, loss_options=loss_options),
    in_shardings=(replicated, rows),
    out_shardings=rows,
  )
  logging.info(
    'compiling the training step (minutes on a slow machine; XLA may warn)'
  )
  start = time.monotonic()
  first = next(batches)
  # An argument, so that JAX's compilation cache serves every seed.
  seed = parallel.replicate(np.uint32(config.seed % 2**32), mesh)
  compiled = train.lower(seed, state, first).compile()
  logging.info('compiled in %.0f s', time.monotonic() - start)
  train = functools.partial(compiled, seed)
  return train, preview, itertools.chain([first], batches)


def preview_step(variables, batch, *, model, loss_options):
  """Predicts a training batch and rebuilds its target frames, for pictures.

  Args:
    variables: the model's variables.
    batch: as for `train_step`; nothing is augmented.
    model: the network.
    loss_options: as for `train_step`.

  Returns:
    A dict of `frame` `[B, H, W, 3]`, `disparity` `[B, H, W, 1]`, `rebuilt`
    `[B, S, H, W, 3]` and `automask` `[B, H, W]` bool. With semantics also
    `labels` and `true_labels` `[B, H, W]` uint8; with SEEM `enhanced`
    `[B, H, W, 1]`, `points` `[B, K, 2]` and `point_mask` `[B, K]`; with
    attention `queries` `[B, P, 2]` pixels and, for each level, `attention_I`
    `[B, P, h, w]`, what they attend to.
  """
  batch = batch | {'frames': inference.to_float(batch['frames'])}
  outputs = model.apply(variables, batch['frames'], train=False)
  labelled = [(outputs.logits, batch['labels'])]
  _, pictures = _compute_losses(outputs, labelled, batch, model, loss_options)
  target = batch['frames'][:, 0]
  pictures |= {'frame': target, 'disparity': outputs.disparities[0]}
  if outputs.logits is not None:
    pictures['labels'] = inference.most_likely(outputs.logits)
    pictures['true_labels'] = batch['labels']
  if outputs.enhanced_disparity is not None:
    pictures['enhanced'] = outputs.enhanced_disparity
    pictures['points'], pictures['point_mask'] = model.apply(
      variables, outputs.logits, method='draw_points'
    )
  if model.attention_levels:
    height, width = target.shape[1:3]
    queries = jnp.array([(f * width, g * height) for f, g in _QUERIES], int)
    queries = jnp.tile(queries[None], (len(target), 1, 1))
    pictures['queries'] = queries
    maps = model.apply(variables, target, queries, method='attention_maps')
    pictures |= {f'attention_{level}': m for level, m in maps.items()}
  return pictures


def _compute_losses(outputs, labelled, batch, model, options, tie_noise=None):
  return losses.weighted_terms(
    outputs,
    labelled,
    batch['frames'],
    batch['intrinsics'],
    frame_offsets=model.frame_offsets,
    min_depth=model.min_depth,
    max_depth=model.max_depth,
    tie_noise=tie_noise,
    **options,
  )


def _augment(key, batch, options):
  """Returns the batch, its frames float and clean, and the jittered frames."""
  frames, jittered, intrinsics, labels = augmentation.augment(
    key,
    inference.to_float(batch['frames']),
    batch['intrinsics'],
    batch['labels'],
    **options,
  )
  clean = {'frames': frames, 'intrinsics': intrinsics, 'labels': labels}
  return batch | clean, jittered


def _augment_stills(key, batch, options):
  """Augmented stills, `[M, H, W, 3]`, `[M, H, W]`; None where are none."""
  if 'semantic_images' not in batch:
    return None
  images = inference.to_float(batch['semantic_images'])[:, None]
  no_camera = jnp.tile(jnp.eye(3)[None], (len(images), 1, 1))
  _, jittered, _, labels = augmentation.augment(
    key, images, no_camera, batch['semantic_labels'], **options
  )
  return jittered[:, 0], labels


def _attention_gain(params, model):
  """Root mean square of all attention's gains, whether it acts; {} without."""
  if not model.attention_levels:
    return {}
  parts = traverse_util.flatten_dict(params).items()
  gains = jnp.concatenate([gain for name, gain in parts if name[-1] == 'gain'])
  rms = jnp.sqrt(jnp.mean(jnp.square(gains)))
  return {'attention_gain': model.attention['gain_rate'] * rms}


def _relative_spread(disparity):
  """Standard deviation over mean of `[B, H, W, 1]`, averaged over images."""
  axes = (1, 2, 3)
  means = jnp.mean(disparity, axis=axes)
  return jnp.mean(jnp.std(disparity, axis=axes) / (means + 1e-7))


def _tie_noise(key, frames):
  batch, count, height, width, _ = frames.shape
  shape = (batch, count - 1, height, width)
  return _TIE_NOISE * jax.random.normal(key, shape, frames.dtype)
