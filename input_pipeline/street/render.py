"""Renders a frame of a scene: colour, depth and labels."""

import dataclasses

import numpy as np

from input_pipeline.street import ground, layout, objects, visibility

_SUN = np.array([0.42, -0.5, 0.76])
_LOOK = 'label', 'texture', 'repeat', 'offset', 'size', 'tint', 'detail'
_DETAIL = 2.3  # metres that a tile of the fine grain spans


@dataclasses.dataclass(frozen=True)
class Frame:
  """One rendered frame."""

  image: np.ndarray  # [H, W, 3] uint8, filtered over each pixel
  # [H, W] float64, metres along the optical axis at the pixel's centre, 0 =
  # sky or beyond 250 m.
  depth: np.ndarray
  labels: np.ndarray  # [H, W] uint8, train ids at the pixel's centre


def intrinsics(height: int, width: int) -> np.ndarray:
  """Returns KITTI's camera at another size: [3, 3] float64, pixels."""
  x, y = [0.58 * width, 0, 0.491 * width], [0, 1.92 * height, 0.46 * height]
  return np.array([x, y, [0, 0, 1.0]])


def render_frame(
  scene: layout.Scene, frame: int, *, height: int, width: int
) -> Frame:
  """Renders the frame of this number."""
  pose = scene.motion.camera_to_world[frame]
  view = visibility.View(
    position=pose[:3, 3],
    rotation=pose[:3, :3],
    intrinsics=intrinsics(height, width),
    height=height,
    width=width,
  )
  bodies = scene.body_pose[frame]
  moved = visibility.to_world(scene.moving, bodies)
  surfaces = visibility.project(view, np.concatenate([scene.fixed, moved]))
  # Small frames have room for more samples, and thin objects need them.
  samples = 3 if width >= 400 else 5
  ids = visibility.rasterise(view, surfaces, samples)
  points = _sample_points(ids)
  depth, labels, colour = _shade(scene, view, surfaces, points, bodies)
  count = height * width
  image = colour[:count]
  if len(points.mixed):
    weighted = colour[count:] * points.weight[:, None]
    image[points.mixed] = np.add.reduceat(weighted, points.starts)
  image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
  return Frame(
    image=image.reshape(height, width, 3),
    depth=depth[:count].reshape(height, width),
    labels=labels[:count].reshape(height, width),
  )


@dataclasses.dataclass(frozen=True)
class _Points:
  """Where to shade: all pixel centres, then each surface in mixed pixels."""

  ids: np.ndarray  # [H W + G] surface ids
  x: np.ndarray  # [H W + G] pixels
  y: np.ndarray  # [H W + G] pixels
  pixel: np.ndarray  # [H W + G] the flat index of the pixel
  mixed: np.ndarray  # [M] flat indices of the pixels that see several surfaces
  starts: np.ndarray  # [M] the first of each such pixel's G surfaces
  weight: np.ndarray  # [G] float32, each surface's share of its pixel


