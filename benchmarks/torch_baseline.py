"""The baseline's training step in PyTorch, timed by `benchmarks.train_step`.

A compact Monodepth2 (arXiv 1806.01260): ResNet-18 depth and pose encoders,
four-scale decoder, warping by `grid_sample`, SSIM + L1, minimum reprojection
with auto-mask, Adam. It does the same work as our baseline's training step on
the same shapes and serves only to compare speed.
"""

import functools
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from benchmarks import measuring

_WIDTHS = (16, 32, 64, 128, 256)
_CHANNELS = (64, 64, 128, 256, 512)
_DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
_reflect_conv = functools.partial(
  nn.Conv2d, kernel_size=3, padding=1, padding_mode='reflect'
)


def _conv_norm(inputs, width, kernel, stride):
  conv = nn.Conv2d(inputs, width, kernel, stride, kernel // 2, bias=False)
  return nn.Sequential(conv, nn.BatchNorm2d(width))


class _Block(nn.Module):
  def __init__(self, inputs, width):
    super().__init__()
    stride = 1 if inputs == width else 2
    self.first = _conv_norm(inputs, width, 3, stride)
    self.second = _conv_norm(width, width, 3, 1)
    project = _conv_norm(inputs, width, 1, stride)
    self.shortcut = nn.Identity() if stride == 1 else project

  def forward(self, x):
    return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class _Encoder(nn.Module):
  def __init__(self, inputs):
    super().__init__()
    self.stem = _conv_norm(inputs, 64, 7, 2)
    self.stages = nn.ModuleList(
      nn.Sequential(_Block(inputs, width), _Block(width, width))
      for inputs, width in itertools.pairwise(_CHANNELS)
    )

  def forward(self, image):
    stem = F.relu(self.stem((image - 0.45) / 0.225))
    x, features = F.max_pool2d(stem, 3, 2, 1), [stem]
    for stage in self.stages:
      features.append(x := stage(x))
    return features


class _DepthDecoder(nn.Module):
  def __init__(self):
    super().__init__()
    self.first, self.second = nn.ModuleList(), nn.ModuleList()
    for i, width in enumerate(_WIDTHS):
      inputs = _CHANNELS[4] if i == 4 else _WIDTHS[i + 1]
      joined = width + (_CHANNELS[i - 1] if i else 0)
      self.first.append(_reflect_conv(inputs, width))
      self.second.append(_reflect_conv(joined, width))
    self.heads = nn.ModuleList(_reflect_conv(w, 1) for w in _WIDTHS[:4])

  def forward(self, features):
    x, outputs = features[-1], {}
    for i in range(4, -1, -1):
      x = F.interpolate(F.elu(self.first[i](x)), scale_factor=2)
      if i:
        x = torch.cat([x, features[i - 1]], 1)
      x = F.elu(self.second[i](x))
      if i < 4:
        outputs[i] = torch.sigmoid(self.heads[i](x).float())
    return [outputs[i] for i in range(4)]


class DepthNetwork(nn.Module):
  """Encoder and decoder; maps images to the disparity at full size."""

  def __init__(self):
    super().__init__()
    self.encoder, self.decoder = _Encoder(3), _DepthDecoder()

  def forward(self, images):
    """Maps `[B, 3, H, W]` in [0, 1] to `[B, 1, H, W]`."""
    return self.decoder(self.encoder(images))[0]


class _PoseNetwork(nn.Module):
  def __init__(self):
    super().__init__()
    self.encoder = _Encoder(6)
    convs = [nn.Conv2d(512, 256, 1)]
    convs += [nn.Conv2d(256, 256, 3, 1, 1) for _ in range(2)]
    layers = [layer for conv in convs for layer in (conv, nn.ReLU())]
    self.decoder = nn.Sequential(*layers, nn.Conv2d(256, 12, 1))

  def forward(self, first, second):
    x = self.decoder(self.encoder(torch.cat([first, second], 1))[-1])
    vector = 0.01 * x.mean((2, 3))
    return vector[:, :3].float(), vector[:, 3:6].float()


def make_step(case: measuring.Case) -> tuple[Callable[[], None], float]:
  """Returns a step with fresh weights, and 0 seconds to compile it.

  With bfloat16 only the networks compute in it (autocast), as ours do.
  """
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  torch.set_default_device(_DEVICE)

  half = case.dtype == 'bfloat16'
  autocast = functools.partial(torch.autocast, _DEVICE, torch.bfloat16, half)
  encoder, decoder, pose = _Encoder(3), _DepthDecoder(), _PoseNetwork()
  networks = nn.ModuleList([encoder, decoder, pose])
  optimizer = torch.optim.Adam(networks.parameters(), 1e-4)
  batch = measuring.random_batch(case)
  frames = torch.tensor(batch['frames']).permute(1, 0, 4, 2, 3).float() / 255
  intrinsics = torch.tensor(batch['intrinsics'])

  def train():
    optimizer.zero_grad()
    seen = _jitter(frames)
    with autocast():
      disparities = decoder(encoder(seen[0]))
      past, future = pose(seen[1], seen[0]), pose(seen[0], seen[2])
    past, future = _transform(*past, invert=True), _transform(*future)
    _loss(frames, disparities, intrinsics, (past, future)).backward()
    optimizer.step()

  def predict():
    with torch.no_grad(), autocast():
      decoder(encoder(frames[0]))

  def run():
    train() if case.work == 'train' else predict()
    if _DEVICE == 'cuda':
      torch.cuda.synchronize()  # PyTorch only queues its work there.

  networks.train(case.work == 'train')
  return run, 0.0


def describe_device() -> tuple[str, int]:
  """Returns the device's name and its peak memory in bytes, 0 on the CPU."""
  if _DEVICE == 'cpu':
    return '1 cpu', 0
  return f'1 {torch.cuda.get_device_name()}', torch.cuda.max_memory_allocated()


def _jitter(frames):
  """Jitters colours per example as torchvision does; a matrix turns the hue."""
  factors = 0.8 + 0.4 * torch.rand(3, 1, frames.shape[1], 1, 1, 1)
  grey = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
  images = (factors[0] * frames).clamp(0, 1)
  mean = (images * grey).sum(2, True).mean((3, 4), True)
  images = (mean + factors[1] * (images - mean)).clamp(0, 1)
  luma = (images * grey).sum(2, True)
  images = (luma + factors[2] * (images - luma)).clamp(0, 1)
  turn = torch.eye(3) + 0.05 * torch.randn(frames.shape[1], 3, 3)
  return torch.einsum('bij,fbjhw->fbihw', turn, images).clamp(0, 1)


def _loss(frames, disparities, intrinsics, transforms):
  target, sources = frames[0], frames[1:]
  identity = torch.cat([_photometric(s, target) for s in sources], 1)
  identity = identity + 1e-5 * torch.randn_like(identity)
  total, image = 0.0, target
  for scale, disparity in enumerate(disparities):
    full = F.interpolate(disparity, target.shape[2:], mode='bilinear')
    depth = 1 / (0.01 + 9.99 * full)
    distances = [
      _photometric(_warp(source, depth, intrinsics, transform), target)
      for source, transform in zip(sources, transforms, strict=True)
    ]
    total = total + torch.cat([identity, *distances], 1).min(1)[0].mean()
    total = total + 1e-3 / 2**scale * _smoothness(disparity, image)
    image = F.avg_pool2d(image, 2)
  return total / 4


def _photometric(x, y):
  pool = nn.AvgPool2d(3, 1)
  l1 = (x - y).abs().mean(1, True)
  x, y = (F.pad(image, (1, 1, 1, 1), 'reflect') for image in (x, y))
  mean_x, mean_y = pool(x), pool(y)
  var_x, var_y = pool(x**2) - mean_x**2, pool(y**2) - mean_y**2
  covariance = pool(x * y) - mean_x * mean_y
  ssim = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
  ssim = ssim / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))
  return 0.85 * ((1 - ssim) / 2).clamp(0, 1).mean(1, True) + 0.15 * l1


