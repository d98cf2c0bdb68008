"""The training state: parameters, running statistics, optimizer state."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from sgde_jax import parallel


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
  def variables(self) -> dict:
    """The argument of `model.apply`."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def create_state(
  key: jax.Array,
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  image_size: tuple[int, int],
) -> TrainState:
  """Initializes a state at step 0 on the default device.

  `image_size` is the (height, width) of the training images.
  """
  # On the CPU, XLA's full optimization takes four times as long here, due to a
  # hundred small random number generators, for a program that runs once.
  initialize = parallel.jit(
    lambda key: _initialize(key, model, optimizer, image_size),
    cpu_options={'xla_backend_optimization_level': 1},
  )
  return initialize(key)


def abstract_state(
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  image_size: tuple[int, int],
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Returns a state of `jax.ShapeDtypeStruct`, replicated over the mesh."""
  shapes = jax.eval_shape(
    lambda key: _initialize(key, model, optimizer, image_size),
    jax.random.key(0),
  )
  placement = parallel.replicated(mesh)
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=placement
    ),
    shapes,
  )


def _initialize(key, model, optimizer, image_size):
  frames = jnp.zeros((1, len(model.frame_offsets), *image_size, 3))
  variables = model.init(key, frames, train=False)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=optimizer.init(variables['params']),
  )
