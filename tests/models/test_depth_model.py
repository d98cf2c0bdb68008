"""The assembled method: its switches, SEEM in it, and its gradients."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgde_jax import models
from sgde_jax.configs import ablation, baseline, default
from sgde_jax.ops import edges

_SIZE = (32, 64)
_POINTS = 64


def _config(part='full'):
  config = ablation.get_config(part).model
  config.seem.points, config.seem.chunk = _POINTS, 100
  return config


def _frames(count=3):
  return jax.random.uniform(jax.random.key(0), (2, count, *_SIZE, 3))


def _shapes(config):
  model = models.create_model(config)
  return jax.eval_shape(
    lambda key: model.init(key, jnp.zeros((1, 3, *_SIZE, 3)), train=False),
    jax.random.key(0),
  )


@pytest.fixture(name='full', scope='module')
def fixture_full():
  """The full model, its fresh variables, and `apply` jitted by mode."""
  model = models.create_model(_config())
  variables = jax.jit(
    lambda frames: model.init(jax.random.key(1), frames, train=False)
  )(_frames())

  @jax.jit
  def train(variables, frames, key):
    return model.apply(
      variables,
      frames,
      train=True,
      mutable=['batch_stats'],
      rngs={'points': key},
    )[0]

  @jax.jit
  def predict(variables, frames):
    return model.apply(variables, frames, train=False)

  return variables, train, predict


def _opened(variables, seed=2):
  """Variables with random gains and residuals and very mixed classes."""
  rng = np.random.default_rng(seed)
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: _open_leaf(path, leaf, rng), variables
  )


def _open_leaf(path, leaf, rng):
  names = [key.key for key in path]
  if names[-1] == 'gain' or names[-2] == 'residual':
    return jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype)
  return 30 * leaf if names[1] == 'semantic_head' else leaf


def test_switches_add_and_remove_whole_parts():
  params = {name: _shapes(_config(name))['params'] for name in ablation.PARTS}
  parts = {
    name: {key.rstrip('_0123456789') for key in keys}
    for name, keys in params.items()
  }
  plain = {'encoder', 'depth_levels', 'disparity_heads', 'pose'}
  semantic = {'semantic_levels', 'semantic_head'}
  assert parts == {
    'baseline': plain,
    'semantics': plain | semantic,
    'attention': plain | semantic | {'attentions'},
    'seem': plain | semantic | {'refiner'},
    'full': plain | semantic | {'attentions', 'refiner'},
  }
  levels = {key for key in params['full'] if key.startswith('attentions')}
  assert levels == {'attentions_2', 'attentions_3', 'attentions_4'}


def test_reference_setting_is_the_full_method():
  assert ablation.get_config('full').to_dict() == (
    default.get_config().to_dict()
  )
  assert ablation.get_config('baseline').model.to_dict() == (
    baseline.get_config().model.to_dict()
  )


def test_unknown_part_raises():
  with pytest.raises(SystemExit, match='attention, seem, full'):
    ablation.get_config('everything')


@pytest.mark.parametrize(
  ('field', 'value'),
  [('attention.levels', (2,)), ('seem.enabled', True)],
)
def test_parts_without_semantics_raise(field, value):
  config = baseline.get_config().model
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match='need config.model.semantics'):
    models.create_model(config)


@pytest.mark.slow
def test_fresh_method_predicts_like_the_baseline(full):
  variables, _, predict = full
  plain = models.create_model(baseline.get_config().model)
  shapes = _shapes(baseline.get_config().model)
  shared = {
    kind: {name: variables[kind][name] for name in shapes[kind]}
    for kind in shapes
  }
  wanted = jax.jit(
    lambda variables, frames: plain.apply(variables, frames, train=False)
  )(shared, _frames())
  found = predict(variables, _frames())
  assert wanted.enhanced_disparity is None and wanted.logits is None
  for ours, theirs in zip(
    (*found.disparities, found.axis_angle, found.translation, found.disparity),
    (
      *wanted.disparities,
      wanted.axis_angle,
      wanted.translation,
      wanted.disparity,
    ),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_prediction_refines_exactly_the_edges(full):
  variables, _, predict = full
  outputs = predict(_opened(variables), _frames(1))
  assert outputs.logits.shape == (2, *_SIZE, 19)
  assert outputs.points is None
  labels = jnp.argmax(outputs.logits, axis=-1)
  edge = np.asarray(edges.semantic_edges(labels, width=1))
  assert edge.sum(axis=(1, 2)).min() > 100, 'several chunks'
  coarse = np.asarray(outputs.disparities[0][..., 0])
  enhanced = np.asarray(outputs.enhanced_disparity[..., 0])
  np.testing.assert_array_equal(enhanced[~edge], coarse[~edge])
  assert (enhanced[edge] != coarse[edge]).mean() > 0.99
  assert ((enhanced > 0) & (enhanced < 1)).all()
  again = predict(_opened(variables), _frames(1))
  np.testing.assert_array_equal(again.enhanced_disparity, enhanced[..., None])
  config = _config()
  config.seem.chunk = 0  # All pixels, without a loop.
  dense = jax.jit(
    functools.partial(models.create_model(config).apply, train=False)
  )(_opened(variables), _frames(1))
  np.testing.assert_allclose(
    dense.enhanced_disparity[..., 0], enhanced, atol=1e-5
  )


@pytest.mark.slow
def test_training_refines_the_points_it_draws(full):
  variables, train, _ = full
  outputs = train(_opened(variables), _frames(), jax.random.key(3))
  assert outputs.points.shape == (2, _POINTS, 2)
  assert outputs.point_mask.all()
  drawn = np.zeros((2, *_SIZE), bool)
  for image, points in zip(drawn, np.asarray(outputs.points), strict=True):
    image[points[:, 1], points[:, 0]] = True
  assert drawn.sum() == 2 * _POINTS
  labels = jnp.argmax(outputs.logits, axis=-1)
  assert np.asarray(edges.semantic_edges(labels, width=1))[drawn].all()
  change = outputs.enhanced_disparity - outputs.disparities[0]
  np.testing.assert_array_equal(change[..., 0] != 0, drawn)


@pytest.mark.slow
def test_training_reads_the_inside_of_each_points_own_segment(full):
  variables, train, _ = full
  outputs = train(_opened(variables), _frames(), jax.random.key(3))
  labels = jnp.argmax(outputs.logits, axis=-1)
  values, known = edges.from_inside(
    outputs.disparity_logits[0],
    labels,
    edges.semantic_edges(labels, width=1),
    rounds=_config().seem.edge_width + 1,
  )
  image, (x, y) = np.arange(2)[:, None], np.moveaxis(outputs.points, -1, 0)
  np.testing.assert_array_equal(outputs.inside_mask, known[image, y, x])
  assert 0 < np.mean(outputs.inside_mask) < 1
  np.testing.assert_allclose(
    outputs.inside_logits, values[image, y, x], rtol=1e-6
  )
  np.testing.assert_allclose(
    jax.nn.sigmoid(outputs.point_logits),
    outputs.enhanced_disparity[image, y, x],
    rtol=1e-6,
  )


@pytest.mark.slow
def test_points_depend_on_the_key(full):
  variables, train, _ = full
  variables = _opened(variables)
  first, again, other = (
    np.asarray(train(variables, _frames(), jax.random.key(k)).points)
    for k in (3, 3, 4)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


def test_applies_without_a_key():
  model = models.create_model(_config())
  outputs = jax.eval_shape(
    lambda variables: model.apply(
      variables, _frames(), train=True, mutable=['batch_stats']
    )[0],
    _shapes(_config()),
  )
  assert outputs.points.shape == (2, _POINTS, 2)


@pytest.mark.slow
def test_enhanced_disparity_has_no_gradient_to_its_surroundings(full):
  """All gradients of the network come through the points."""
  variables, _, _ = full
  model = models.create_model(_config())

  opened = _opened(variables)

  @jax.jit
  def pull(weights):
    def total(variables):
      outputs, _ = model.apply(
        variables, _frames(), train=True, mutable=['batch_stats']
      )
      return jnp.sum(weights * outputs.enhanced_disparity), outputs.points

    return jax.grad(total, has_aux=True)(opened)

  away = np.ones((2, *_SIZE, 1), np.float32)
  _, drawn = pull(away)
  for image, points in zip(away, np.asarray(drawn), strict=True):
    image[points[:, 1], points[:, 0]] = 0
  for weights, reached in ((away, False), (1 - away, True)):
    pulled = pull(weights)[0]['params']
    for part in ('refiner', 'encoder', 'depth_levels_0', 'semantic_levels_0'):
      largest = max(abs(x).max() for x in jax.tree.leaves(pulled[part]))
      assert (largest > 0) == reached, part


@pytest.mark.slow
def test_attention_maps_are_weights_at_each_level(full):
  variables, _, _ = full
  config = _config()
  config.attention.key_stride = 8
  model = models.create_model(config)
  points = jnp.tile(jnp.array([[[0, 0], [63, 31], [20, 10]]]), (2, 1, 1))
  maps = jax.jit(
    lambda variables: model.apply(
      variables, _frames()[:, 0], points, method='attention_maps'
    )
  )(variables)
  assert {level: m.shape for level, m in maps.items()} == {
    4: (2, 3, 2, 4),
    3: (2, 3, 4, 8),
    2: (2, 3, 4, 8),
  }
  for weights in maps.values():
    np.testing.assert_allclose(weights.sum((2, 3)), 1, rtol=1e-5)


@pytest.mark.slow
def test_segment_equals_the_classes_of_a_call_without_depth(full):
  variables, _, predict = full
  variables = _opened(variables)
  wanted = predict(variables, _frames()).logits
  depth = ('depth', 'disparity_heads', 'refiner', 'pose')
  flat = flax.traverse_util.flatten_dict(variables)
  kept = flax.traverse_util.unflatten_dict(
    {
      path: leaf
      for path, leaf in flat.items()
      if not any(name.startswith(depth) for name in path)
    }
  )
  assert len(jax.tree.leaves(kept)) < 0.7 * len(flat)
  model = models.create_model(_config())
  logits = jax.jit(
    lambda variables: model.apply(
      variables, _frames()[:, 0], train=False, method='segment'
    )
  )(kept)  # Flax raises where a parameter is missing.
  np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-2)
