"""The baseline's training step in PyTorch, for timing beside ours.

Monodepth2 as its authors published it (arXiv 1806.01260), written compactly:
ResNet-18 depth and pose encoders, four-scale decoder, warping by
`grid_sample`, SSIM + L1, minimum reprojection with auto-mask, Adam. It does
the same work as `sgde_jax.steps.train_step` on the same shapes; it is not
used for anything but its speed.
"""

import functools

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

_WIDTHS = (16, 32, 64, 128, 256)
_SKIPS = (64, 64, 128, 256, 512)


class Block(nn.Module):
  """ResNet's basic block."""

  def __init__(self, inputs, width, stride):
    """Creates the layers."""
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.shortcut = nn.Identity()
    if stride != 1 or inputs != width:
      self.shortcut = nn.Sequential(
        nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
      )

  def forward(self, x):
    """Maps `[B, C, H, W]` to `[B, width, H / stride, W / stride]`."""
    y = F.relu(self.bn1(self.conv1(x)))
    return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Encoder(nn.Module):
  """ResNet-18 without its classifier."""

  def __init__(self, inputs):
    """Creates the layers."""
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, 64, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    self.stages = nn.ModuleList()
    previous = 64
    for index, width in enumerate((64, 128, 256, 512)):
      stride = 2 if index else 1
      self.stages.append(
        nn.Sequential(Block(previous, width, stride), Block(width, width, 1))
      )
      previous = width

  def forward(self, image):
    """Returns five features."""
    x = F.relu(self.bn1(self.conv1((image - 0.45) / 0.225)))
    features = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in self.stages:
      x = stage(x)
      features.append(x)
    return features


class DepthDecoder(nn.Module):
  """Four-scale disparity decoder."""

  def __init__(self):
    """Creates the layers."""
    super().__init__()
    self.first, self.second = nn.ModuleList(), nn.ModuleList()
    for i, width in enumerate(_WIDTHS):
      inputs = _SKIPS[4] if i == 4 else _WIDTHS[i + 1]
      joined = width + (_SKIPS[i - 1] if i else 0)
      self.first.append(_reflect_conv(inputs, width))
      self.second.append(_reflect_conv(joined, width))
    self.heads = nn.ModuleList(_reflect_conv(w, 1) for w in _WIDTHS[:4])

  def forward(self, features):
    """Returns the disparities of scales 0..3."""
    x, outputs = features[-1], {}
    for i in range(4, -1, -1):
      x = F.interpolate(F.elu(self.first[i](x)), scale_factor=2)
      if i:
        x = torch.cat([x, features[i - 1]], 1)
      x = F.elu(self.second[i](x))
      if i < 4:
        outputs[i] = torch.sigmoid(self.heads[i](x).float())
    return [outputs[i] for i in range(4)]


class PoseNetwork(nn.Module):
  """ResNet-18 on a frame pair and the pose decoder."""

  def __init__(self):
    """Creates the layers."""
    super().__init__()
    self.encoder = Encoder(6)
    self.decoder = nn.Sequential(
      nn.Conv2d(512, 256, 1),
      nn.ReLU(),
      nn.Conv2d(256, 256, 3, 1, 1),
      nn.ReLU(),
      nn.Conv2d(256, 256, 3, 1, 1),
      nn.ReLU(),
      nn.Conv2d(256, 12, 1),
    )

  def forward(self, first, second):
    """Returns axis-angle and translation `[B, 3]`."""
    x = self.decoder(self.encoder(torch.cat([first, second], 1))[-1])
    vector = 0.01 * x.mean((2, 3))
    return vector[:, :3].float(), vector[:, 3:6].float()


def make_step(work, width, height, batch_size, dtype):
  """Returns a function that makes one step of `train` or `predict`.

  On the GPU where PyTorch sees one, else on the CPU. With bfloat16 the networks
  alone compute in it (autocast), as ours do.
  """
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  torch.set_default_device(_platform())
  networks = functools.partial(
    torch.autocast,
    _platform(),
    dtype=torch.bfloat16,
    enabled=dtype == 'bfloat16',
  )
  encoder, decoder, pose = Encoder(3), DepthDecoder(), PoseNetwork()
  parts = [encoder, decoder, pose]
  parameters = [p for part in parts for p in part.parameters()]
  optimizer = torch.optim.Adam(parameters, 1e-4)
  frames = torch.rand(3, batch_size, 3, height, width)
  intrinsics = torch.tensor(
    [
      [0.58 * width, 0, 0.5 * width],
      [0, 1.92 * height, 0.5 * height],
      [0, 0, 1],
    ]
  ).expand(batch_size, 3, 3)

  def train():
    optimizer.zero_grad()
    seen = _jitter(frames)
    with networks():
      disparities = decoder(encoder(seen[0]))
      past, future = pose(seen[1], seen[0]), pose(seen[0], seen[2])
    transforms = [
      _transform(*past, invert=True),
      _transform(*future, invert=False),
    ]
    _loss(frames, disparities, intrinsics, transforms).backward()
    optimizer.step()
    _wait()

  def predict():
    with torch.no_grad(), networks():
      decoder(encoder(frames[0]))
    _wait()

  if work == 'predict':
    for part in parts:
      part.eval()
    return predict
  return train


