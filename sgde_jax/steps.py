"""One training step and one prediction: pure functions at module level.

`step` counts completed updates: the update from step n to n + 1 takes batch n
and draws its randomness from `fold_in(key(seed), n)` alone.
"""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from sgde_jax import augmentation, geometry, losses, models

_TIE_NOISE = 1e-5  # Monodepth2's noise that breaks ties of the auto-mask.


@flax.struct.dataclass
class TrainState:
  """Everything that training changes.

  Attributes:
    step: int32 scalar, completed updates.
    params: float32 parameters.
    batch_stats: float32 running statistics of the batch norms.
    opt_state: the optimizer's state.
  """

  step: jax.Array
  params: dict
  batch_stats: dict
  opt_state: optax.OptState

  @property
  def variables(self):
    """What `model.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def train_step(
  state, batch, *, model, optimizer, seed, augmentation_options, loss_options
):
  """Makes one update.

  Args:
    state: a `TrainState`.
    batch: `frames` `[B, F, H, W, 3]` uint8, `intrinsics` `[B, 3, 3]`,
      `labels` `[B, H, W]` uint8; see the README's table.
    model: the network.
    optimizer: an Optax transformation.
    seed: the run's seed.
    augmentation_options: keyword arguments of `augmentation.augment`.
    loss_options: keyword arguments of `losses.self_supervised_losses`.

  Returns:
    The new state and a dict of float32 scalars: each weighted loss term,
    their sum `loss`, and `gradient_norm`.
  """
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  augment_key, noise_key = jax.random.split(key)
  clean, jittered, intrinsics, _ = augmentation.augment(
    augment_key,
    to_float(batch['frames']),
    batch['intrinsics'],
    batch['labels'],
    **augmentation_options,
  )

  def loss_fn(params):
    outputs, updates = model.apply(
      {'params': params, 'batch_stats': state.batch_stats},
      jittered,
      train=True,
      mutable=['batch_stats'],
    )
    noise = _tie_noise(noise_key, clean)
    terms, _ = depth_losses(
      outputs, clean, intrinsics, model.frame_offsets, noise, loss_options
    )
    return sum(terms.values()), (terms, updates['batch_stats'])

  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  (loss, (terms, batch_stats)), gradients = grad_fn(state.params)
  updates, opt_state = optimizer.update(
    gradients, state.opt_state, state.params
  )
  scalars = terms | {
    'loss': loss,
    'gradient_norm': optax.tree.norm(gradients),
  }
  return (
    TrainState(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
    ),
    scalars,
  )


def preview_step(variables, batch, *, model, loss_options):
  """Predicts a training batch and rebuilds its target frames.

  Args:
    variables: the model's variables.
    batch: as for `train_step`; nothing is augmented.
    model: the network.
    loss_options: as for `train_step`.

  Returns:
    A dict of `frame` `[B, H, W, 3]`, `disparity` `[B, H, W, 1]`, `rebuilt`
    `[B, S, H, W, 3]` and `automask` `[B, H, W]` bool.
  """
  frames = to_float(batch['frames'])
  outputs = model.apply(variables, frames, train=False)
  _, pictures = depth_losses(
    outputs,
    frames,
    batch['intrinsics'],
    model.frame_offsets,
    None,
    loss_options,
  )
  return pictures | {
    'frame': frames[:, 0],
    'disparity': outputs.disparities[0],
  }


def predict_step(variables, frames, *, model, flip=False):
  """Predicts the finest disparity of target frames.

  Args:
    variables: the model's variables.
    frames: `[B, H, W, 3]` uint8.
    model: the network.
    flip: whether to predict the mirrored frames too.

  Returns:
    `[B, H, W]` float32 inverse depth in 1/metres (up to the training's
    unknown scale), or `[B, 2, H, W]` with the mirrored prediction, mirrored
    back, second.
  """
  images = to_float(frames)

  def predict(images):
    outputs = model.apply(variables, images[:, None], train=False)
    return geometry.scale_disparity(outputs.disparities[0][..., 0])

  disparity = predict(images)
  if not flip:
    return disparity
  mirrored = predict(images[:, :, ::-1])[:, :, ::-1]
  return jnp.stack([disparity, mirrored], axis=1)


def depth_losses(
  outputs: models.DepthOutputs,
  frames,
  intrinsics,
  frame_offsets,
  tie_noise,
  loss_options,
):
  """The self-supervised losses of the network's outputs.

  Args:
    outputs: `DepthOutputs` for the frames.
    frames: `[B, F, H, W, 3]` float in [0, 1], not jittered.
    intrinsics: `[B, 3, 3]`.
    frame_offsets: time of each frame relative to the target, 0 first.
    tie_noise: `[B, F-1, H, W]` or None.
    loss_options: keyword arguments of `losses.self_supervised_losses`.

  Returns:
    As `losses.self_supervised_losses`.
  """
  transforms = [
    geometry.pose_vector_to_matrix(
      outputs.axis_angle[:, i],
      outputs.translation[:, i],
      invert=offset < 0,
    )
    for i, offset in enumerate(frame_offsets[1:])
  ]
  return losses.self_supervised_losses(
    frames[:, 0],
    frames[:, 1:],
    outputs.disparities,
    intrinsics,
    jnp.stack(transforms, axis=1),
    tie_noise=tie_noise,
    **loss_options,
  )


def to_float(images):
  """Maps uint8 images to float32 in [0, 1]."""
  return images.astype(jnp.float32) / 255


def _tie_noise(key, frames):
  batch, count, height, width, _ = frames.shape
  shape = (batch, count - 1, height, width)
  return _TIE_NOISE * jax.random.normal(key, shape, frames.dtype)
