"""Depth and classes of one image: `load`, `Predictor`, `Prediction`."""

import dataclasses
import functools
import os
import pathlib

import flax.traverse_util
import jax
import ml_collections
import numpy as np
from PIL import Image

from input_pipeline import files, images
from sgde_jax import configuration, metrics, models, parallel
from sgde_jax.configs import baseline, default
from sgde_jax.inference import steps
from sgde_jax.weights import initial, published

ImageSource = str | os.PathLike | Image.Image | np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The prediction for an image, at the image's own size.

  Attributes:
    inverse_depth: `[H, W]` float32 in 1/metres, up to the training's unknown
      scale.
    labels: `[H, W]` uint8 train ids 0..18; None without semantics.
  """

  inverse_depth: np.ndarray
  labels: np.ndarray | None

  def depth(self, scale: float | None = None) -> np.ndarray:
    """Returns depth `[H, W]` float32, which is relative without `scale`.

    `scale` is the number of metres per unit of the network, such as the median
    ratio of an evaluation.
    """
    return np.float32(1 if scale is None else scale) / self.inverse_depth

  def points(
    self, intrinsics: np.ndarray, scale: float | None = None
  ) -> np.ndarray:
    """Returns the pixels, row by row, as points of the camera's frame.

    Args:
      intrinsics: `[3, 3]`, in pixels of the image; pixel centres at integers.
      scale: as for `depth`.

    Returns:
      `[H * W, 3]` float32: x right, y down, z forward, in the unit of `depth`.
    """
    height, width = self.inverse_depth.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
    rays = pixels @ np.linalg.inv(np.asarray(intrinsics, np.float64)).T
    return (rays * self.depth(scale).reshape(-1, 1)).astype(np.float32)


class Predictor:
  """A trained network on one device, which resizes images to (height, width).

  With `flip` it averages with the prediction of the mirrored image.
  """

  def __init__(self, model, variables: dict, size: tuple[int, int], flip: bool):
    self._variables = jax.device_put(variables)
    self._size, self._flip = size, flip
    self._predict = parallel.jit(
      functools.partial(steps.predict_step, model=model, flip=flip)
    )
    self._label = parallel.jit(functools.partial(steps.label_step, model=model))

  def __call__(self, image: ImageSource) -> Prediction:
    """Predicts a PIL image, `[H, W, 3]` uint8 RGB, or the picture at a path.

    A picture read from a path is rotated upright by its EXIF data.

    Raises:
      ValueError: if the image is unreadable or has over 8 bits per channel.
    """
    image = _to_rgb(image)
    found = jax.device_get(self._predict(self._variables, self._frames(image)))
    inverse_depth = found.inverse_depth[0]
    if self._flip:
      inverse_depth = metrics.depth.flip_post_process(*inverse_depth)
    size = image.height, image.width
    inverse_depth = metrics.depth.resize_bilinear(inverse_depth, size)
    labels = None if found.labels is None else _resize(found.labels[0], image)
    return Prediction(inverse_depth.astype(np.float32), labels)

  def labels(self, image: ImageSource) -> np.ndarray:
    """Predicts the labels alone, which takes less time."""
    image = _to_rgb(image)
    found = self._label(self._variables, self._frames(image))
    return _resize(np.asarray(found[0]), image)

  def _frames(self, image):
    height, width = self._size
    return images.resize_frame(image, height=height, width=width)[None]


def load(source: str | os.PathLike, *, checkpoint: str = 'latest') -> Predictor:
  """Loads a trained network.

  Args:
    source: the workdir of a run, or a folder of weights in Monodepth2's
      published layout (`encoder.pth`, `depth.pth`, or `.npz`).
    checkpoint: of a run, 'latest' or 'best' (lowest abs_rel).

  Raises:
    FileNotFoundError: if the folder holds neither.
    ValueError: if `source` is a URL, or the weights are damaged or do not fit.
  """
  files.check_local(source)
  folder = pathlib.Path(source).expanduser()
  overrides = {'eval.checkpoint': checkpoint}
  if (folder / 'config.json').is_file():
    config = configuration.resolve(default.get_config(), folder, overrides)
    configuration.check(config)
    return restore(config, folder)
  parts = published.read_parts(folder)
  if not parts:
    raise FileNotFoundError(f'{folder} has no config.json and no encoder.pth')
  config, size = baseline.get_config(), published.trained_size(parts)
  data, mesh = config.data, parallel.create_mesh(jax.local_devices()[:1])
  model = models.create_model(config.model, frame_offsets=data.frame_offsets)
  wanted = initial.template(config, model, mesh).variables
  weights = published.match_weights(parts, wanted)
  variables = flax.traverse_util.unflatten_dict(weights, sep='/')
  size = size or (data.height, data.width)
  return Predictor(model, variables, size, config.eval.flip)


def restore(
  config: ml_collections.ConfigDict, workdir: str | os.PathLike
) -> Predictor:
  """Loads a checkpoint of a run, see `weights.initial.load_trained`."""
  mesh = parallel.create_mesh(jax.local_devices()[:1])
  model, state = initial.load_trained(config, workdir, mesh)
  size = config.data.height, config.data.width
  return Predictor(model, state.variables, size, config.eval.flip)


def _to_rgb(image):
  if isinstance(image, str | os.PathLike):
    return images.turn_upright(images.decode_frame(image))
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  if image.mode.startswith(('I', 'F')):  # Converting would clip its values.
    raise ValueError(f'images need 8 bits per channel, not mode {image.mode}')
  return image.convert('RGB')


def _resize(labels, image):
  return images.resize_nearest(labels, height=image.height, width=image.width)
