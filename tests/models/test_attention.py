"""Attention: implementations against each other, memory, the module."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from sgde_jax.models import attention
from sgde_jax.ops import blockwise


def _inputs(rows, columns, *, batch=2, heads=2, width=4, mixed=6, scale=1.0):
  rng = np.random.default_rng(0)
  shapes = (rows, width), (columns, width), (columns, mixed)
  return tuple(
    jnp.asarray(scale * rng.standard_normal((batch, n, heads, c)), jnp.float32)
    for n, c in shapes
  )


def _value_and_gradients(inputs, implementation):
  weights = jnp.asarray(
    np.random.default_rng(1).standard_normal(
      (*inputs[0].shape[:3], inputs[2].shape[-1])
    ),
    jnp.float32,
  )

  def attend(*inputs):
    return attention.pixel_attention(*inputs, implementation=implementation)

  @jax.jit
  @jax.default_matmul_precision('highest')
  def evaluate(*inputs):
    mixed, pull = jax.vjp(attend, *inputs)
    return mixed, *pull(weights)

  return evaluate(*inputs)


def _numpy_attention(queries, keys, values):
  queries, keys, values = (
    np.asarray(x, np.float64) for x in (queries, keys, values)
  )
  scores = np.einsum('bnhd,bmhd->bhnm', queries, keys)
  scores /= np.sqrt(keys.shape[-1])
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum('bhnm,bmhe->bnhe', weights, values)


def test_plain_matches_the_definition():
  inputs = _inputs(40, 30)
  mixed = attention.pixel_attention(*inputs, implementation='plain')
  np.testing.assert_allclose(mixed, _numpy_attention(*inputs), atol=1e-5)


@pytest.mark.parametrize('rows, columns, block', [(50, 37, 8), (700, 530, 512)])
def test_blockwise_equals_plain(monkeypatch, rows, columns, block):
  monkeypatch.setattr(blockwise, 'BLOCK', block)
  inputs = _inputs(rows, columns)
  plain = _value_and_gradients(inputs, 'plain')
  blocks = _value_and_gradients(inputs, 'blockwise')
  for expected, actual in zip(plain, blocks, strict=True):
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('implementation', ['plain', 'blockwise'])
def test_single_key_returns_its_value(implementation):
  queries, keys, values = _inputs(20, 1)
  mixed = attention.pixel_attention(
    queries, keys, values, implementation=implementation
  )
  np.testing.assert_array_equal(mixed, np.repeat(values, 20, axis=1))


def test_blockwise_is_stable_at_large_scores(monkeypatch):
  monkeypatch.setattr(blockwise, 'BLOCK', 8)
  inputs = _inputs(20, 30, scale=100.0)
  results = _value_and_gradients(inputs, 'blockwise')
  assert all(np.isfinite(x).all() for x in results)
  np.testing.assert_allclose(
    results[0], _numpy_attention(*inputs), atol=0.05, rtol=1e-3
  )


@pytest.mark.parametrize('count', [1, 31, 32, 33, 64, 65, 265])
def test_maximum_is_found_in_every_column(count):
  scores = np.full((count, count), -1e30, np.float32)
  np.fill_diagonal(scores, np.arange(count))
  np.testing.assert_array_equal(
    blockwise._row_maximum(jnp.asarray(scores)), np.arange(count)
  )


def test_blockwise_keeps_bfloat16(monkeypatch):
  monkeypatch.setattr(blockwise, 'BLOCK', 8)
  inputs = _inputs(20, 30)
  rounded = tuple(x.astype(jnp.bfloat16) for x in inputs)
  mixed = attention.pixel_attention(*rounded, implementation='blockwise')
  assert mixed.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    mixed.astype(jnp.float32), _numpy_attention(*inputs), atol=0.05, rtol=0.05
  )


def test_auto_follows_size_and_platform(monkeypatch):
  def choose(rows, columns, width=8, dtype=jnp.bfloat16):
    queries = jax.ShapeDtypeStruct((1, rows, 1, 8), dtype)
    keys = jax.ShapeDtypeStruct((1, columns, 1, 8), dtype)
    values = jax.ShapeDtypeStruct((1, columns, 1, width), dtype)
    return attention.choose_implementation(queries, keys, values)

  if jax.default_backend() == 'cpu':
    assert not attention._has_fused_kernel()
  monkeypatch.setattr(attention, '_has_fused_kernel', lambda: False)
  assert choose(480, 480) == 'plain'
  assert choose(7680, 480) == 'blockwise'
  monkeypatch.setattr(attention, '_has_fused_kernel', lambda: True)
  assert choose(480, 480) == 'plain'
  assert choose(7680, 480) == 'fused'
  assert choose(7680, 480, width=136) == 'blockwise'
  for longer in (jnp.float32, jnp.float64):
    assert choose(7680, 480, dtype=longer) == 'blockwise'


def test_fused_pads_to_a_supported_width(monkeypatch):
  kernel = jax.nn.dot_product_attention

  def stand_in(queries, keys, values, *, scale, implementation):
    assert implementation == 'cudnn'
    assert queries.dtype == keys.dtype == values.dtype == jnp.bfloat16
    assert keys.shape == values.shape and keys.shape[-1] == 16
    return kernel(queries, keys, values, scale=scale)

  monkeypatch.setattr(attention, '_has_fused_kernel', lambda: True)
  monkeypatch.setattr(jax.nn, 'dot_product_attention', stand_in)
  inputs = _inputs(40, 30, width=5, mixed=11)
  mixed = attention.pixel_attention(*inputs, implementation='fused')
  assert mixed.dtype == jnp.float32
  assert np.abs(mixed - _numpy_attention(*inputs)).max() < 2e-2


@pytest.mark.skipif(
  jax.default_backend() != 'gpu',
  reason='the fused kernel needs a CUDA GPU; see conftest.py',
)
def test_fused_kernel_is_close_to_float32():
  inputs = _inputs(960, 480, width=16, mixed=32)
  expected = _value_and_gradients(inputs, 'plain')
  actual = _value_and_gradients(inputs, 'fused')
  for one, other in zip(actual, expected, strict=True):
    assert np.abs(one - other).max() < 2e-2 * max(1, np.abs(other).max())


def test_wrong_shapes_raise():
  queries, keys, values = _inputs(6, 5)
  with pytest.raises(jaxtyping.TypeCheckError):
    attention.pixel_attention(queries, keys[..., :3], values)
  maps = jnp.zeros((1, 4, 6, 8))
  with pytest.raises(jaxtyping.TypeCheckError):
    _create().init(jax.random.key(0), maps, maps[:, :2])
  with pytest.raises(TypeError, match='reshape'):
    _create(heads=3).init(jax.random.key(0), maps, maps)


def _create(**options):
  defaults = {
    'heads': 2,
    'width': 8,
    'key_stride': 1,
    'gain_rate': 1.0,
    'implementation': 'auto',
  }
  return attention.SemanticGuidedAttention(**defaults | options)


def _module(key_stride=1, shape=(2, 6, 10, 12), **options):
  module = _create(key_stride=key_stride, **options)
  keys = jax.random.split(jax.random.key(0), 3)
  depth = jax.random.normal(keys[0], shape)
  semantic = jax.random.normal(keys[1], shape)
  variables = jax.jit(module.init)(keys[2], depth, semantic)
  return module, variables, depth, semantic


def _open_gains(variables, value=0.5):
  return jax.tree_util.tree_map_with_path(
    lambda path, x: jnp.full_like(x, value) if 'gain' in str(path[-1]) else x,
    variables,
  )


@pytest.mark.parametrize('key_stride, dtype', [(1, 'float32'), (4, 'bfloat16')])
def test_fresh_module_is_the_identity(key_stride, dtype):
  module, variables, depth, semantic = _module(key_stride, dtype=dtype)
  depth, semantic = depth.astype(dtype), semantic.astype(dtype)
  outputs = jax.jit(module.apply)(variables, depth, semantic)
  for output, features in zip(outputs, (depth, semantic), strict=True):
    assert output.dtype == dtype
    np.testing.assert_array_equal(output, features)


@pytest.mark.parametrize('rate', [1.0, 10.0])
def test_module_matches_its_formula(rate):
  key_stride = 4
  module, variables, depth, semantic = _module(key_stride, gain_rate=rate)
  variables = _open_gains(variables, value=0.5 / rate)
  outputs = jax.jit(module.apply)(variables, depth, semantic)
  params = jax.tree.map(np.asarray, variables['params'])

  def convolve(weights, x):
    return np.asarray(x) @ weights['kernel'][0, 0] + weights['bias']

  def by_head(name, x):
    return convolve(params[name]['conv'], x).reshape(2, -1, 2, 4)

  def pool(x):
    return attention.average_pool(x, key_stride)

  for output, features, branch in zip(
    outputs, (depth, semantic), ('depth', 'semantic'), strict=True
  ):
    mixed = _numpy_attention(
      by_head('query', semantic),
      by_head('key', pool(semantic)),
      by_head(f'{branch}_value', pool(features)),
    ).reshape(2, 6, 10, 8)
    update = convolve(params[f'{branch}_update']['project']['conv'], mixed)
    np.testing.assert_allclose(output, features + 0.5 * update, atol=1e-5)


def test_every_parameter_learns_with_nonzero_gains():
  module, variables, depth, semantic = _module(2)

  @jax.jit
  def gradients(variables):
    def loss(variables):
      outputs = module.apply(variables, depth, semantic)
      return sum(jnp.sum(jnp.sin(x)) for x in outputs)

    return jax.grad(loss)(variables)

  fresh = gradients(variables)['params']
  for branch in ('depth_update', 'semantic_update'):
    assert np.any(fresh[branch]['gain'] != 0)
  opened = gradients(_open_gains(variables))
  for path, gradient in jax.tree_util.tree_leaves_with_path(opened):
    assert np.isfinite(gradient).all(), path
    # The softmax does not see a constant added to all keys.
    if "['key']" not in str(path) or 'kernel' in str(path):
      assert np.any(gradient != 0), path


def test_average_pool():
  maps = jax.random.normal(jax.random.key(0), (2, 5, 7, 3))
  assert attention.average_pool(maps, 1) is maps
  pooled = attention.average_pool(maps, 3)
  assert pooled.shape == (2, 2, 3, 3)
  for row in range(2):
    for column in range(3):
      window = maps[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
      np.testing.assert_allclose(
        pooled[:, row, column], window.mean((1, 2)), atol=1e-6
      )


def test_affinity_is_a_map_of_weights_per_point():
  module, variables, _, semantic = _module(key_stride=4)
  points = jnp.asarray([[[0, 0], [9, 5]], [[3, 2], [3, 2]]])
  affinity = jax.jit(functools.partial(module.apply, method='affinity'))
  maps = affinity(variables, semantic, points)
  assert maps.shape == (2, 2, 2, 3)
  np.testing.assert_allclose(maps.sum((2, 3)), 1, atol=1e-6)
  np.testing.assert_array_equal(maps[1, 0], maps[1, 1])
  # A pixel attends most to the keys along its own query.
  params = dict(variables['params'])
  params['key'] = params['query']
  image = jnp.zeros_like(semantic).at[:, :, :4].set(3 * semantic[:, :1, :1])
  maps = affinity({'params': params}, image, points)
  assert maps[0, 0, 0, 0] > maps[0, 0, -1, -1]


def _gradient_memory(height, width, implementation):
  """MiB of working memory of the module's gradient, four images."""
  module = _create(heads=4, width=32, implementation=implementation)
  maps = jax.ShapeDtypeStruct((4, height, width, 32), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), maps, maps)

  def loss(variables, depth, semantic):
    outputs = module.apply(variables, depth, semantic)
    return sum(jnp.sum(jnp.square(x)) for x in outputs)

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
  compiled = gradient.lower(variables, maps, maps).compile()
  return compiled.memory_analysis().temp_size_in_bytes / 2**20


def test_memory_is_bounded_and_grows_linearly():
  large = _gradient_memory(48, 160, 'blockwise')
  assert large < 256  # One stored matrix per image and head: 3600.
  assert large < 4.5 * _gradient_memory(24, 80, 'blockwise')


def test_sharded_batch_is_not_gathered():
  mesh = jax.make_mesh(
    (jax.device_count(),), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  inputs = [
    jax.ShapeDtypeStruct(
      (jax.device_count(), *x.shape[1:]), x.dtype, sharding=batch
    )
    for x in _inputs(600, 520)
  ]

  def loss(*inputs):
    mixed = attention.pixel_attention(*inputs, implementation='blockwise')
    return jnp.sum(mixed**2)

  gradient = jax.jit(
    jax.grad(loss, argnums=(0, 1, 2)), out_shardings=(batch,) * 3
  )
  assert 'all-gather' not in gradient.lower(*inputs).compile().as_text()
