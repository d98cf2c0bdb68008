"""Golden values of the baseline, see tests/data/README.md."""

import contextlib
import pathlib
import zlib

import jax
import numpy as np

_BLOCKS = {18: ((2, 2, 2, 2), 1), 50: ((3, 4, 6, 3), 4)}
_FOLDER = pathlib.Path(__file__).parents[1] / 'data'


def load(name):
  """Returns the arrays of `data/NAME.npz` as a dict."""
  with np.load(_FOLDER / f'{name}.npz') as data:
    return dict(data)


@contextlib.contextmanager
def precision(dtype):
  """Switches JAX to 64 bit while a float64 check runs."""
  with jax.enable_x64(dtype == 'float64'):
    yield


def weights(module, name, shape, seed):
  """Draws the tensor `name` of a published PyTorch state dict."""
  key = zlib.crc32(f'{module}.{name}'.encode())
  z = np.random.default_rng([seed, key]).standard_normal(shape)
  z = z.astype(np.float32)
  if len(shape) == 4:
    scale = np.sqrt(2 / np.prod(shape[1:]))
    return (z * scale).astype(np.float32)
  if name.endswith('running_var'):
    return (1 + 0.1 * np.abs(z)).astype(np.float32)
  if len(shape) == 2:
    return (z * np.sqrt(1 / shape[1])).astype(np.float32)
  if name.endswith('weight'):
    return (1 + 0.1 * z).astype(np.float32)
  return (0.1 * z).astype(np.float32)


def encoder_shapes(layers, channels):
  """Names and shapes of torchvision's ResNet, prefix `encoder.`."""
  shapes = {'encoder.conv1.weight': (64, channels, 7, 7)}

  def norm(name, width):
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
      shapes[f'encoder.{name}.{leaf}'] = (width,)

  norm('bn1', 64)
  depths, expansion = _BLOCKS[layers]
  previous = 64
  for stage, depth in enumerate(depths):
    width = 64 * 2**stage
    for block in range(depth):
      name = f'layer{stage + 1}.{block}'
      if expansion == 1:
        convs = [(width, previous, 3), (width, width, 3)]
      else:
        convs = [(width, previous, 1), (width, width, 3), (4 * width, width, 1)]
      for i, (out, into, size) in enumerate(convs, start=1):
        shapes[f'encoder.{name}.conv{i}.weight'] = (out, into, size, size)
        norm(f'{name}.bn{i}', out)
      out = width * expansion
      if block == 0 and out != previous:
        shapes[f'encoder.{name}.downsample.0.weight'] = (out, previous, 1, 1)
        norm(f'{name}.downsample.1', out)
      previous = out
  shapes['encoder.fc.weight'] = (1000, previous)
  shapes['encoder.fc.bias'] = (1000,)
  return shapes


def _conv(name, out, into, size):
  return {f'{name}.weight': (out, into, size, size), f'{name}.bias': (out,)}


def depth_shapes(layers):
  """Names and shapes of Monodepth2's depth decoder."""
  widths, expansion = (16, 32, 64, 128, 256), _BLOCKS[layers][1]
  skips = [64] + [w * expansion for w in (64, 128, 256, 512)]
  shapes = {}
  for index, level in enumerate(reversed(range(5))):
    into = skips[4] if level == 4 else widths[level + 1]
    joined = widths[level] + (skips[level - 1] if level > 0 else 0)
    shapes |= _conv(f'decoder.{2 * index}.conv.conv', widths[level], into, 3)
    shapes |= _conv(
      f'decoder.{2 * index + 1}.conv.conv', widths[level], joined, 3
    )
  for scale in range(4):
    shapes |= _conv(f'decoder.{10 + scale}.conv', 1, widths[scale], 3)
  return shapes


def pose_shapes():
  """Names and shapes of Monodepth2's pose decoder."""
  return (
    _conv('net.0', 256, 512, 1)
    | _conv('net.1', 256, 256, 3)
    | _conv('net.2', 256, 256, 3)
    | _conv('net.3', 12, 256, 1)
  )


def published_parts(layers, seed):
  """Part -> state dict of a golden network, as published weights."""
  shapes = {
    'encoder': encoder_shapes(layers, 3),
    'depth': depth_shapes(layers),
    'pose_encoder': encoder_shapes(18, 6),
    'pose': pose_shapes(),
  }
  parts = {
    part: {
      name: weights(part, name, shape, seed) for name, shape in tensors.items()
    }
    for part, tensors in shapes.items()
  }
  parts['encoder'] |= {'height': 192, 'width': 640, 'use_stereo': False}
  parts['encoder']['encoder.bn1.num_batches_tracked'] = np.int64(3)
  return parts
