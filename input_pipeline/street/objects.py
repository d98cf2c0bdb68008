"""The objects of the street, built of parallelograms and ellipsoids.

Every `add_*` works in an object's own frame: x forward, y left, z up, metres,
origin on the ground. `Builder.place` sets where that frame is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import cityscapes

LABEL = {name: i for i, name in enumerate(cityscapes.NAMES)}
QUAD, ELLIPSOID = 0, 1

# One row per surface. A quad is origin + u axes[:, 0] + v axes[:, 1] with u, v
# in [0, 1] and its outward unit normal in axes[:, 2]; an ellipsoid is origin +
# axes n with |n| = 1.
PRIMITIVE = np.dtype(
  [
    ('kind', int),  # `QUAD` or `ELLIPSOID`
    ('origin', float, 3),  # metres, in the frame of the body
    ('axes', float, (3, 3)),  # metres
    ('texture', int),  # index in the atlas
    ('repeat', float, 2),  # turns of the texture over the surface
    ('offset', float, 2),  # turns
    ('size', float, 2),  # metres along u and v
    ('tint', float, 3),
    ('detail', float),  # strength of the fine grain
    ('label', int),  # train id
    ('body', int),  # 0 = the world, otherwise a moving body
    ('two_sided', float),  # 1 where both sides are visible
    # The outline of a quad in its (u, v):
    ('taper', float),  # narrows it linearly to the top; 0.5 = triangle
    ('ring', float, 2),  # radii of an ellipse, of the half size; (0, 0) = none
    ('picket', float),  # cuts gaps between so many boards; 0 = solid
  ]
)

_Vector = Sequence[float]
_Rng = np.random.Generator


class Builder:
  """Collects primitives.

  Args:
    texture_index: name -> index in the atlas.
  """

  def __init__(self, texture_index: Mapping[str, int]):
    self._textures, self._rows = texture_index, []
    self.place()

  def place(
    self, position: _Vector = (0, 0, 0), yaw: float = 0, body: int = 0
  ) -> None:
    """Sets the frame in which the following primitives are given.

    The position (metres) and yaw (radians) are those in the world, or in the
    frame of the moving body `body` if it is not 0.
    """
    c, s = np.cos(yaw), np.sin(yaw)
    self._rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    self._origin, self._body = np.array(position, float), body

  def quad(
    self,
    origin: _Vector,
    along_u: _Vector,
    along_v: _Vector,
    texture: str,
    label: str,
    **look: Any,
  ) -> None:
    """Adds a parallelogram; its outside is along_u x along_v."""
    u, v = np.asarray(along_u, float), np.asarray(along_v, float)
    # numpy.cross takes ten times as long on single vectors.
    (u0, u1, u2), (v0, v1, v2) = u, v
    normal = np.array([u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0])
    axes = np.stack([u, v, normal / np.sqrt(normal @ normal)], 1)
    size = np.sqrt(u @ u), np.sqrt(v @ v)
    self._add(QUAD, origin, axes, size, texture, label, look)

  def ellipsoid(
    self,
    centre: _Vector,
    radii: _Vector,
    texture: str,
    label: str,
    lean: float = 0.0,
    **look: Any,
  ) -> None:
    """Adds an ellipsoid, leaning forward by `lean` radians."""
    c, s = np.cos(lean), np.sin(lean)
    axes = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) * np.asarray(radii)
    size = 2 * np.pi * radii[0], 2 * radii[2]
    self._add(ELLIPSOID, centre, axes, size, texture, label, look)

  def box(
    self,
    low: _Vector,
    high: _Vector,
    textures: str | tuple[str, str, str, str],
    label: str,
    *,
    top: bool = True,
    metres: float = 0,
    **look: Any,
  ) -> None:
    """Adds a box without its bottom.

    Args:
      low: [3] its least corner.
      high: [3] its greatest corner.
      textures: one name, or names for (front, back, sides, top).
      label: name of the class.
      top: whether it has a top.
      metres: size of a texture's tile; 0 stretches one tile over each face.
      **look: further fields of `PRIMITIVE`.
    """
    if isinstance(textures, str):
      textures = (textures,) * 4
    front, back, sides, roof = textures
    (x0, y0, z0), (x1, y1, z1) = low, high
    length, width, up = x1 - x0, y1 - y0, (0, 0, z1 - z0)
    faces = [
      ((x1, y0, z0), (0, width, 0), up, front),
      ((x0, y1, z0), (0, -width, 0), up, back),
      ((x0, y0, z0), (length, 0, 0), up, sides),
      ((x1, y1, z0), (-length, 0, 0), up, sides),
    ]
    if top:
      faces.append(((x0, y0, z1), (length, 0, 0), (0, width, 0), roof))
    for origin, u, v, texture in faces:
      if metres:
        look['repeat'] = np.linalg.norm([u, v], axis=1) / metres
      self.quad(origin, u, v, texture, label, **look)

  def build(self) -> np.ndarray:
    """Returns the primitives collected, [P] of `PRIMITIVE`."""
    table = np.zeros(len(self._rows), PRIMITIVE)
    table['repeat'], table['tint'], table['detail'] = 1, 1, 0.35
    for row, fields in zip(table, self._rows, strict=True):
      for name, value in fields.items():
        row[name] = value
    return table

  def _add(self, kind, origin, axes, size, texture, label, look):
    fields = {
      'kind': kind,
      'texture': self._textures[texture],
      'label': LABEL[label],
      'origin': self._origin + self._rotation @ np.asarray(origin, float),
      'axes': self._rotation @ axes,
      'size': size,
      'body': self._body,
    }
    self._rows.append(look | fields)


def add_car(builder: Builder, rng: _Rng, colour: np.ndarray) -> None:
  """Adds a car of about 4.2 x 1.75 x 1.45 m, its nose towards +x."""
  half, side = rng.uniform(1.95, 2.2), 0.87
  belt, roof = rng.uniform(0.84, 0.92), rng.uniform(1.4, 1.6)
  look = {'tint': colour, 'detail': 0.12}
  faces = 'car_front', 'car_rear', 'car_side', 'plain'
  builder.box((-half, -side, 0.3), (half, side, belt), faces, 'car', **look)
  low, high = (-half + 0.2, -side + 0.1, 0.14), (half - 0.2, side - 0.1, 0.3)
  builder.box(low, high, 'plain', 'car', top=False, tint=0.06)
  back, front = -half + 0.1, half - rng.uniform(0.8, 1.1)
  slope, inner = rng.uniform(0.3, 0.55), side - 0.08
  length, rise, across = front - back, roof - belt, 2 * inner
  for start, y, along in ((back, -inner, length), (front, inner, -length)):
    u, v, taper = (along, 0, 0), (0, 0, rise), slope / length
    origin = (start, y, belt)
    builder.quad(origin, u, v, 'car_cabin', 'car', taper=taper, **look)
  for origin, u, v, texture in (
    ((front, -inner, belt), (0, across, 0), (-slope, 0, rise), 'glass'),
    ((back, inner, belt), (0, -across, 0), (slope, 0, rise), 'glass'),
  ):
    builder.quad(origin, u, v, texture, 'car', **look)
  origin, u, v = (
    (back + slope, -inner, roof),
    (length - 2 * slope, 0, 0),
    (0, across, 0),
  )
  builder.quad(origin, u, v, 'plain', 'car', **look)
  _add_wheels(builder, 'car', (-half + 0.75, half - 0.8), side + 0.01, 0.33)


def _add_wheels(builder, label, places, side, radius):
  for x in places:
    for y, sign in ((-side, 1), (side, -1)):
      u, v = (sign * 2 * radius, 0, 0), (0, 0, 2 * radius)
      look = {'ring': (0, 1), 'detail': 0.1}
      builder.quad((x - sign * radius, y, 0), u, v, 'wheel', label, **look)


def add_bus(
  builder: Builder, label: str, colour: np.ndarray, length: float
) -> None:
  """Adds a bus, or a truck with a plain load."""
  side, end, low = 1.15, length / 2, 0.45
  faces = 'bus_front', 'car_rear', 'bus_side', 'plain'
  if label == 'truck':
    faces = 'bus_front', 'car_rear', 'boards', 'plain'
  look = {'tint': colour, 'detail': 0.2}
  builder.box((-end, -side, low), (end, side, 3.0), faces, label, **look)
  corners = (-end + 0.3, -side + 0.1, 0.2), (end - 0.3, side - 0.1, low)
  builder.box(*corners, 'plain', label, top=False, tint=0.06)
  if label == 'truck':
    corners = (end + 0.1, -side, low), (end + 1.8, side, 2.4)
    faces, look = ('car_cabin', 'plain') * 2, {'tint': colour, 'detail': 0.1}
    builder.box(*corners, faces, label, **look)
  _add_wheels(builder, label, (-end + 1.5, end - 1.2), side + 0.02, 0.48)


def add_person(
  builder: Builder,
  rng: _Rng,
  *,
  label: str = 'person',
  bent: float = 0.0,
) -> None:
  """Adds a person of 1.6 to 1.85 m in mid-step towards +x; a rider is bent."""
  scale = rng.uniform(0.92, 1.06)
  skin = np.array([0.85, 0.65, 0.52]) * rng.uniform(0.5, 1.05)
  top, bottom = rng.uniform(0.12, 0.95, 3), rng.uniform(0.1, 0.5, 3)
  hip, step = 0.9 * scale, rng.uniform(0.15, 0.35)

  def limb(centre, radii, tint, lean=0.0):
    centre, radii = np.multiply(centre, scale), np.multiply(radii, scale)
    look = {'tint': tint, 'repeat': 2, 'offset': rng.random(2), 'detail': 0.5}
    builder.ellipsoid(centre, radii, 'cloth', label, lean, **look)

  chest = 0.28 * np.sin(bent)
  limb((chest, 0, hip + 0.3), (0.14, 0.22, 0.36), top, bent)
  limb((2 * chest, 0, hip + 0.74 - 0.1 * bent), (0.1, 0.09, 0.13), skin)
  for y, swing in ((-0.1, step), (0.1, -step)):
    foot, hand = swing * 0.5, chest - swing * 0.4
    limb((foot, y, hip - 0.42), (0.085, 0.08, 0.48), bottom, -swing)
    lean = swing + 2 * bent
    limb((hand, 2.6 * y, hip + 0.22), (0.06, 0.06, 0.32), top, lean)


def add_bicycle(builder: Builder, rng: _Rng, *, rider: bool = False) -> None:
  """Adds a bicycle towards +x, with a rider or parked."""
  tint = rng.uniform(0.1, 0.8, 3)
  look = {'tint': 0.1, 'two_sided': 1, 'ring': (0.78, 1)}
  for x in (-0.52, 0.52):
    u, v = (0.68, 0, 0), (0, 0, 0.68)
    builder.quad((x - 0.34, 0, 0), u, v, 'plain', 'bicycle', **look)
  look = {'tint': tint, 'two_sided': 1}
  for (x0, z0), (x1, z1) in (
    ((-0.52, 0.34), (-0.1, 0.3)),
    ((-0.1, 0.3), (-0.25, 0.88)),
    ((-0.2, 0.72), (0.38, 0.78)),
    ((-0.1, 0.3), (0.4, 0.75)),
    ((0.52, 0.34), (0.36, 1.0)),
  ):
    u, v = (x1 - x0, 0, z1 - z0), (0.035, 0, 0.05)
    builder.quad((x0, 0, z0), u, v, 'plain', 'bicycle', **look)
  handlebar = (0.3, -0.27, 0.98), (0.36, 0.27, 1.03)
  builder.box(*handlebar, 'plain', 'bicycle', tint=0.1)
  saddle = (-0.36, -0.07, 0.88), (-0.12, 0.07, 0.94)
  builder.box(*saddle, 'plain', 'bicycle', tint=(0.08, 0.07, 0.06))
  if rider:
    add_person(builder, rng, label='rider', bent=0.5)


def add_tree(builder: Builder, rng: _Rng, *, size: float = 1.0) -> None:
  """Adds a tree: a trunk and a crown of ellipsoids."""
  fork, girth = size * rng.uniform(2.0, 2.9), size * rng.uniform(0.1, 0.17)
  low, high = (-girth, -girth, 0), (girth, girth, fork + 1)
  look = {'repeat': (1, 4), 'offset': rng.random(2), 'tint': (0.6, 0.55, 0.5)}
  builder.box(low, high, 'bark', 'vegetation', top=False, **look)
  green = np.array([0.5, 0.68, 0.3]) * rng.uniform(0.7, 1.1)
  green[0] += rng.uniform(-0.05, 0.2)
  spread = rng.uniform(1.1, 1.6) * size
  middle = (0, 0, fork + 1.25 * spread)
  _add_leaves(builder, rng, middle, 0.7 * spread, 0.9 * green)
  for _ in range(15):
    direction = rng.standard_normal(3)
    direction *= rng.uniform(0.5, 1) / np.linalg.norm(direction)
    radius = spread * rng.uniform(0.25, 0.55)
    centre = direction * spread * (1, 1, 1.1) + middle
    # Less light reaches the lower boughs.
    tint = green * (0.95 + 0.25 * direction[2])
    _add_leaves(builder, rng, centre, radius, tint)


def add_bush(builder: Builder, rng: _Rng, *, size: float = 1.0) -> None:
  """Adds a bush of a few ellipsoids."""
  green = np.array([0.45, 0.62, 0.3]) * rng.uniform(0.7, 1.1)
  for _ in range(4):
    x, y = rng.uniform(-0.5, 0.5, 2) * size
    radius = size * rng.uniform(0.4, 0.6)
    _add_leaves(builder, rng, (x, y, 0.35 * size), radius, green)


def _add_leaves(builder, rng, centre, radius, green):
  radii = radius * rng.uniform(0.85, 1.15, 3)
  turns = max(1.0, np.round(2 * np.pi * radius / 2.2))
  look = {'repeat': (turns, radius / 1.1), 'offset': rng.random(2)}
  look |= {'tint': green * rng.uniform(0.85, 1.15), 'detail': 0.6}
  builder.ellipsoid(centre, radii, 'leaves', 'vegetation', **look)


def add_lamp(builder: Builder, rng: _Rng) -> None:
  """Adds a street lamp whose arm reaches over the road, towards +y."""
  height, grey = rng.uniform(5.2, 6.4), rng.uniform(0.25, 0.55)
  for low, high in (
    ((-0.07, -0.07, 0), (0.07, 0.07, height)),
    ((-0.12, -0.12, 0), (0.12, 0.12, 0.9)),
    ((-0.04, -0.07, height - 0.08), (0.04, 1.6, height)),
  ):
    builder.box(low, high, 'plain', 'pole', tint=grey)
  low, high = (-0.12, 1.3, height - 0.14), (0.12, 1.95, height + 0.04)
  builder.box(low, high, 'plain', 'pole', tint=(0.75, 0.75, 0.7))


def add_pole(builder: Builder, rng: _Rng, *, height: float = 1.0) -> None:
  """Adds a bollard or a plain mast."""
  half = 0.055 if height > 2 else 0.075
  low, high = (-half, -half, 0), (half, half, height)
  look = {'tint': rng.uniform(0.15, 0.6), 'repeat': (0.3, height)}
  builder.box(low, high, 'bark', 'pole', **look)


def add_sign(builder: Builder, rng: _Rng) -> None:
  """Adds one or two signs on a thin post, facing -x."""
  height = rng.uniform(2.3, 2.9)
  low, high = (-0.04, -0.04, 0), (0.04, 0.04, height)
  builder.box(low, high, 'plain', 'pole', tint=(0.55, 0.56, 0.58))
  kinds = ['sign_ring', 'sign_triangle', 'sign_arrow', 'sign_plate']
  face = str(rng.choice(kinds))
  look = {'sign_triangle': {'taper': 0.5}, 'sign_plate': {}}
  look = look.get(face, {'ring': (0, 1)})
  width, tall = (1.0, 0.5) if face == 'sign_plate' else (0.76, 0.72)
  _add_plate(builder, height - tall, width, tall, face, look)
  if rng.random() < 0.4:
    _add_plate(builder, height - tall - 0.36, 0.66, 0.32, 'sign_plate', {})


def _add_plate(builder, low, width, tall, face, look):
  v, label = (0, 0, tall), 'traffic sign'
  origin, u = (-0.06, width / 2, low), (0, -width, 0)
  builder.quad(origin, u, v, face, label, detail=0.1, **look)
  origin, u, tint = (-0.055, -width / 2, low), (0, width, 0), (0.45, 0.46, 0.48)
  builder.quad(origin, u, v, 'plain', label, tint=tint, **look)


def add_light(builder: Builder, rng: _Rng) -> None:
  """Adds a traffic light on a post, facing -x, perhaps a second on an arm."""
  posts, lamps = [((-0.07, -0.07, 0), (0.07, 0.07, 3.4))], [(0, 2.4)]
  if rng.random() < 0.6:
    posts.append(((-0.06, -0.07, 5.1), (0.06, 3.6, 5.22)))
    posts.append(((-0.07, -0.07, 3.4), (0.07, 0.07, 5.2)))
    lamps.append((3.4, 4.25))
  for low, high in posts:
    builder.box(low, high, 'plain', 'pole', tint=(0.3, 0.32, 0.3))
  faces, look = ('plain', 'lamps', 'plain', 'plain'), {'tint': 0.08}
  for y, z in lamps:
    low, high = (-0.35, y - 0.17, z), (-0.08, y + 0.17, z + 0.95)
    builder.box(low, high, faces, 'traffic light', detail=0.1, **look)
