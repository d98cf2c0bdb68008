"""Textures of the street: an atlas whose level is chosen per axis.

Every texture is kept at all pairs of power-of-two reductions along u and along
v (a rip-map), because road and facades are seen at a slant: their footprint is
long along one texture axis and short along the other. Sampling at the level of
the pixel's footprint fades what is finer than a pixel, so that two frames of
the same surface agree.
"""

from collections.abc import Mapping, Sequence

import numpy as np


class Atlas:
  """Tiling RGBA textures, packed in one table.

  Alpha is not opacity: it is how far a primitive's tint colours the texel (1 =
  car paint, 0 = glass or a lamp that keeps its own colour).

  Args:
    images: name -> [V, U, 3 or 4] in [0, 1], sides powers of two, row 0 at v =
      0. Three channels mean alpha 1.
  """

  def __init__(self, images: Mapping[str, np.ndarray]):
    self.index = {name: i for i, name in enumerate(images)}
    shapes = [image.shape[1::-1] for image in images.values()]
    self._log_size = np.log2(shapes).astype(np.int64)
    levels = int(self._log_size.max()) + 1
    self._offsets = np.zeros((len(images), levels, levels), np.int64)
    tables, used = [], 0
    for i, image in enumerate(images.values()):
      for level, reduced in _reductions(_with_alpha(image)):
        self._offsets[i, level[0], level[1]] = used
        tables.append(_pack(reduced))
        used += tables[-1].size
    self._table = np.concatenate(tables)

  def sample(
    self,
    texture: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    width_u: np.ndarray,
    width_v: np.ndarray,
  ) -> np.ndarray:
    """Samples textures, filtered over each pixel's footprint.

    Args:
      texture: [N] int, indices of textures.
      u: [N] in turns of the texture (1 = its whole width); wraps.
      v: [N] in turns; wraps.
      width_u: [N] the footprint along u, in turns.
      width_v: [N] the footprint along v, in turns.

    Returns:
      [N, 4] float32 in [0, 1].
    """
    log_u, log_v = self._log_size[texture].T
    level_u = _level(width_u, log_u)
    level_v = _level(width_v, log_v)
    base = self._offsets[texture, level_u, level_v]
    size_u, size_v = 1 << (log_u - level_u), 1 << (log_v - level_v)
    i0, i1, wu = _taps(u, size_u)
    j0, j1, wv = _taps(v, size_v)
    row0, row1 = base + j0 * size_u, base + j1 * size_u
    low = self._texels(row0 + i0)
    low += wu * (self._texels(row0 + i1) - low)
    high = self._texels(row1 + i0)
    high += wu * (self._texels(row1 + i1) - high)
    return (low + wv * (high - low)) * np.float32(1 / 255)

  def _texels(self, where):
    packed = self._table[where]
    return packed.view(np.uint8).reshape(-1, 4).astype(np.float32)


def _level(width, log_size):
  texels = np.maximum(width, 1e-9) * np.exp2(log_size)
  level = np.rint(np.log2(texels) + 0.2).astype(np.int64)
  return np.clip(level, 0, log_size)


def _taps(turns, size):
  position = turns * size - 0.5
  whole = np.floor(position)
  first = whole.astype(np.int64) & (size - 1)
  weight = (position - whole).astype(np.float32)[:, None]
  return first, (first + 1) & (size - 1), weight


def _with_alpha(image):
  image = np.asarray(image, np.float32)
  if image.shape[2] == 4:
    return image
  return np.concatenate([image, np.ones_like(image[..., :1])], 2)


def _reductions(image):
  level_v, along_v = 0, image
  while True:
    level_u, both = 0, along_v
    while True:
      yield (level_u, level_v), both
      if both.shape[1] == 1:
        break
      both = 0.5 * (both[:, ::2] + both[:, 1::2])
      level_u += 1
    if along_v.shape[0] == 1:
      return
    along_v = 0.5 * (along_v[::2] + along_v[1::2])
    level_v += 1


def _pack(image):
  values = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
  return np.ascontiguousarray(values).view(np.uint32).ravel()


def value_noise(
  rng: np.random.Generator,
  size: tuple[int, int],
  *,
  first: int = 4,
  persistence: float = 0.6,
  stretch: tuple[int, int] = (1, 1),
) -> np.ndarray:
  """Draws tiling value noise, all octaves from `first` to two-texel cells.

  Args:
    rng: decides the noise.
    size: (rows, columns), powers of two.
    first: cells along a side in the coarsest octave, a power of two.
    persistence: the ratio of one octave's amplitude to that before it.
    stretch: (rows, columns) factors that multiply the number of cells.

  Returns:
    [rows, columns] float32, mean 0, standard deviation 1.
  """
  total = np.zeros(size, np.float32)
  cells, amplitude = first, 1.0
  while cells * max(stretch) <= min(size) // 2:
    rows, columns = cells * stretch[0], cells * stretch[1]
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    total += amplitude * _enlarge(_enlarge(grid, size[0], 0), size[1], 1)
    cells, amplitude = cells * 2, amplitude * persistence
  total -= total.mean()
  return total / total.std()


