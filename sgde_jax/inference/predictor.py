"""Depth and classes of images: `load`, `Predictor`, `Prediction`."""

import collections
import dataclasses
import functools
import itertools
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import flax.traverse_util
import jax
import ml_collections
import numpy as np
from flax import linen as nn
from PIL import Image

from input_pipeline import images, progress
from sgde_jax import configuration, metrics, models, parallel
from sgde_jax.configs import baseline, default
from sgde_jax.inference import steps
from sgde_jax.metrics import trajectories
from sgde_jax.weights import initial, published

T = TypeVar('T')
ImageSource = str | os.PathLike | Image.Image | np.ndarray
_Arrays = tuple[np.ndarray | None, np.ndarray | None]


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


def _to_rgb(image):
  if isinstance(image, str | os.PathLike):
    return images.turn_upright(images.decode_frame(image))
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  if image.mode.startswith(('I', 'F')):  # Converting would clip its values.
    raise ValueError(f'images need 8 bits per channel, not mode {image.mode}')
  return image.convert('RGB')


class Predictor:
  """A trained network, which resizes images to (height, width).

  With `flip` it averages with the prediction of the mirrored image. Each batch
  is split over the devices of the mesh.

  Attributes:
    step: the training step of its checkpoint; None for published weights.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: dict,
    size: tuple[int, int],
    flip: bool,
    mesh: jax.sharding.Mesh,
    step: int | None = None,
  ):
    self.step = step
    self._variables = jax.device_put(variables, parallel.replicated(mesh))
    self._size, self._flip, self._mesh = size, flip, mesh

    def compile_step(step, **options):
      step = functools.partial(step, model=model, **options)
      return parallel.start_by_rows(step, mesh)

    self._predict = compile_step(steps.predict_step, flip=flip)
    self._label = compile_step(steps.label_step)
    self._move = compile_step(steps.motion_step)

  def __call__(self, image: ImageSource) -> Prediction:
    """Predicts a PIL image, `[H, W, 3]` uint8 RGB, or the picture at a path.

    A picture read from a path is rotated upright by its EXIF data.

    Raises:
      ValueError: if the image is unreadable or has over 8 bits per channel.
    """
    (prediction,) = self.map([image], batch_size=1)
    return prediction

  def map(
    self, images: Iterable[ImageSource], *, batch_size: int = 8
  ) -> Iterator[Prediction]:
    """Predicts many images; yields a `Prediction` for each, in order.

    It reads the next images in threads while the network runs, so it takes some
    images more from an iterator than it has yielded predictions.

    Args:
      images: images as for a call, of any sizes: a list, an array
        `[B, H, W, 3]` uint8, or an iterator such as the frames of a camera.
      batch_size: images that the network predicts at a time.

    Raises:
      ValueError: at an image that cannot be read.
    """
    found = self.stream(images, _to_rgb, batch_size=batch_size)
    yield from progress.in_order(
      lambda item: Prediction(*item[2]()), found, ahead=2 * progress.THREADS
    )

  def labels(self, image: ImageSource) -> np.ndarray:
    """Predicts the labels alone, which takes less time."""
    found = self.stream([image], _to_rgb, batch_size=1, labels_only=True)
    ((_, _, finish),) = found
    return finish()[1]

  def trajectory(
    self,
    images: Iterable[T],
    *,
    batch_size: int = 8,
    read: Callable[[T], Image.Image | None] = _to_rgb,
  ) -> np.ndarray:
    """Predicts the camera's path through the frames of a video.

    Args:
      images: the frames in temporal order, as for `map`, two or more.
      batch_size: pairs of frames that the network predicts at a time.
      read: returns the RGB image of an element, or None to leave it out.

    Returns:
      Poses `[N, 4, 4]` float64, camera to world, in metres up to the training's
      unknown scale; the world is the first frame's camera.

    Raises:
      ValueError: if there are fewer than two frames, or the weights have no
        pose network.
      FloatingPointError: if a motion is not finite.
    """
    if 'pose' not in self._variables['params']:
      raise ValueError('the weights have no pose network')
    frames = (frame for _, _, frame in self._read(images, read, batch_size))
    motions = []
    for pairs in _batches(
      map(np.stack, itertools.pairwise(frames)), batch_size
    ):
      found = self._start(self._move, pairs, batch_size)
      motions.append(np.asarray(found)[: len(pairs)])
    if not motions:
      raise ValueError('a trajectory needs at least two frames')
    motions = np.concatenate(motions)
    if not np.isfinite(motions).all():
      raise FloatingPointError('a motion between two frames is not finite')
    return trajectories.chain(motions)

  def stream(
    self,
    items: Iterable[T],
    read: Callable[[T], Image.Image | None],
    *,
    batch_size: int,
    labels_only: bool = False,
  ) -> Iterator[tuple[T, Image.Image, Callable[[], _Arrays]]]:
    """Predicts items while it reads the next ones in threads.

    Args:
      items: what to read, taken a little ahead.
      read: returns an item's RGB image, or None to leave it out.
      batch_size: images that the network predicts at a time.
      labels_only: whether to predict labels alone, which takes less time.

    Yields:
      The item, its image, and a function that returns inverse depth and labels,
      as in `Prediction`; it resizes them, so call it in a thread.
    """
    step = self._label if labels_only else self._predict
    waiting = collections.deque()
    for batch in _batches(self._read(items, read, batch_size), batch_size):
      found = self._start(step, [frame for _, _, frame in batch], batch_size)
      waiting.append((batch, found))
      if len(waiting) == 2:  # The device has the next batch already.
        yield from self._rows(*waiting.popleft())
    while waiting:
      yield from self._rows(*waiting.popleft())

  def _read(self, items, read, batch_size):
    """Yields items, their images and resized frames, read ahead in threads."""

    def prepare(item):
      image = read(item)
      return item, image, None if image is None else self._resize(image)

    ahead = batch_size + progress.THREADS
    for found in progress.in_order(prepare, items, ahead=ahead):
      if found[1] is not None:
        yield found

  def _start(self, step, frames, batch_size):
    """Starts a step for frames; repeats the last one to fill the batch."""
    batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
    frames = frames + frames[-1:] * (batch_size - len(frames))
    return step(self._variables, np.stack(frames))

  def _rows(self, batch, found):
    found = jax.device_get(found)
    if isinstance(found, np.ndarray):
      found = steps.BatchPrediction(None, found)
    for row, (item, image, _) in enumerate(batch):
      arrays = jax.tree.map(operator.itemgetter(row), found)
      yield item, image, functools.partial(self._finish, arrays, image.size)

  def _finish(self, found, size):
    """Resizes arrays to an image's (width, height)."""
    (width, height), (inverse_depth, labels) = size, vars(found).values()
    if inverse_depth is not None:
      if self._flip:
        inverse_depth = metrics.depth.flip_post_process(*inverse_depth)
      inverse_depth = metrics.depth.resize_bilinear(
        inverse_depth, (height, width)
      ).astype(np.float32)
    if labels is not None:
      labels = images.resize_nearest(labels, height=height, width=width)
    return inverse_depth, labels

  def _resize(self, image):
    height, width = self._size
    return images.resize_frame(image, height=height, width=width)