def _smoothness(disparity, image):
  disparity = disparity / (disparity.mean((2, 3), True) + 1e-7)
  total = 0.0
  for dim in (2, 3):
    weight = (-image.diff(dim=dim).abs().mean(1, True)).exp()
    total = total + (disparity.diff(dim=dim).abs() * weight).mean()
  return total


def _warp(source, depth, intrinsics, transform):
  batch, _, height, width = source.shape
  lines = torch.arange(height), torch.arange(width)
  y, x = torch.meshgrid(*lines, indexing='ij')
  grid = torch.stack([x, y, torch.ones_like(x)]).float().reshape(1, 3, -1)
  points = torch.linalg.inv(intrinsics) @ grid * depth.reshape(batch, 1, -1)
  points = intrinsics @ (transform[:, :3, :3] @ points + transform[:, :3, 3:])
  pixels = points[:, :2] / (points[:, 2:] + 1e-7)
  size = torch.tensor([width - 1, height - 1]).reshape(1, 2, 1)
  pixels = (2 * pixels / size - 1).mT.reshape(batch, height, width, 2)
  return F.grid_sample(
    source, pixels, padding_mode='border', align_corners=True
  )


def _transform(axis_angle, translation, *, invert=False):
  angle = axis_angle.norm(dim=1, keepdim=True)
  x, y, z = (axis_angle / (angle + 1e-7)).unbind(1)
  zero = torch.zeros_like(x)
  skew = [zero, -z, y, z, zero, -x, -y, x, zero]
  skew = torch.stack(skew, 1).reshape(-1, 3, 3)
  angle = angle[..., None]
  rotation = torch.eye(3) + angle.sin() * skew + (1 - angle.cos()) * skew @ skew
  if invert:
    rotation = rotation.transpose(1, 2)
    translation = -(rotation @ translation[..., None])[..., 0]
  return torch.cat([rotation, translation[..., None]], 2)
