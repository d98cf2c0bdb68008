"""What stands in the street, built of parallelograms and ellipsoids.

Every builder works in an object's own frame: x forward, y left, z up, metres,
origin on the ground; `Builder.place` says where that frame stands.
"""

import dataclasses

import numpy as np

from input_pipeline import cityscapes

LABEL = {name: i for i, name in enumerate(cityscapes.NAMES)}

QUAD, ELLIPSOID = 0, 1
# Outlines of a quad in its (u, v) in [0, 1]: `taper` narrows it linearly to
# the top (0.5 = triangle), `ring` keeps the ellipse between two radii
# (fractions of the half size), `picket` cuts gaps between so many boards.
_FIELDS = {
  'kind': (),
  'origin': (3,),
  'axes': (3, 3),
  'texture': (),
  'repeat': (2,),
  'offset': (2,),
  'size': (2,),
  'tint': (3,),
  'detail': (),
  'label': (),
  'body': (),
  'two_sided': (),
  'taper': (),
  'ring': (2,),
  'picket': (),
}
_INTEGERS = ('kind', 'texture', 'label', 'body')


@dataclasses.dataclass(frozen=True)
class Primitives:
  """Surfaces, one row each.

  A quad is origin + u axes[:, 0] + v axes[:, 1] with u, v in [0, 1] and its
  outward normal in axes[:, 2]; an ellipsoid is origin + axes n with |n| = 1.

  Attributes:
    kind: [P] int, `QUAD` or `ELLIPSOID`.
    origin: [P, 3] float, metres, in the frame of the body.
    axes: [P, 3, 3] float, metres (a quad's normal: unit length).
    texture: [P] int, index in the atlas.
    repeat: [P, 2] float, turns of the texture over the surface.
    offset: [P, 2] float, turns.
    size: [P, 2] float, metres along u and v.
    tint: [P, 3] float.
    detail: [P] float, strength of the fine grain.
    label: [P] int, train id.
    body: [P] int, 0 = the world, otherwise a moving body.
    two_sided: [P] float, 1 where both sides show.
    taper: [P] float.
    ring: [P, 2] float, inner and outer radius; outer 0 = no ring.
    picket: [P] float, boards; 0 = solid.
  """

  kind: np.ndarray
  origin: np.ndarray
  axes: np.ndarray
  texture: np.ndarray
  repeat: np.ndarray
  offset: np.ndarray
  size: np.ndarray
  tint: np.ndarray
  detail: np.ndarray
  label: np.ndarray
  body: np.ndarray
  two_sided: np.ndarray
  taper: np.ndarray
  ring: np.ndarray
  picket: np.ndarray

  def take(self, rows):
    """The primitives of these rows, as a new `Primitives`."""
    return Primitives(**{name: getattr(self, name)[rows] for name in _FIELDS})


