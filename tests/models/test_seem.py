"""SEEM: point features, scattering, refinement of every edge; semantics."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import linen as nn

from sgde_jax.models import decoders, seem
from sgde_jax.ops import edges, warping

_SIZE = (16, 24)
_MODULE = seem.SEEM(
  points=30, edge_width=1, levels=(0, 3), width=16, depth=3, chunk=30
)


def _inputs(batch=2, count=30):
  """Arguments of SEEM: points, features of two levels, logit, classes."""
  rng = np.random.default_rng(0)

  def draw(height, width, channels):
    shape = (batch, height, width, channels)
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)

  height, width = _SIZE
  points = rng.integers(0, (width, height), (batch, count, 2))
  levels = {i: (height // 2**i, width // 2**i) for i in (0, 3)}
  return (
    jnp.asarray(points, jnp.int32),
    {level: draw(*size, 4) for level, size in levels.items()},
    {level: draw(*size, 3) for level, size in levels.items()},
    draw(height, width, 1),
    draw(height, width, 19),
  )


def _initialize(module, inputs, *, fresh=False):
  """Variables; unless fresh, the last layer's are drawn, too."""
  variables = jax.jit(module.init)(jax.random.key(0), *inputs)
  if fresh:
    return variables
  params = dict(variables['params'])
  last = params['residual']
  kernel = 0.1 * jax.random.normal(jax.random.key(1), last['kernel'].shape)
  params['residual'] = {**last, 'kernel': kernel}
  return {'params': params}


def test_samples_are_at_half_pixel_positions():
  height, width = _SIZE
  for stride in (1, 2, 4):
    y, x = np.mgrid[: height // stride, : width // stride]
    # Each coarse pixel holds the full-size coordinate of its centre.
    ramps = (np.stack([x, y], -1) + 0.5) * stride - 0.5
    points = np.stack(np.meshgrid([4, 9, 17], [5, 11]), -1).reshape(1, -1, 2)
    samples = seem.sample_features(
      jnp.asarray(ramps[None], jnp.float32), jnp.asarray(points), _SIZE
    )
    np.testing.assert_allclose(samples, points, atol=1e-5)


def test_fresh_module_changes_nothing_and_learns():
  module, inputs = _MODULE, _inputs()
  variables = _initialize(module, inputs, fresh=True)

  def loss(variables):
    residual = module.apply(variables, *inputs)
    return jnp.sum(jnp.sin(residual + 1)), residual

  gradients, residual = jax.jit(jax.grad(loss, has_aux=True))(variables)
  assert residual.shape == (2, 30, 1) and residual.dtype == jnp.float32
  assert not residual.any()
  assert np.any(gradients['params']['residual']['kernel'] != 0)


def test_every_input_matters():
  module, inputs = _MODULE, _inputs()
  variables = _initialize(module, inputs)

  def loss(variables, maps):
    return jnp.sum(module.apply(variables, inputs[0], *maps) ** 2)

  gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, inputs[1:])
  for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
    assert np.isfinite(gradient).all() and np.any(gradient != 0), path


def test_classes_are_fed_as_probabilities():
  module, (*inputs, class_logits) = _MODULE, _inputs()
  variables = _initialize(module, (*inputs, class_logits))
  residual, shifted, other = (
    module.apply(variables, *inputs, logits)
    for logits in (class_logits, class_logits + 9, 2 * class_logits)
  )
  np.testing.assert_allclose(shifted, residual, rtol=1e-3, atol=1e-5)
  assert not np.allclose(other, residual, rtol=1e-2)


def test_layers_are_dense_over_their_inputs_and_the_coarse_logit():
  module, inputs = _MODULE, _inputs()
  points, depth_features, semantic_features, coarse, class_logits = inputs
  variables = _initialize(module, inputs)
  logits = warping.gather_points(coarse, points)
  x = np.concatenate(
    [
      *(
        seem.sample_features(features, points, _SIZE)
        for decoder in (depth_features, semantic_features)
        for features in decoder.values()
      ),
      nn.softmax(warping.gather_points(class_logits, points)),
    ],
    axis=-1,
  )
  for name in ('hidden_0', 'hidden_1', 'hidden_2', 'residual'):
    layer = jax.tree.map(np.asarray, variables['params'][name])
    x = np.concatenate([x, logits], axis=-1) @ layer['kernel'] + layer['bias']
    x = x if name == 'residual' else np.maximum(x, 0)
  residual = module.apply(variables, *inputs)
  np.testing.assert_allclose(residual, x, rtol=1e-4, atol=1e-5)


def test_maps_of_different_sizes_raise():
  points, *maps, class_logits = _inputs()
  with pytest.raises(jaxtyping.TypeCheckError):
    _MODULE.init(jax.random.key(0), points, *maps, class_logits[:, 1:])