def load(
  source: str | os.PathLike,
  *,
  checkpoint: str = 'latest',
  device: jax.Device | str | None = None,
) -> Predictor:
  """Loads a trained network.

  Args:
    source: the workdir of a run; or published weights: a folder that
      `--mode=publish` wrote, one in Monodepth2's layout (`encoder.pth`,
      `depth.pth`, or other types), or a single `.safetensors` file; or
      `hf://OWNER/REPO[/FILE]` for them on the Hugging Face hub.
    checkpoint: of a run, 'latest' or 'best' (lowest abs_rel).
    device: what to predict on, a device or the name of a platform (`cpu`,
      `gpu`, `tpu`); by default JAX's first device.

  Raises:
    FileNotFoundError: if there are no weights.
    OSError: if they cannot be downloaded.
    ValueError: if `source` is another URL, or the weights are damaged or do not
      fit.
  """
  parallel.cache_programs()
  if isinstance(device, jax.Device):
    devices = [device]
  else:
    devices = jax.local_devices(backend=device)[:1]
  source = published.fetch(source)
  folder = source if source.is_dir() else source.parent
  config = baseline.get_config()  # Of weights without a config: Monodepth2's.
  if (folder / 'config.json').is_file():
    overrides = {'eval.checkpoint': checkpoint}
    config = configuration.resolve(default.get_config(), folder, overrides)
    configuration.check(config)
    if source.is_dir():
      return restore(config, source, devices)
  parts = published.read_parts(source)
  if not parts:
    raise FileNotFoundError(
      f'{source} has neither config.json nor encoder.pth and depth.pth'
    )
  size = published.trained_size(parts)
  data, mesh = config.data, parallel.create_mesh(devices)
  model = models.create_model(config.model, frame_offsets=data.frame_offsets)
  wanted = initial.template(config, model, mesh).variables
  weights = published.match_weights(parts, wanted)
  variables = flax.traverse_util.unflatten_dict(weights, sep='/')
  size = size or (data.height, data.width)
  return Predictor(model, variables, size, config.eval.flip, mesh)


def restore(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  devices: list[jax.Device],
) -> Predictor:
  """Loads a checkpoint of a run, see `weights.initial.load_trained`."""
  mesh = parallel.create_mesh(devices)
  if devices[0].platform != jax.default_backend():
    config = config.copy_and_resolve_references()
    # The one attention that every platform has.
    config.model.attention.implementation = 'blockwise'
  model, state = initial.load_trained(config, workdir, mesh)
  size, step = (config.data.height, config.data.width), int(state.step)
  flip = config.eval.flip
  return Predictor(model, state.variables, size, flip, mesh, step)


def _batches(items, size):
  items = iter(items)
  while batch := list(itertools.islice(items, size)):
    yield batch