class Builder:
  """Collects primitives.

  Args:
    texture_index: name -> index in the atlas.
  """

  def __init__(self, texture_index):
    self._textures = texture_index
    self._rows = []
    self._origin, self._rotation, self._body = np.zeros(3), np.eye(3), 0

  def place(self, x=0.0, y=0.0, z=0.0, yaw=0.0, body=0):
    """Sets the frame in which the following primitives are given.

    Args:
      x: metres in the world, or in the frame of `body`.
      y: likewise.
      z: likewise.
      yaw: radians.
      body: the moving body to which they belong, 0 = none.
    """
    c, s = np.cos(yaw), np.sin(yaw)
    self._rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    self._origin, self._body = np.array([x, y, z], float), body

  def quad(self, origin, along_u, along_v, texture, label, **look):
    """Adds a parallelogram; its outside is along_u x along_v."""
    u, v = np.asarray(along_u, float), np.asarray(along_v, float)
    # numpy.cross takes ten times as long on single vectors.
    normal = np.array(
      [
        u[1] * v[2] - u[2] * v[1],
        u[2] * v[0] - u[0] * v[2],
        u[0] * v[1] - u[1] * v[0],
      ]
    )
    axes = np.stack([u, v, normal / np.sqrt(normal @ normal)], 1)
    size = np.sqrt(u @ u), np.sqrt(v @ v)
    self._add(QUAD, origin, axes, size, texture, label, look)

  def ellipsoid(self, centre, radii, texture, label, lean=0.0, **look):
    """Adds an ellipsoid, leaning forward by `lean` radians."""
    c, s = np.cos(lean), np.sin(lean)
    axes = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) * np.asarray(radii)
    size = 2 * np.pi * radii[0], 2 * radii[2]
    self._add(ELLIPSOID, centre, axes, size, texture, label, look)

  def box(self, low, high, textures, label, *, top=True, metres=0, **look):
    """Adds a box without its bottom.

    Args:
      low: [3] its least corner.
      high: [3] its greatest corner.
      textures: one name, or names for (front, back, sides, top).
      label: train id.
      top: whether it has a top.
      metres: size of a texture's tile; 0 stretches one tile over each face.
      **look: further fields of `Primitives`.
    """
    if isinstance(textures, str):
      textures = (textures,) * 4
    (x0, y0, z0), (x1, y1, z1) = low, high
    length, width, height = x1 - x0, y1 - y0, z1 - z0
    faces = [
      ((x1, y0, z0), (0, width, 0), (0, 0, height), textures[0]),
      ((x0, y1, z0), (0, -width, 0), (0, 0, height), textures[1]),
      ((x0, y0, z0), (length, 0, 0), (0, 0, height), textures[2]),
      ((x1, y1, z0), (-length, 0, 0), (0, 0, height), textures[2]),
    ]
    if top:
      faces.append(((x0, y0, z1), (length, 0, 0), (0, width, 0), textures[3]))
    for origin, u, v, texture in faces:
      if metres:
        look['repeat'] = (
          np.linalg.norm(u) / metres,
          np.linalg.norm(v) / metres,
        )
      self.quad(origin, u, v, texture, label, **look)

  def build(self):
    """Returns the `Primitives` collected."""
    columns = {}
    for name, shape in _FIELDS.items():
      kind = np.int64 if name in _INTEGERS else np.float64
      values = [row[name] for row in self._rows]
      columns[name] = np.array(values, kind).reshape(-1, *shape)
    return Primitives(**columns)

  def _add(self, kind, origin, axes, size, texture, label, look):
    row = {
      'repeat': (1, 1),
      'offset': (0, 0),
      'tint': (1, 1, 1),
      'detail': 0.35,
      'two_sided': 0,
      'taper': 0,
      'ring': (0, 0),
      'picket': 0,
      **look,
    }
    row.update(
      kind=kind,
      texture=self._textures[texture],
      label=LABEL[label],
      origin=self._origin + self._rotation @ np.asarray(origin, float),
      axes=self._rotation @ axes,
      size=size,
      body=self._body,
    )
    self._rows.append(row)


def add_car(builder, rng, colour):
  """A car of about 4.2 x 1.75 x 1.45 m, its nose towards +x."""
  half, side = rng.uniform(1.95, 2.2), 0.87
  belt, roof = rng.uniform(0.84, 0.92), rng.uniform(1.4, 1.6)
  look = {'tint': colour, 'detail': 0.12}
  builder.box(
    (-half, -side, 0.3),
    (half, side, belt),
    ('car_front', 'car_rear', 'car_side', 'plain'),
    'car',
    **look,
  )
  builder.box(
    (-half + 0.2, -side + 0.1, 0.14),
    (half - 0.2, side - 0.1, 0.3),
    'plain',
    'car',
    top=False,
    tint=(0.06, 0.06, 0.06),
  )
  back, front = -half + 0.1, half - rng.uniform(0.8, 1.1)
  slope, inner = rng.uniform(0.3, 0.55), side - 0.08
  taper = slope / (front - back)
  rise = roof - belt
  for y, sign in ((-inner, 1), (inner, -1)):
    start = back if sign > 0 else front
    builder.quad(
      (start, y, belt),
      (sign * (front - back), 0, 0),
      (0, 0, rise),
      'car_cabin',
      'car',
      taper=taper,
      **look,
    )
  builder.quad(
    (front, -inner, belt),
    (0, 2 * inner, 0),
    (-slope, 0, rise),
    'glass',
    'car',
    **look,
  )
  builder.quad(
    (back, inner, belt),
    (0, -2 * inner, 0),
    (slope, 0, rise),
    'glass',
    'car',
    **look,
  )
  builder.quad(
    (back + slope, -inner, roof),
    (front - back - 2 * slope, 0, 0),
    (0, 2 * inner, 0),
    'plain',
    'car',
    **look,
  )
  _wheels(builder, 'car', (-half + 0.75, half - 0.8), side + 0.01, 0.33)


def _wheels(builder, label, places, side, radius):
  for x in places:
    for y, sign in ((-side, 1), (side, -1)):
      builder.quad(
        (x - sign * radius, y, 0),
        (sign * 2 * radius, 0, 0),
        (0, 0, 2 * radius),
        'wheel',
        label,
        ring=(0, 1),
        detail=0.1,
      )


