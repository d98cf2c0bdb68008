"""Flip and colour jitter: invariants, changes and random draws."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from sgde_jax.ops import augmentation

BATCH, FRAMES, HEIGHT, WIDTH = 4, 3, 4, 6
DEFAULTS = {
  'flip_probability': 0.5,
  'jitter_probability': 0.5,
  'brightness': 0.2,
  'contrast': 0.2,
  'saturation': 0.2,
  'hue': 0.1,
  'whole_batch': False,
}
NO_CHANGE = {
  'brightness': np.ones(BATCH, np.float32),
  'contrast': np.ones(BATCH, np.float32),
  'saturation': np.ones(BATCH, np.float32),
  'hue': np.zeros(BATCH, np.float32),
}


flip = jax.jit(augmentation.flip)
_augment_compiled = jax.jit(
  augmentation.augment, static_argnames=('whole_batch',)
)


@jax.jit
def _jitter(images, factors):
  return augmentation.jitter(images, **factors)


def _augment(seed=0, inputs=None, **options):
  images, intrinsics, labels = _inputs() if inputs is None else inputs
  return _augment_compiled(
    jax.random.key(seed), images, intrinsics, labels, **(DEFAULTS | options)
  )


def _inputs(batch=BATCH):
  rng = np.random.default_rng(0)
  images = rng.uniform(size=(batch, FRAMES, HEIGHT, WIDTH, 3))
  intrinsics = np.array([[5, 0, 1.2], [0, 6, 1.7], [0, 0, 1]], np.float32)
  labels = rng.integers(0, 19, (batch, HEIGHT, WIDTH), np.uint8)
  return (
    images.astype(np.float32),
    np.broadcast_to(intrinsics, (batch, 3, 3)),
    labels,
  )


def _luma(images):
  return images @ np.array([0.299, 0.587, 0.114], np.float32)


def test_zero_strength_changes_nothing():
  images, intrinsics, labels = _inputs()
  clean, jittered, cameras, masks = _augment(
    flip_probability=0.0,
    jitter_probability=1.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
  )
  np.testing.assert_array_equal(clean, images)
  np.testing.assert_allclose(jittered, images, atol=1e-5)
  np.testing.assert_array_equal(cameras, intrinsics)
  np.testing.assert_array_equal(masks, labels)


def test_zero_probability_returns_the_clean_frames():
  clean, jittered, _, _ = _augment(jitter_probability=0.0)
  np.testing.assert_array_equal(jittered, clean)


def test_frames_for_the_losses_are_never_jittered():
  images, _, _ = _inputs()
  clean, jittered, _, _ = _augment(flip_probability=0.0, jitter_probability=1.0)
  np.testing.assert_array_equal(clean, images)
  assert np.all(np.abs(jittered - images).max(axis=(1, 2, 3, 4)) > 0.01)


def test_flip_mirrors_image_camera_and_labels_together():
  images, intrinsics, labels = _inputs()
  flipped = np.array([True, False, True, False])
  out_images, out_intrinsics, out_labels = flip(
    images, intrinsics, labels, flipped
  )
  for row in range(BATCH):
    mirror = slice(None, None, -1 if flipped[row] else 1)
    np.testing.assert_array_equal(out_images[row], images[row, :, :, mirror])
    np.testing.assert_array_equal(out_labels[row], labels[row, :, mirror])
    centre = WIDTH - 1 - 1.2 if flipped[row] else 1.2
    expected = [[5, 0, centre], [0, 6, 1.7], [0, 0, 1]]
    np.testing.assert_allclose(out_intrinsics[row], expected, rtol=1e-6)


def test_flipped_camera_matches_the_flipped_image():
  # One bright pixel, one label and the ray through them.
  images, intrinsics, labels = (np.zeros_like(a) for a in _inputs(1))
  intrinsics = intrinsics + _inputs(1)[1]
  images[0, :, 2, 1], labels[0, 2, 1] = 1, 7
  point = 3.0 * np.linalg.inv(intrinsics[0]) @ (1, 2, 1)
  images, intrinsics, labels = flip(
    images, intrinsics, labels, np.array([True])
  )
  x, y, z = np.asarray(intrinsics[0]) @ (point * (-1, 1, 1))
  column, row = round(float(x / z)), round(float(y / z))
  assert np.all(images[0, :, row, column] == 1)
  assert labels[0, row, column] == 7


def test_frames_of_an_example_share_one_draw():
  images, intrinsics, labels = _inputs()
  images = np.broadcast_to(images[:1, :1], images.shape)  # All frames equal.
  labels = np.broadcast_to(labels[:1], labels.shape)
  clean, jittered, cameras, _ = _augment(
    inputs=(images, intrinsics, labels), jitter_probability=1.0
  )
  for outputs in (clean, jittered):
    np.testing.assert_array_equal(
      outputs, np.broadcast_to(outputs[:, :1], outputs.shape)
    )
  # Undo the flips: examples then differ only in their colours.
  flipped = cameras[:, 0, 2] != intrinsics[:, 0, 2]
  assert 0 < flipped.sum() < BATCH
  aligned = [
    np.asarray(frames[0])[:, ::-1] if mirror else np.asarray(frames[0])
    for frames, mirror in zip(jittered, flipped, strict=True)
  ]
  for row in range(1, BATCH):
    assert np.abs(aligned[row] - aligned[0]).max() > 0.01


def test_whole_batch_can_share_one_draw():
  images, intrinsics, labels = _inputs()
  images = np.broadcast_to(images[:1], images.shape)
  labels = np.broadcast_to(labels[:1], labels.shape)
  flipped, changed = set(), set()
  for seed in range(8):
    outputs = _augment(seed, (images, intrinsics, labels), whole_batch=True)
    for output in outputs:
      np.testing.assert_array_equal(
        output, np.broadcast_to(output[:1], output.shape)
      )
    clean, jittered, _, _ = outputs
    flipped.add(bool(np.any(clean != images)))
    changed.add(bool(np.any(jittered != clean)))
  assert flipped == changed == {False, True}


def test_result_depends_only_on_the_key():
  first, again, other = _augment(3), _augment(3), _augment(4)
  for a, b in zip(first, again, strict=True):
    np.testing.assert_array_equal(a, b)
  assert np.any(first[1] != other[1])


def test_probabilities_match_the_options():
  images, _, _ = _inputs()
  flipped, jittered = [], []
  for seed in range(100):
    clean, coloured, _, _ = _augment(
      seed, flip_probability=0.25, jitter_probability=0.75
    )
    flipped.append(np.any(np.asarray(clean) != images, axis=(1, 2, 3, 4)))
    jittered.append(np.any(np.asarray(coloured != clean), axis=(1, 2, 3, 4)))
  assert 0.18 < np.mean(flipped) < 0.32
  assert 0.68 < np.mean(jittered) < 0.82


@pytest.mark.parametrize('strength', [0.2, 0.9])
def test_range_is_kept(strength):
  images, intrinsics, labels = _inputs()
  images = np.round(images)  # Black, white and saturated colours.
  _, jittered, _, _ = _augment(
    inputs=(images, intrinsics, labels),
    jitter_probability=1.0,
    brightness=strength,
    contrast=strength,
    saturation=strength,
    hue=0.5,
  )
  assert np.all((jittered >= 0) & (jittered <= 1))


def test_grey_has_no_saturation_and_no_hue():
  grey = np.repeat(_inputs()[0][..., :1], 3, axis=-1)
  factors = NO_CHANGE | {
    'saturation': np.array([0, 0.5, 1.5, 2], np.float32),
    'hue': np.array([-0.3, 0.1, 0.25, 0.5], np.float32),
  }
  np.testing.assert_allclose(_jitter(grey, factors), grey, atol=1e-5)


def test_each_factor_changes_its_property():
  images = 0.25 + 0.5 * _inputs()[0]
  half, none = np.full(BATCH, 0.5, np.float32), np.zeros(BATCH, np.float32)
  np.testing.assert_allclose(
    _jitter(images, NO_CHANGE | {'brightness': half}), images / 2, atol=1e-5
  )
  mean = _luma(images).mean(axis=(2, 3))[:, :, None, None, None]
  np.testing.assert_allclose(
    _jitter(images, NO_CHANGE | {'contrast': half}),
    (images + mean) / 2,
    atol=1e-5,
  )
  np.testing.assert_allclose(
    _jitter(images, NO_CHANGE | {'saturation': none}),
    np.repeat(_luma(images)[..., None], 3, axis=-1),
    atol=1e-5,
  )


def test_hue_turn_keeps_luma_and_a_full_turn_changes_nothing():
  images = 0.4 + 0.2 * _inputs()[0]
  full = np.array([1, -1, 2, 0], np.float32)
  np.testing.assert_allclose(
    _jitter(images, NO_CHANGE | {'hue': full}), images, atol=1e-5
  )
  turned = _jitter(images, NO_CHANGE | {'hue': full / 4 + 0.125})
  np.testing.assert_allclose(
    _luma(np.asarray(turned)), _luma(images), atol=1e-5
  )
  assert np.abs(turned - images).max() > 0.01


def test_wrong_ranks_raise():
  images, intrinsics, labels = _inputs()
  with pytest.raises(jaxtyping.TypeCheckError):
    augmentation.flip(images[0], intrinsics, labels, jnp.zeros(3, bool))
