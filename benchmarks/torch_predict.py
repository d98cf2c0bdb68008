"""Monodepth2's prediction script in PyTorch, timed by `benchmarks.predict`.

  python -m benchmarks.torch_predict WEIGHTS IMAGE FOLDER

The loop is that of its `test_simple.py`: Pillow decodes and resizes, the
disparity is resized to the image and drawn by matplotlib's magma. It writes
the files that ours writes.
"""

import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator

import matplotlib.cm
import matplotlib.colors
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import nn

from benchmarks import torch_baseline


def make_network() -> nn.Module:
  """Returns the baseline's depth network with fresh weights."""
  torch.manual_seed(0)
  return torch_baseline.DepthNetwork()


def load(weights: pathlib.Path) -> nn.Module:
  """Reads the network's state dict from a file."""
  network = make_network()
  network.load_state_dict(torch.load(weights, weights_only=True))
  return network.eval()


def read(
  source: pathlib.Path,
) -> Iterator[tuple[str, pathlib.Path | Image.Image]]:
  """Yields the named images of a folder, an image or a video."""
  if source.suffix == '.mp4':
    from sgde_jax.inference import video

    with video.open_reader(source) as reader:
      for frame in reader.frames:
        yield f'{frame.number:06d}', Image.fromarray(frame.image)
    return
  paths = sorted(source.iterdir()) if source.is_dir() else [source]
  yield from ((path.stem, path) for path in paths)


@torch.no_grad()
def predict(
  network: nn.Module,
  sources: Iterable[tuple[str, pathlib.Path | Image.Image]],
  output: pathlib.Path,
  *,
  size: tuple[int, int],
  batch: int = 1,
) -> None:
  """Writes `NAME.npy` and `NAME.png` for named images, given or at paths.

  `size` is the network's (width, height).
  """
  output.mkdir(parents=True, exist_ok=True)
  sources = iter(sources)
  while chosen := list(itertools.islice(sources, batch)):
    names, images = zip(*chosen, strict=True)
    images = [_decode(image) for image in images]
    inputs = [
      np.asarray(image.resize(size, Image.Resampling.LANCZOS))
      for image in images
    ]
    inputs = torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2).float()
    disparities = network(inputs / 255)
    for name, image, disparity in zip(names, images, disparities, strict=True):
      full = F.interpolate(
        disparity[None], (image.height, image.width), mode='bilinear'
      )
      _write(output / name, full[0, 0].numpy())


def _decode(image):
  if isinstance(image, Image.Image):
    return image
  with Image.open(image) as opened:
    return opened.convert('RGB')


def _write(path, disparity):
  np.save(path.with_suffix('.npy'), 0.01 + 9.99 * disparity)
  norm = matplotlib.colors.Normalize(
    vmin=disparity.min(), vmax=np.percentile(disparity, 95)
  )
  mapper = matplotlib.cm.ScalarMappable(norm=norm, cmap='magma')
  picture = (mapper.to_rgba(disparity)[:, :, :3] * 255).astype(np.uint8)
  Image.fromarray(picture).save(path.with_suffix('.png'))


if __name__ == '__main__':
  weights, image, folder = map(pathlib.Path, sys.argv[1:])
  predict(load(weights), read(image), folder, size=(640, 192))