def add_bus(builder, label, colour, length):
  """A bus, or a truck with a plain load."""
  side, roof = 1.15, 3.0
  texture = 'bus_side' if label == 'bus' else 'boards'
  builder.box(
    (-length / 2, -side, 0.45),
    (length / 2, side, roof),
    ('bus_front', 'car_rear', texture, 'plain'),
    label,
    tint=colour,
    detail=0.2,
  )
  builder.box(
    (-length / 2 + 0.3, -side + 0.1, 0.2),
    (length / 2 - 0.3, side - 0.1, 0.45),
    'plain',
    label,
    top=False,
    tint=(0.06, 0.06, 0.06),
  )
  if label == 'truck':
    builder.box(
      (length / 2 + 0.1, -side, 0.45),
      (length / 2 + 1.8, side, 2.4),
      ('car_cabin', 'plain', 'car_cabin', 'plain'),
      label,
      tint=colour,
      detail=0.1,
    )
  _wheels(
    builder, label, (-length / 2 + 1.5, length / 2 - 1.2), side + 0.02, 0.48
  )


def add_person(builder, rng, *, label='person', bent=0.0):
  """A person of 1.6 to 1.85 m, in mid-step towards +x; a rider sits bent."""
  scale = rng.uniform(0.92, 1.06)
  skin = np.array([0.85, 0.65, 0.52]) * rng.uniform(0.5, 1.05)
  top, bottom = rng.uniform(0.12, 0.95, 3), rng.uniform(0.1, 0.5, 3)
  hip, step = 0.9 * scale, rng.uniform(0.15, 0.35)

  def limb(centre, radii, tint, lean=0.0):
    builder.ellipsoid(
      np.multiply(centre, scale),
      np.multiply(radii, scale),
      'cloth',
      label,
      lean,
      tint=tint,
      repeat=(2, 2),
      offset=rng.random(2),
      detail=0.5,
    )

  chest = 0.28 * np.sin(bent)
  limb((chest, 0, hip + 0.3), (0.14, 0.22, 0.36), top, bent)
  limb((2 * chest, 0, hip + 0.74 - 0.1 * bent), (0.1, 0.09, 0.13), skin)
  for y, sign in ((-0.1, 1), (0.1, -1)):
    limb(
      (sign * step * 0.5, y, hip - 0.42),
      (0.085, 0.08, 0.48),
      bottom,
      -sign * step,
    )
    limb(
      (chest - sign * step * 0.4, 2.6 * y, hip + 0.22),
      (0.06, 0.06, 0.32),
      top,
      sign * step + 2 * bent,
    )


def add_bicycle(builder, rng, *, rider=False):
  """A bicycle, towards +x, with a rider or parked."""
  tint = rng.uniform(0.1, 0.8, 3)
  look = {'tint': (0.1, 0.1, 0.1), 'two_sided': 1, 'ring': (0.78, 1)}
  for x in (-0.52, 0.52):
    builder.quad(
      (x - 0.34, 0, 0), (0.68, 0, 0), (0, 0, 0.68), 'plain', 'bicycle', **look
    )
  bars = (
    ((-0.52, 0.34), (-0.1, 0.3)),
    ((-0.1, 0.3), (-0.25, 0.88)),
    ((-0.2, 0.72), (0.38, 0.78)),
    ((-0.1, 0.3), (0.4, 0.75)),
    ((0.52, 0.34), (0.36, 1.0)),
  )
  for (x0, z0), (x1, z1) in bars:
    builder.quad(
      (x0, 0, z0),
      (x1 - x0, 0, z1 - z0),
      (0.035, 0, 0.05),
      'plain',
      'bicycle',
      tint=tint,
      two_sided=1,
    )
  builder.box(
    (0.3, -0.27, 0.98),
    (0.36, 0.27, 1.03),
    'plain',
    'bicycle',
    tint=(0.1, 0.1, 0.1),
  )
  builder.box(
    (-0.36, -0.07, 0.88),
    (-0.12, 0.07, 0.94),
    'plain',
    'bicycle',
    tint=(0.08, 0.07, 0.06),
  )
  if rider:
    add_person(builder, rng, label='rider', bent=0.5)


def add_tree(builder, rng, *, size=1.0):
  """A tree: a trunk and a crown of ellipsoids."""
  fork, girth = size * rng.uniform(2.0, 2.9), size * rng.uniform(0.1, 0.17)
  builder.box(
    (-girth, -girth, 0),
    (girth, girth, fork + 1),
    'bark',
    'vegetation',
    top=False,
    repeat=(1, 4),
    offset=rng.random(2),
    tint=(0.6, 0.55, 0.5),
  )
  green = np.array([0.5, 0.68, 0.3]) * rng.uniform(0.7, 1.1) + np.array(
    [rng.uniform(-0.05, 0.2), 0, 0]
  )
  spread = rng.uniform(1.1, 1.6) * size
  _leafy(builder, rng, (0, 0, fork + 1.25 * spread), 0.7 * spread, 0.9 * green)
  for _ in range(15):
    direction = rng.standard_normal(3)
    direction *= rng.uniform(0.5, 1) / np.linalg.norm(direction)
    radius = spread * rng.uniform(0.25, 0.55)
    centre = direction * spread * (1, 1, 1.1) + (0, 0, fork + 1.25 * spread)
    # Less light reaches the lower boughs.
    _leafy(builder, rng, centre, radius, green * (0.95 + 0.25 * direction[2]))