def test_scatter_writes_only_valid_points():
  rng = np.random.default_rng(0)
  maps = rng.random((2, 4, 5, 1)).astype(np.float32)
  # In turn: valid, masked twin of it, masked, last pixel; then outside the
  # map to the right, the left, above and below.
  points = [[1, 2], [1, 2], [0, 0], [4, 3], [5, 1], [-1, 1], [2, -1], [2, 4]]
  points = np.array([points, points], np.int32)
  mask = np.array([True, False, False, True] + 4 * [True])
  mask = np.stack([mask, mask & (np.arange(8) != 3)])
  values = 10 + rng.random((2, 8, 1)).astype(np.float32)
  expected = maps.copy()
  expected[:, 2, 1] = values[:, 0]
  expected[0, 3, 4] = values[0, 3]
  scatter = jax.jit(seem.scatter_points)
  np.testing.assert_array_equal(scatter(maps, points, values, mask), expected)
  nothing = scatter(maps, points, values, np.zeros_like(mask))
  np.testing.assert_array_equal(nothing, maps)


def test_scatter_passes_gradients_to_values_and_untouched_pixels():
  maps, weights = jnp.ones((1, 2, 3, 1)), jnp.arange(6.0).reshape(1, 2, 3, 1)
  points = jnp.asarray([[[2, 1], [0, 1], [2, 1]]])
  mask = jnp.asarray([[True, True, False]])

  def loss(maps, values):
    return jnp.sum(weights * seem.scatter_points(maps, points, values, mask))

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
  to_maps, to_values = gradient(maps, jnp.zeros((1, 3, 1)))
  np.testing.assert_array_equal(to_values.ravel(), [5, 3, 0])
  np.testing.assert_array_equal(to_maps.ravel(), [0, 1, 2, 0, 4, 0])


def test_gather_undoes_scatter():
  masks = jax.random.uniform(jax.random.key(0), (2, *_SIZE)) < 0.3

  @jax.jit
  def write_and_read(values):
    points, valid = edges.ordered_edge_points(masks, 0, 200)
    maps = jnp.zeros((2, *_SIZE, 1))
    maps = seem.scatter_points(maps, points, values, valid)
    return warping.gather_points(maps, points), valid

  values = np.random.default_rng(1).random((2, 200, 1), np.float32)
  read, valid = write_and_read(values)
  np.testing.assert_array_equal(read[valid], values[valid])


class _Refiner(nn.Module):
  """Refines all edges with a SEEM that lives in a larger module."""

  chunk: int

  def setup(self):
    self.seem = _MODULE.clone()

  def __call__(self, edge_map, *inputs):
    logit = inputs[2]
    coarse = nn.sigmoid(logit)
    module, variables = self.seem.unbind()

    def refine(points):
      residual = module.apply(variables, points, *inputs)
      return nn.sigmoid(warping.gather_points(logit, points) + residual)

    return coarse, seem.refine_edges(coarse, edge_map, refine, chunk=self.chunk)


def test_refinement_of_every_edge():
  points, *maps = _inputs()
  variables = _initialize(_MODULE, (points, *maps))
  shares = np.array([0.1, 0.6]).reshape(2, 1, 1)
  edge_map = np.random.default_rng(0).random((2, *_SIZE)) < shares
  every = jnp.asarray(np.indices(_SIZE)[::-1].reshape(2, -1).T, jnp.int32)
  every = jnp.broadcast_to(every, (2, *every.shape))
  residual = jax.jit(_MODULE.apply)(variables, every, *maps)
  without_points = jax.jit(_MODULE.apply)(variables, None, *maps)
  np.testing.assert_allclose(without_points, residual, atol=1e-5)
  dense = nn.sigmoid(maps[2] + residual.reshape(2, *_SIZE, 1))
  variables = {'params': {'seem': variables['params']}}
  results = []
  for chunk in (37, 1000):
    apply = jax.jit(_Refiner(chunk).apply)
    coarse, refined = map(np.asarray, apply(variables, edge_map, *maps))
    np.testing.assert_array_equal(refined[~edge_map], coarse[~edge_map])
    np.testing.assert_allclose(refined[edge_map], dense[edge_map], atol=1e-6)
    again = apply(variables, edge_map, *maps)[1]
    np.testing.assert_array_equal(refined, again)
    results.append(refined)
  np.testing.assert_allclose(results[0], results[1], atol=1e-6)
  coarse, refined = apply(variables, np.zeros_like(edge_map), *maps)
  np.testing.assert_array_equal(refined, coarse)


def test_sharded_batch_is_not_gathered():
  devices = jax.device_count()
  mesh = jax.make_mesh(
    (devices,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  inputs = _inputs(devices)
  module = _MODULE
  variables = _initialize(module, inputs)

  def loss(points, *maps):
    residual = module.apply(variables, points, *maps)
    coarse = maps[2]
    mask = jnp.ones(points.shape[:2], bool)
    return jnp.sum(seem.scatter_points(coarse, points, residual, mask) ** 2)

  gradient = jax.jit(jax.grad(loss, argnums=(1, 2, 3)))
  inputs = jax.device_put(inputs, batch)
  text = gradient.lower(*inputs).compile().as_text()
  assert 'all-gather' not in text


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_semantic_head(dtype):
  head = decoders.SemanticHead(dtype=jnp.dtype(dtype))
  features = jax.ShapeDtypeStruct((2, 6, 8, 16), dtype)
  initialize = functools.partial(head.init_with_output, jax.random.key(1))
  logits, variables = jax.eval_shape(initialize, features)
  assert logits.shape == (2, 6, 8, 19) and logits.dtype == jnp.float32
  kernel = variables['params']['classconv']['conv']['kernel']
  assert kernel.shape == (3, 3, 16, 19) and kernel.dtype == jnp.float32