def describe_device():
  """Returns the device's name and its peak memory in bytes, 0 on the CPU."""
  if _platform() == 'cpu':
    return 'cpu', 0
  return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()


def _platform():
  return 'cuda' if torch.cuda.is_available() else 'cpu'


def _wait():
  """Until the GPU is done: PyTorch only queues its work there."""
  if _platform() == 'cuda':
    torch.cuda.synchronize()


def _jitter(frames):
  """Brightness, contrast, saturation and hue, a draw per example.

  What torchvision does to each picture in turn, for the whole batch at once
  (its hue turns HSV, which takes longer than this matrix).
  """
  factors = 0.8 + 0.4 * torch.rand(3, 1, frames.shape[1], 1, 1, 1)
  grey = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
  images = (factors[0] * frames).clamp(0, 1)
  mean = (images * grey).sum(2, True).mean((3, 4), True)
  images = (mean + factors[1] * (images - mean)).clamp(0, 1)
  luma = (images * grey).sum(2, True)
  images = (luma + factors[2] * (images - luma)).clamp(0, 1)
  turn = torch.eye(3) + 0.05 * torch.randn(frames.shape[1], 3, 3)
  return torch.einsum('bij,fbjhw->fbihw', turn, images).clamp(0, 1)


def _reflect_conv(inputs, outputs):
  return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode='reflect')


def _loss(frames, disparities, intrinsics, transforms):
  target, sources = frames[0], frames[1:]
  identity = torch.cat([_photometric(s, target) for s in sources], 1)
  identity = identity + 1e-5 * torch.randn_like(identity)
  total, image = 0.0, target
  for scale, disparity in enumerate(disparities):
    full = F.interpolate(
      disparity, target.shape[2:], mode='bilinear', align_corners=False
    )
    depth = 1 / (0.01 + 9.99 * full)
    rebuilt = [
      _warp(source, depth, intrinsics, transform)
      for source, transform in zip(sources, transforms, strict=True)
    ]
    distances = [_photometric(frame, target) for frame in rebuilt]
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
    contrast = image.diff(dim=dim).abs().mean(1, True)
    total = total + (disparity.diff(dim=dim).abs() * (-contrast).exp()).mean()
  return total


def _warp(source, depth, intrinsics, transform):
  batch, _, height, width = source.shape
  y, x = torch.meshgrid(
    torch.arange(height), torch.arange(width), indexing='ij'
  )
  grid = torch.stack([x, y, torch.ones_like(x)]).float().reshape(1, 3, -1)
  points = torch.linalg.inv(intrinsics) @ grid * depth.reshape(batch, 1, -1)
  points = transform[:, :3, :3] @ points + transform[:, :3, 3:]
  points = intrinsics @ points
  pixels = points[:, :2] / (points[:, 2:] + 1e-7)
  size = torch.tensor([width - 1, height - 1]).reshape(1, 2, 1)
  pixels = (2 * pixels / size - 1).transpose(1, 2)
  return F.grid_sample(
    source,
    pixels.reshape(batch, height, width, 2),
    padding_mode='border',
    align_corners=True,
  )


def _transform(axis_angle, translation, *, invert):
  angle = axis_angle.norm(dim=1, keepdim=True)
  x, y, z = (axis_angle / (angle + 1e-7)).unbind(1)
  zero = torch.zeros_like(x)
  skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1)
  skew = skew.reshape(-1, 3, 3)
  angle = angle[..., None]
  rotation = torch.eye(3) + angle.sin() * skew + (1 - angle.cos()) * skew @ skew
  if invert:
    rotation = rotation.transpose(1, 2)
    translation = -(rotation @ translation[..., None])[..., 0]
  return torch.cat([rotation, translation[..., None]], 2)