def _sample_points(ids):
  """Shades once per surface and pixel, at the centroid of its samples."""
  height, samples, width, _ = ids.shape
  middle = samples // 2
  centre = ids[:, middle, :, middle]
  mixed = np.zeros((height, width), bool)
  for i, j in np.ndindex(samples, samples):
    mixed |= ids[:, i, :, j] != centre
  rows, columns = np.nonzero(mixed)
  inside = ids[rows, :, columns, :].reshape(len(rows), samples**2)
  # Sorting (id, sample) pairs packed in one number groups the surfaces.
  packed = np.sort(inside.astype(np.int64) * 32 + np.arange(samples**2), 1)
  surface, sample = packed >> 5, packed & 31
  new = np.ones(surface.shape, bool)
  new[:, 1:] = surface[:, 1:] != surface[:, :-1]
  first = np.flatnonzero(new)
  counts = np.diff(np.append(first, new.size))
  dx = (sample % samples - middle).ravel() / samples
  dy = (sample // samples - middle).ravel() / samples
  if len(first):
    dx, dy = (np.add.reduceat(d, first) / counts for d in (dx, dy))
  owner = first // samples**2
  grid_y, grid_x = np.mgrid[:height, :width].astype(np.float64)
  pixel = np.arange(height * width)
  flat = rows * width + columns
  return _Points(
    ids=np.concatenate([centre.ravel(), surface.ravel()[first]]),
    x=np.concatenate([grid_x.ravel(), columns[owner] + dx]),
    y=np.concatenate([grid_y.ravel(), rows[owner] + dy]),
    pixel=np.concatenate([pixel, flat[owner]]),
    mixed=flat,
    starts=np.flatnonzero(first % samples**2 == 0),
    weight=(counts / samples**2).astype(np.float32),
  )


def _shade(scene, view, surfaces, points, bodies):
  total = len(points.ids)
  depth = np.zeros(total)
  labels = np.full(total, objects.LABEL['sky'], np.uint8)
  colour = np.empty((total, 3), np.float32)
  sky = np.flatnonzero(points.ids == visibility.SKY)
  colour[sky] = _sky(scene.atlas, view, points.x[sky], points.y[sky])
  low = np.flatnonzero(points.ids == visibility.GROUND)
  shade = ground.Ground(scene).shade
  depth[low], labels[low], tone, where = shade(
    view, points.x[low], points.y[low]
  )
  meets = np.full((view.height * view.width, 2), np.nan)
  central = low < len(meets)
  meets[low[central]] = where[central]
  meets = meets.reshape(view.height, view.width, 2)
  light = ground.darken(view, meets, scene.shadows, bodies)
  colour[low] = tone * light.ravel()[points.pixel[low], None]
  solid = np.flatnonzero(points.ids >= visibility.FIRST)
  row = points.ids[solid] - visibility.FIRST
  kind = surfaces.primitives['kind'][row]
  for value, locate in (
    (objects.QUAD, _on_quads),
    (objects.ELLIPSOID, _on_ellipsoids),
  ):
    mine = np.flatnonzero(kind == value)
    where, rows = solid[mine], row[mine]
    x, y = points.x[where], points.y[where]
    depth[where], uv, width, normal = locate(surfaces, rows, x, y)
    look = {name: surfaces.primitives[name][rows] for name in _LOOK}
    labels[where] = look['label']
    colour[where] = _paint(scene.atlas, look, uv, width, normal)
  return depth, labels, colour


def _on_quads(surfaces, rows, x, y):
  """Depth, (u, v), the pixel's footprint in (u, v), the normal."""
  a = surfaces.coefficients[rows]
  q = a[:, :, 0] * x[:, None] + a[:, :, 1] * y[:, None] + a[:, :, 2]
  z = 1 / q[:, 2]
  uv = np.clip(q[:, :2] * z[:, None], 0, 1)
  steps = (np.abs(a[:, :2, i] - uv * a[:, 2:, i]) for i in (0, 1))
  width = np.maximum(*steps) * z[:, None]
  return z, uv, width, surfaces.primitives['axes'][rows, :, 2]


def _on_ellipsoids(surfaces, rows, x, y):
  """Like `_on_quads`: u goes around the third axis, v along it."""
  a, eye = surfaces.coefficients[rows], surfaces.eye[rows]
  d = a[:, :, 0] * x[:, None] + a[:, :, 1] * y[:, None] + a[:, :, 2]
  square = np.einsum('ni,ni->n', d, d)
  dot = np.einsum('ni,ni->n', d, eye)
  beyond = np.einsum('ni,ni->n', eye, eye) - 1
  root = np.sqrt(np.maximum(dot**2 - square * beyond, 0))
  z = beyond / (root - dot)
  n = eye + z[:, None] * d
  turns = np.arctan2(n[:, 1], n[:, 0]) / (2 * np.pi)
  uv = np.stack([turns, 0.5 + 0.5 * n[:, 2]], 1)
  # A pixel's step in the unit sphere, longer where the surface turns away.
  step = np.linalg.norm(a[:, :, 0], axis=1) * z
  facing = np.maximum(root / np.sqrt(square), 0.25)
  around = np.maximum(np.hypot(n[:, 0], n[:, 1]), 0.2)
  width = np.stack([step / (2 * np.pi * around), 0.5 * step], 1)
  width /= facing[:, None]
  axes = surfaces.primitives['axes'][rows]
  lengths = np.maximum(np.einsum('nij,nij->nj', axes, axes), 1e-12)
  normal = np.einsum('nij,nj->ni', axes, n / lengths)
  return z, uv, width, normal / np.linalg.norm(normal, axis=1)[:, None]


def _paint(atlas, look, uv, width, normal):
  repeat, offset = look['repeat'], look['offset']
  where, spread = uv * repeat + offset, width * repeat
  texel = atlas.sample(look['texture'], *where.T, *spread.T)
  alpha = texel[:, 3:]
  tint = look['tint'].astype(np.float32)
  colour = texel[:, :3] * (1 + alpha * (tint - 1))
  metres = look['size'] / _DETAIL
  where, spread = uv * metres + offset, width * metres
  texture = np.full(len(uv), atlas.index['detail'])
  grain = atlas.sample(texture, *where.T, *spread.T)[:, :1]
  strength = look['detail'][:, None].astype(np.float32)
  colour *= 1 + 2 * strength * (grain - 0.5)
  sun = normal @ (_SUN / np.linalg.norm(_SUN))
  light = 0.72 + 0.34 * np.maximum(sun, 0) + 0.1 * normal[:, 2]
  return colour * light[:, None].astype(np.float32)


def _sky(atlas, view, x, y):
  d = view.rays @ np.stack([x, y, np.ones_like(x)])
  azimuth = np.arctan2(d[1], d[0]) / (2 * np.pi)
  climb = d[2] / np.hypot(d[0], d[1])
  texture = np.full(len(x), atlas.index['blotch'])
  width = np.full(len(x), 1.0 / view.width)
  cloud = atlas.sample(texture, azimuth * 5, climb * 2.2, width, width)[:, :1]
  cloud = np.clip(2.2 * (cloud - 0.42), 0, 1)
  high = np.clip(climb / 0.35, 0, 1).astype(np.float32)[:, None]
  low, change = np.array(
    [[0.78, 0.85, 0.92], [-0.34, -0.24, -0.06]], np.float32
  )
  clear = low + high * change
  return clear + cloud * (np.float32(0.95) - clear) * (0.3 + 0.6 * high)