def _enlarge(grid, size, axis):
  position = np.arange(size) * (grid.shape[axis] / size)
  first = np.floor(position).astype(int)
  weight = (position - first).astype(np.float32)
  weight = weight * weight * (3 - 2 * weight)
  weight = weight[:, None] if axis == 0 else weight[None]
  low = np.take(grid, first, axis)
  high = np.take(grid, (first + 1) % grid.shape[axis], axis)
  return low + weight * (high - low)


def paint_all(
  rng: np.random.Generator, facades: Sequence[tuple[int, int]]
) -> dict[str, np.ndarray]:
  """Paints the textures of one drive.

  Args:
    rng: decides colours and patterns.
    facades: (storeys, bays) of each house front, named `facade0` onwards.

  Returns:
    name -> float32 image for `Atlas`.
  """
  images = {
    f'facade{i}': _facade(rng, *cells) for i, cells in enumerate(facades)
  }
  noise = value_noise(rng, (512, 512), first=16, persistence=0.85)
  images['detail'] = _tinted(0.5 + 0.16 * noise)
  noise = value_noise(rng, (128, 128), first=4, persistence=0.65)
  images['blotch'] = _tinted(0.5 + 0.17 * noise)
  images['plain'] = np.ones((4, 4, 3), np.float32)
  images['asphalt'] = _asphalt(rng)
  images['slabs'] = _slabs(rng)
  images['grass'] = _grass(rng)
  images['leaves'] = _leaves(rng)
  noise = value_noise(rng, (128, 128), first=2, stretch=(1, 8))
  images['bark'] = _tinted(0.55 + 0.16 * noise, (1, 0.85, 0.7))
  images['bricks'] = _bricks(rng, 256, rows=24, columns=8)
  images['stones'] = _bricks(rng, 256, rows=8, columns=6)
  images['roof'] = _bricks(rng, 256, rows=16, columns=16)
  images['boards'] = _boards(rng)
  noise = value_noise(rng, (64, 64), first=4, persistence=0.9)
  images['cloth'] = _tinted(0.8 + 0.1 * noise)
  images.update(_vehicle_parts(rng))
  images.update(_sign_faces())
  return images


def _tinted(grey, colour=(1, 1, 1)):
  return np.clip(grey, 0, 1)[..., None] * np.asarray(colour, np.float32)


def _asphalt(rng):
  grain = value_noise(rng, (512, 512), first=4, persistence=0.75)
  grey = 0.36 + 0.04 * grain
  for _ in range(3):  # mended patches
    r, c = rng.integers(0, 400, 2)
    height, width = rng.integers(40, 110, 2)
    grey[r : r + height, c : c + width] *= rng.uniform(0.75, 1.12)
  for _ in range(5):  # cracks: a walk along the texture
    columns = np.cumsum(rng.normal(0, 1.2, 512)) + rng.integers(0, 512)
    grey[np.arange(512), columns.astype(int) % 512] *= 0.6
  rows, columns = np.mgrid[:512, :512]
  r, c = rng.integers(64, 448, 2)
  ring = np.hypot(rows - r, columns - c)
  grey[ring < 20] = 0.2 + 0.04 * grain[ring < 20]
  return _tinted(grey, (1, 1, 1.03))


def _slabs(rng):
  grey = 0.56 + 0.03 * value_noise(rng, (256, 256), first=8, persistence=0.8)
  shade = rng.uniform(0.86, 1.1, (4, 4)).astype(np.float32)
  grey *= np.kron(shade, np.ones((64, 64), np.float32))
  lines = (np.arange(256) % 64) < 3
  grey[lines] *= 0.68
  grey[:, lines] *= 0.68
  return _tinted(grey, (1, 0.97, 0.92))


def _grass(rng):
  noise = value_noise(rng, (256, 256), first=4, persistence=0.85)
  patch = value_noise(rng, (256, 256), first=2, persistence=0.5)
  grey = np.clip(0.45 + 0.1 * noise, 0, 1)[..., None]
  green = np.array([0.62, 0.85, 0.38], np.float32)
  return grey * (green + 0.1 * patch[..., None] * np.array([1, 0.3, 0.2]))


def _leaves(rng):
  leaves = value_noise(rng, (256, 256), first=32, persistence=0.9)
  boughs = value_noise(rng, (256, 256), first=8, persistence=0.7)
  grey = np.clip(0.68 + 0.2 * leaves + 0.12 * boughs, 0.15, 1)
  return _tinted(grey, (0.95, 1, 0.8))


