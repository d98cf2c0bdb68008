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
  best = inference.load(str(trained), checkpoint='best')(path)
  assert best.inverse_depth.shape == (40, 80)


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
  with pytest.raises(FileNotFoundError, match='has no config.json'):
    inference.load(tmp_path)
  with pytest.raises(ValueError, match='hf://owner/name'):
    inference.load('hf://owner/name')


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_images_of_more_than_8_bits(dtype):
  predictor = inference.Predictor(None, {}, (32, 64), False)
  with pytest.raises(ValueError, match='8 bits per channel'):
    predictor(np.zeros((4, 4), dtype))