def add_bush(builder, rng, *, size=1.0):
  """A bush of a few ellipsoids."""
  green = np.array([0.45, 0.62, 0.3]) * rng.uniform(0.7, 1.1)
  for _ in range(4):
    x, y = rng.uniform(-0.5, 0.5, 2) * size
    _leafy(
      builder, rng, (x, y, 0.35 * size), size * rng.uniform(0.4, 0.6), green
    )


def _leafy(builder, rng, centre, radius, green):
  radii = radius * rng.uniform(0.85, 1.15, 3)
  turns = max(1.0, np.round(2 * np.pi * radius / 2.2))
  builder.ellipsoid(
    centre,
    radii,
    'leaves',
    'vegetation',
    repeat=(turns, radius / 1.1),
    offset=rng.random(2),
    tint=green * rng.uniform(0.85, 1.15),
    detail=0.6,
  )


def add_lamp(builder, rng):
  """A street lamp whose arm reaches over the road, towards +y."""
  height, grey = rng.uniform(5.2, 6.4), rng.uniform(0.25, 0.55)
  look = {'tint': (grey, grey, grey)}
  builder.box((-0.07, -0.07, 0), (0.07, 0.07, height), 'plain', 'pole', **look)
  builder.box((-0.12, -0.12, 0), (0.12, 0.12, 0.9), 'plain', 'pole', **look)
  builder.box(
    (-0.04, -0.07, height - 0.08), (0.04, 1.6, height), 'plain', 'pole', **look
  )
  builder.box(
    (-0.12, 1.3, height - 0.14),
    (0.12, 1.95, height + 0.04),
    'plain',
    'pole',
    tint=(0.75, 0.75, 0.7),
  )


def add_pole(builder, rng, *, height=1.0):
  """A bollard or a plain mast."""
  half = 0.055 if height > 2 else 0.075
  grey = rng.uniform(0.15, 0.6)
  builder.box(
    (-half, -half, 0),
    (half, half, height),
    'bark',
    'pole',
    tint=(grey, grey, grey),
    repeat=(0.3, height),
  )


def add_sign(builder, rng):
  """One or two signs on a thin post, facing -x."""
  height, half = rng.uniform(2.3, 2.9), 0.04
  builder.box(
    (-half, -half, 0),
    (half, half, height),
    'plain',
    'pole',
    tint=(0.55, 0.56, 0.58),
  )
  face = rng.choice(['sign_ring', 'sign_triangle', 'sign_arrow', 'sign_plate'])
  shape = {'sign_triangle': {'taper': 0.5}, 'sign_plate': {}}.get(
    str(face), {'ring': (0, 1)}
  )
  width = 1.0 if face == 'sign_plate' else 0.76
  tall = 0.5 if face == 'sign_plate' else 0.72
  _plate(builder, height - tall, width, tall, str(face), shape)
  if rng.random() < 0.4:
    _plate(builder, height - tall - 0.36, 0.66, 0.32, 'sign_plate', {})


def _plate(builder, low, width, tall, face, shape):
  builder.quad(
    (-0.06, width / 2, low),
    (0, -width, 0),
    (0, 0, tall),
    face,
    'traffic sign',
    detail=0.1,
    **shape,
  )
  builder.quad(
    (-0.055, -width / 2, low),
    (0, width, 0),
    (0, 0, tall),
    'plain',
    'traffic sign',
    tint=(0.45, 0.46, 0.48),
    **shape,
  )


def add_light(builder, rng):
  """A traffic light on a post, facing -x, perhaps with a second on an arm."""
  look = {'tint': (0.3, 0.32, 0.3)}
  builder.box((-0.07, -0.07, 0), (0.07, 0.07, 3.4), 'plain', 'pole', **look)
  places = [(0, 2.4)]
  if rng.random() < 0.6:
    builder.box((-0.06, -0.07, 5.1), (0.06, 3.6, 5.22), 'plain', 'pole', **look)
    builder.box((-0.07, -0.07, 3.4), (0.07, 0.07, 5.2), 'plain', 'pole', **look)
    places.append((3.4, 4.25))
  for y, z in places:
    builder.box(
      (-0.35, y - 0.17, z),
      (-0.08, y + 0.17, z + 0.95),
      ('plain', 'lamps', 'plain', 'plain'),
      'traffic light',
      tint=(0.08, 0.08, 0.08),
      detail=0.1,
    )