def _bricks(rng, size, *, rows, columns):
  j = np.arange(size) * rows / size
  shift = 0.5 * (np.floor(j) % 2)
  i = np.arange(size)[None] * columns / size + shift[:, None]
  row = np.floor(j).astype(int)[:, None]
  shade = rng.uniform(0.72, 1, (rows, columns)).astype(np.float32)
  grey = shade[row, np.floor(i).astype(int) % columns]
  mortar = ((j % 1) < 0.14)[:, None] | ((i % 1) < 0.14 * columns / rows)
  grey = np.where(mortar, 0.62, grey)
  grey = grey + 0.04 * value_noise(rng, (size, size), persistence=0.85)
  return _tinted(grey)


def _boards(rng):
  shade = np.repeat(rng.uniform(0.7, 1, 16), 16)[None]
  grain = value_noise(rng, (256, 256), first=2, stretch=(1, 8))
  grey = shade + 0.06 * grain
  grey[:, (np.arange(256) % 16) < 2] *= 0.5
  return _tinted(grey, (1, 0.95, 0.88))


_WALLS = [
  (0.83, 0.74, 0.58), (0.7, 0.42, 0.33), (0.8, 0.8, 0.78), (0.85, 0.65, 0.5),
  (0.62, 0.66, 0.7), (0.72, 0.74, 0.6), (0.56, 0.38, 0.32), (0.88, 0.84, 0.72),
]  # fmt: skip
_TRIMS = [(0.9, 0.88, 0.84), (0.45, 0.35, 0.28), (0.32, 0.36, 0.4)]


def _facade(rng, storeys, bays):
  size, wall = 512, rng.choice(_WALLS)
  image = np.empty((size, size, 3), np.float32)
  grey = 1 + 0.05 * value_noise(rng, (size, size), persistence=0.75)
  if rng.random() < 0.5:
    brick = _bricks(rng, size, rows=64, columns=24)[..., 0]
    grey = grey * (0.7 + 0.4 * brick)
  image[:] = grey[..., None] * wall
  trim = rng.choice(_TRIMS)
  for storey in range(storeys):
    v0, v1 = storey * size // storeys, (storey + 1) * size // storeys
    image[v0 : v0 + 8] *= 0.72
    image[v0 + 8 : v0 + 14] = trim * grey[v0 + 8 : v0 + 14, :, None]
    door = int(rng.integers(bays)) if storey == 0 else -1
    for bay in range(bays):
      u0, u1 = bay * size // bays, (bay + 1) * size // bays
      _opening(rng, image[v0:v1, u0:u1], trim, bay == door)
  image[-14:] = trim * 0.8
  fade = 0.82 + 0.18 * np.clip(np.arange(size) / 60, 0, 1)
  return np.clip(image * fade[:, None, None], 0, 1)


