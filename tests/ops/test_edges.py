"""Semantic edges and the points on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgde_jax.metrics import borders
from sgde_jax.ops import edges

_SIZE = (12, 20)


@functools.partial(jax.jit, static_argnames='count')
def _sample(seed, mask, count):
  return edges.sample_edge_points(jax.random.key(seed), mask, count)


def _labels(seed, unlabelled=0.2):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 3, (2, 6, 10)).astype(np.uint8)
  labels = labels.repeat(2, 1).repeat(2, 2)
  labels[rng.random(labels.shape) < unlabelled] = 255
  return labels


def _masks():
  """Edge maps of 4 images: a few pixels, half of them, none, all."""
  rng = np.random.default_rng(0)
  shares = np.array([0.05, 0.5, 0, 1]).reshape(4, 1, 1)
  return rng.random((4, *_SIZE)) < shares


def _reference(labels, width):
  """Edges of one image, pixel by pixel."""
  height, columns = labels.shape

  def neighbours(y, x):
    for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
      if 0 <= v < height and 0 <= u < columns:
        yield v, u

  found = np.zeros(labels.shape, bool)
  for y, x in np.argwhere(labels != 255):
    others = {labels[n] for n in neighbours(y, x)} - {255, labels[y, x]}
    found[y, x] = bool(others)
  for _ in range(width - 1):
    grown = found.copy()
    for y, x in np.argwhere(labels != 255):
      grown[y, x] |= any(found[n] for n in neighbours(y, x))
    found = grown
  return found


@pytest.mark.parametrize('width', [1, 3])
def test_edges_match_the_definition(width):
  labels = _labels(0)
  actual = edges.semantic_edges(jnp.asarray(labels), width=width)
  assert actual.shape == labels.shape and actual.dtype == bool
  expected = [_reference(image, width) for image in labels]
  np.testing.assert_array_equal(actual, expected)


def test_edges_agree_with_the_metrics():
  labels = _labels(1, unlabelled=0)
  for width in (1, 2):
    actual = edges.semantic_edges(jnp.asarray(labels), width=width)
    distance = [borders.border_distance(image) for image in labels]
    np.testing.assert_array_equal(actual, np.array(distance) <= width)


def test_unlabelled_pixels_are_not_edges_and_create_none():
  row = np.array([[[0, 0, 255, 1, 1, 1, 2, 2, 255, 2]]], np.uint8)
  narrow = edges.semantic_edges(jnp.asarray(row), width=1)
  assert np.flatnonzero(narrow).tolist() == [5, 6]
  wide = edges.semantic_edges(jnp.asarray(row), width=5)
  assert np.flatnonzero(wide).tolist() == [3, 4, 5, 6, 7]
  for value in (0, 255):
    flat = jnp.full((1, 3, 4), value, jnp.uint8)
    assert not edges.semantic_edges(flat, width=2).any()


@pytest.mark.parametrize('count', [50, 300])
def test_sampled_points(count):
  masks = _masks()
  height, width = _SIZE
  for seed in range(3):
    points, valid = map(np.asarray, _sample(seed, masks, count))
    assert points.shape == (4, count, 2) and points.dtype == np.int32
    assert valid.shape == (4, count) and valid.dtype == bool
    assert (points >= 0).all() and (points < [width, height]).all()
    for mask, image_points, image_valid in zip(
      masks, points, valid, strict=True
    ):
      expected = min(count, mask.sum())
      assert image_valid.sum() == expected and image_valid[:expected].all()
      x, y = image_points[image_valid].T
      assert mask[y, x].all()
      assert len(set(zip(x, y, strict=True))) == expected


def test_sampling_is_a_function_of_the_key():
  masks = _masks()
  first, again, other = (_sample(seed, masks, 50)[0] for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.any(first[1] != other[1])
  twins = jnp.asarray(np.stack([masks[1], masks[1]]))
  points, _ = _sample(0, twins, 50)
  assert np.any(points[0] != points[1])


def test_sampling_is_uniform():
  mask = _masks()[1]
  count, rounds = 30, 64
  masks = np.broadcast_to(mask, (rounds, *_SIZE))
  hits = np.zeros(_SIZE, int)
  draws = 5
  for seed in range(draws):
    points, valid = map(np.asarray, _sample(seed, masks, count))
    assert valid.all()
    np.add.at(hits, (points[..., 1], points[..., 0]), 1)
  assert not hits[~mask].any()
  share = count / mask.sum()
  trials = rounds * draws
  # Binomial per pixel: the mean is exact, the spread as drawn independently.
  deviation = (hits[mask] - trials * share) / np.sqrt(
    trials * share * (1 - share)
  )
  assert abs(deviation.mean()) < 1e-6
  assert np.abs(deviation).max() < 4.5
  assert 0.8 < deviation.std() < 1.2


@pytest.mark.parametrize('count', [7, 500])
def test_ordered_chunks_contain_every_edge_once(count):
  masks = _masks()
  chunk = jax.jit(edges.ordered_edge_points, static_argnums=2)
  found = [[] for _ in masks]
  starts = range(0, 240, count)
  for start in starts:
    points, valid = map(np.asarray, chunk(masks, start, count))
    assert points.shape == (4, count, 2)
    assert (points >= 0).all() and (points < [*reversed(_SIZE)]).all()
    for image, image_points, image_valid in zip(
      found, points, valid, strict=True
    ):
      image.extend(image_points[image_valid])
  for image, mask in zip(found, masks, strict=True):
    expected = np.argwhere(mask)[:, ::-1]
    np.testing.assert_array_equal(np.reshape(image, (-1, 2)), expected)


def test_sharded_batch_is_not_gathered():
  mesh = jax.make_mesh(
    (jax.device_count(),), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  labels = jax.ShapeDtypeStruct(
    (jax.device_count(), *_SIZE), jnp.uint8, sharding=batch
  )

  def draw(labels):
    mask = edges.semantic_edges(labels, width=2)
    return edges.sample_edge_points(jax.random.key(0), mask, 64)

  program = jax.jit(draw, out_shardings=(batch, batch)).lower(labels)
  assert 'all-gather' not in program.compile().as_text()


def test_values_come_from_inside_the_same_segment():
  labels = np.zeros((1, 4, 12), np.uint8)
  labels[:, :, 6:] = 13
  slope = jnp.tile(jnp.arange(12.0), (1, 4, 1))[..., None]
  for width in (1, 2):
    band = edges.semantic_edges(jnp.asarray(labels), width=width)
    values, known = edges.from_inside(
      slope, jnp.asarray(labels), band, rounds=width
    )
    expected = np.arange(12.0)
    expected[6 - width : 6] = 5 - width
    expected[6 : 6 + width] = 6 + width
    assert known.all()
    np.testing.assert_allclose(values[0, :, :, 0], np.tile(expected, (4, 1)))


def test_values_do_not_cross_borders_and_stop_after_the_rounds():
  labels = np.zeros((1, 5, 9), np.uint8)
  labels[:, :, 4] = 5  # A pole, all edge: it has no inside.
  maps = jnp.where(jnp.asarray(labels) == 5, 7.0, 1.0)[..., None]
  band = edges.semantic_edges(jnp.asarray(labels), width=2)
  assert np.flatnonzero(band[0, 0]).tolist() == [2, 3, 4, 5, 6]
  values, known = edges.from_inside(maps, jnp.asarray(labels), band, rounds=9)
  np.testing.assert_array_equal(known, labels != 5)
  np.testing.assert_array_equal(values[..., 0], np.where(known, 1, 0))
  _, known = edges.from_inside(maps, jnp.asarray(labels), band, rounds=1)
  assert np.flatnonzero(~known[0, 0]).tolist() == [3, 4, 5]


def test_values_inside_are_means_of_neighbours():
  labels = np.zeros((1, 1, 3), np.uint8)
  maps = jnp.array([1.0, 9.0, 4.0]).reshape(1, 1, 3, 1)
  band = jnp.array([False, True, False]).reshape(1, 1, 3)
  values, known = edges.from_inside(maps, jnp.asarray(labels), band, rounds=1)
  assert known.all()
  np.testing.assert_allclose(values.ravel(), [1, 2.5, 4])
