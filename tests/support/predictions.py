"""Images and videos to predict, and the messages of failed predictions."""

import fractions

import numpy as np
import pytest
from PIL import Image

from sgde_jax.inference import images, video
from tests.support import runs


def write_image(path, *, size=(40, 80), seed=0):
  """Writes random pixels; returns the path."""
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)
  return path


def failure(root, error, source, output, workdir='none', **options):
  """Returns the message of the error that a prediction raises."""
  with pytest.raises(error) as caught:
    images.predict(runs.make_config(root), workdir, source, output, **options)
  return str(caught.value)


def write_video(path, *, frames=3, size=(40, 80)):
  """Writes random frames; returns the path."""
  random = np.random.default_rng(0)
  with video.open_writer(path) as write:
    for number in range(frames):
      picture = random.integers(0, 256, (*size, 3), np.uint8)
      write(picture, fractions.Fraction(number, 10))
  return path


def read_video(path):
  """Returns the frames of a video and their times in seconds."""
  with video.open_reader(path) as reader:
    frames = list(reader.frames)
  return [frame.image for frame in frames], [frame.time for frame in frames]