def _opening(rng, cell, trim, is_door):
  """Paints one window, or the door, into its cell of a facade, in place."""
  rows, columns = cell.shape[:2]
  left = int(columns * (0.3 if is_door else rng.choice([0.2, 0.25])))
  low, high = int(rows * 0.3), int(rows * 0.84)
  if is_door:
    low, high = 2, int(rows * 0.72)
  right = columns - left
  cell[low - 2 : high + 4, left - 4 : right + 4] = trim
  pane = cell[low:high, left:right]
  climb = np.linspace(0, 1, high - low, dtype=np.float32)[:, None, None]
  if is_door:
    pane[:] = rng.uniform(0.12, 0.5, 3)
    pane[: len(pane) // 2, 6:-6] *= 0.8
    pane[-14:, 4:-4] = 0.25
    return
  glass = np.array([0.16, 0.2, 0.25]) * rng.uniform(0.6, 1.5)
  pane[:] = glass * (0.7 + 0.9 * climb)
  if rng.random() < 0.5:  # a curtain
    drop = int(len(pane) * rng.uniform(0.3, 0.9))
    folds = 0.8 + 0.2 * np.sin(np.arange(right - left) * 0.9)
    pane[-drop:] = rng.uniform(0.45, 0.8, 3) * folds[None, :, None]
  middle = (right - left) // 2
  pane[:, middle - 2 : middle + 2] = trim
  bar = int(len(pane) * 0.66)
  pane[bar : bar + 3] = trim
  cell[low - 8 : low - 2, left - 8 : right + 8] = trim * 0.85
  cell[low - 14 : low - 8, left - 6 : right + 6] *= 0.6


def _vehicle_parts(rng):
  """Panels of cars and buses; alpha 1 where the paint shows."""

  def blank(grey, alpha):
    noise = 0.015 * value_noise(rng, (64, 128), first=4)
    image = np.repeat((grey + noise)[..., None], 4, 2)
    image[..., 3] = alpha
    return image.astype(np.float32)

  side = blank(0.95, 1)
  side[:10] *= np.array([0.35, 0.35, 0.35, 1])
  side[40:43] *= np.array([0.8, 0.8, 0.8, 1])
  for column in (34, 64, 94):
    side[8:, column : column + 2] *= np.array([0.45, 0.45, 0.45, 1])
  side[46:49, 56:62] = side[46:49, 86:92] = (0.2, 0.2, 0.2, 0)
  glass = blank(0.2, 0)
  glass[..., :3] += np.linspace(-0.06, 0.16, 64)[:, None, None]
  cabin = glass.copy()
  cabin[56:] = cabin[:4] = (0.92, 0.92, 0.92, 1)
  cabin[:, 60:66] = (0.5, 0.5, 0.5, 1)
  front = blank(0.95, 1)
  front[18:34, 40:88] = (0.12, 0.12, 0.13, 0)
  front[34:48, 6:26] = front[34:48, 102:122] = (0.9, 0.92, 0.95, 0)
  front[8:16, 48:80] = (0.85, 0.85, 0.82, 0)
  front[:6] = (0.15, 0.15, 0.15, 0)
  rear = blank(0.95, 1)
  rear[32:50, 4:22] = rear[32:50, 106:124] = (0.75, 0.08, 0.06, 0)
  rear[14:24, 44:84] = (0.9, 0.88, 0.75, 0)
  rear[:6] = (0.15, 0.15, 0.15, 0)
  bus = blank(0.95, 1)
  bus[28:52] = (0.2, 0.24, 0.28, 0)
  bus[28:52, ::16] = bus[28:52, 1::16] = (0.9, 0.9, 0.9, 1)
  bus[12:15] = (0.9, 0.9, 0.9, 0)
  bus_front = blank(0.95, 1)
  bus_front[26:54, 6:122] = glass[10:38, 6:122]
  bus_front[56:62, 30:98] = (0.1, 0.1, 0.1, 0)
  bus_front[57:61, 40:88:3] = (0.95, 0.75, 0.2, 0)
  bus_front[6:13, 8:24] = bus_front[6:13, 104:120] = (0.9, 0.92, 0.95, 0)
  v, u = np.mgrid[-1:1:64j, -1:1:64j]
  radius, angle = np.hypot(u, v), np.arctan2(v, u)
  hub = 0.55 + 0.2 * (np.cos(5 * angle) > 0)
  wheel = np.where(radius < 0.62, hub, 0.1)
  wheel = np.where(radius < 0.12, 0.3, wheel)
  return {
    'bus_front': bus_front,
    'bus_side': bus,
    'car_side': side,
    'car_cabin': cabin,
    'car_front': front,
    'car_rear': rear,
    'glass': glass,
    'wheel': _tinted(wheel),
  }


def _sign_faces():
  v, u = np.mgrid[-1:1:64j, -1:1:64j].astype(np.float32)
  radius = np.hypot(u, v)
  red, white, blue, black = np.array(
    [(0.75, 0.06, 0.08), (0.93, 0.93, 0.93), (0.08, 0.2, 0.6), (0.1, 0.1, 0.1)]
  )
  ring = np.where((radius < 0.72)[..., None], white, red)
  digits = (np.abs(v) < 0.35) & ((np.abs(np.abs(u) - 0.25)) < 0.16)
  ring = np.where(digits[..., None], black, ring)
  inner = (v > -0.75) & (np.abs(u) < 0.42 * (0.55 - v))
  triangle = np.where(inner[..., None], white, red)
  mark = (np.abs(u) < 0.09) & (v > -0.6) & (v < 0.15)
  triangle = np.where(mark[..., None], black, triangle)
  arrow = (np.abs(u) < 0.14) & (np.abs(v) < 0.6) | (
    (v > 0.1) & (v < 0.7) & (np.abs(u) < 0.7 - v)
  )
  blue_disc = np.where(arrow[..., None], white, blue)
  plate = np.where((np.abs(v) < 0.75)[..., None], blue, white)
  text = (np.abs(np.abs(v) - 0.3) < 0.14) & (np.sin(u * 21) > -0.4)
  plate = np.where((text & (np.abs(u) < 0.85))[..., None], white, plate)
  lamps = np.full((64, 64, 4), 0.07, np.float32)
  lamps[..., 3] = 0
  green, amber, red = (0.1, 0.75, 0.4), (0.35, 0.26, 0.05), (0.4, 0.06, 0.05)
  for row, colour in ((-0.6, green), (0, amber), (0.6, red)):
    lamps[np.hypot(u * 0.45, v - row) < 0.22, :3] = colour
  return {
    'sign_ring': ring,
    'sign_triangle': triangle,
    'sign_arrow': blue_disc,
    'sign_plate': plate,
    'lamps': lamps,
  }
