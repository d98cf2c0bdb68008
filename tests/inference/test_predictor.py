"""Depth, classes and points of one image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from input_pipeline import images
from sgde_jax import metrics
from sgde_jax.inference import predictor as inference
from sgde_jax.inference import steps
from sgde_jax.ops import geometry
from sgde_jax.weights import initial
from tests.support import predictions, runs


def _ramp(height=6, width=8):
  inverse_depth = np.linspace(0.1, 0.5, height * width, dtype=np.float32)
  return inference.Prediction(inverse_depth.reshape(height, width), None)


@pytest.mark.slow
def test_three_lines_predict_an_image(trained, root, tmp_path):
  path = predictions.write_image(tmp_path / 'a.png')
  predictor = inference.load(trained)
  prediction = predictor(path)
  depth = prediction.depth()
  assert depth.shape == prediction.labels.shape == (40, 80)
  assert depth.dtype == np.float32 and prediction.labels.dtype == np.uint8
  # The same as the steps' output, resized.
  config = runs.make_config(root)
  model, state = initial.load_trained(config, trained, runs.one_device_mesh())
  frames = images.read_frame(path, height=32, width=64)[None]
  predict = jax.jit(functools.partial(steps.predict_step, model=model))
  expected = predict(state.variables, frames)
  np.testing.assert_allclose(
    prediction.inverse_depth,
    metrics.depth.resize_bilinear(expected.inverse_depth[0], (40, 80)),
    rtol=1e-4,
  )
  labels = images.resize_nearest(
    np.asarray(expected.labels[0]), height=40, width=80
  )
  assert np.mean(prediction.labels == labels) > 0.99
  # Path, PIL image and array are the same image.
  with Image.open(path) as image:
    for same in (str(path), image, np.asarray(image)):
      again = predictor(same)
      np.testing.assert_array_equal(again.depth(), depth)
      np.testing.assert_array_equal(again.labels, prediction.labels)
    assert np.mean(predictor.labels(image) == prediction.labels) > 0.99
  _check_batches(predictor, tmp_path)
  best = inference.load(str(trained), checkpoint='best')(path)
  assert best.inverse_depth.shape == (40, 80)


def _check_batches(predictor, tmp_path):
  """Checks that predictions do not depend on the batch."""
  rng = np.random.default_rng(1)
  frames = rng.integers(0, 256, (5, 40, 80, 3), np.uint8)
  taken = []

  def camera():
    for number in range(40):
      taken.append(number)
      yield frames[number % 5]

  alone = predictor(frames[3])
  found = predictor.map(camera(), batch_size=4)
  first = [next(found) for _ in range(4)]
  assert len(taken) < 40  # Memory is bounded.
  many = [*predictor.map(frames), *predictor.map(list(frames), batch_size=2)]
  assert len([*first, *found]) == 40 and len(many) == 10
  for prediction in (first[3], many[3], many[8]):
    np.testing.assert_allclose(
      prediction.inverse_depth, alone.inverse_depth, rtol=1e-5
    )
    assert np.mean(prediction.labels == alone.labels) > 0.99
  sizes = [(40, 80), (33, 50)]
  paths = [
    predictions.write_image(tmp_path / f'{height}.png', size=(height, width))
    for height, width in sizes
  ]
  assert [x.inverse_depth.shape for x in predictor.map(paths)] == sizes
  # Poses of the pairs, whatever the batch.
  poses = predictor.trajectory(frames, batch_size=2)
  assert poses.shape == (5, 4, 4)
  np.testing.assert_array_equal(poses[0], np.eye(4))
  motion = np.linalg.inv(poses[3]) @ poses[4]
  np.testing.assert_allclose(
    motion, predictor.trajectory(frames[3:])[1], atol=1e-5
  )
  with pytest.raises(ValueError, match='at least two frames'):
    predictor.trajectory(frames[:1])


@pytest.mark.slow
def test_any_devices(root, trained):
  frames = np.random.default_rng(0).integers(0, 256, (3, 40, 80, 3), np.uint8)
  last, config = jax.devices()[-1], runs.make_config(root)
  one, other = inference.load(trained), inference.load(trained, device=last)
  two = inference.restore(config, trained, jax.local_devices()[:2])
  assert jax.tree.leaves(other._variables)[0].devices() == {last}
  expected = [prediction.inverse_depth for prediction in one.map(frames)]
  for predictor in (other, two):  # Three rows on two devices are padded.
    for found, depth in zip(
      predictor.map(frames, batch_size=3), expected, strict=True
    ):
      np.testing.assert_allclose(found.inverse_depth, depth, rtol=1e-5)
  with pytest.raises(RuntimeError, match='quantum'):
    inference.load(trained, device='quantum')


def test_depth_has_the_given_scale():
  prediction = _ramp()
  for scale, depth in ((1, prediction.depth()), (30, prediction.depth(30.0))):
    np.testing.assert_allclose(
      depth * prediction.inverse_depth, np.full((6, 8), scale), rtol=1e-6
    )


def test_points_project_to_their_own_pixels():
  prediction = _ramp()
  intrinsics = np.array([[7.0, 0, 3.2], [0, 6.0, 2.1], [0, 0, 1]])
  points = prediction.points(intrinsics, scale=5.0)
  assert points.shape == (48, 3) and points.dtype == np.float32
  np.testing.assert_allclose(
    points[:, 2], prediction.depth(5.0).reshape(-1), rtol=1e-6
  )
  # A rotated and moved source camera sees them where geometry projects them.
  transform = geometry.pose_vector_to_matrix(
    jnp.array([[0.02, -0.1, 0.05]]), jnp.array([[0.3, -0.2, 0.4]])
  )
  depth = jnp.asarray(prediction.depth(5.0))[None, ..., None]
  pixels = geometry.project_to_source(
    depth, jnp.asarray(intrinsics)[None], transform
  )
  transform = np.asarray(transform[0])
  seen = points @ transform[:3, :3].T + transform[:3, 3]
  seen = seen @ intrinsics.T
  np.testing.assert_allclose(
    (seen[:, :2] / seen[:, 2:]).reshape(6, 8, 2), pixels[0], atol=1e-4
  )


def test_folder_without_weights(tmp_path):
  with pytest.raises(FileNotFoundError, match='has neither config.json'):
    inference.load(tmp_path)
  with pytest.raises(ValueError, match='gs://bucket/run is a URL'):
    inference.load('gs://bucket/run')


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_images_of_more_than_8_bits(dtype):
  mesh = runs.one_device_mesh()
  predictor = inference.Predictor(None, {}, (32, 64), False, mesh)
  with pytest.raises(ValueError, match='8 bits per channel'):
    predictor(np.zeros((4, 4), dtype))
