"""Which surface each sample of a frame sees: projection and a z-buffer.

A ray through pixel (x, y) is camera position + depth * rays @ (x, y, 1), with
depth along the optical axis. Along it a quad has u = q0 / q2, v = q1 / q2 and
inverse depth q2 with q linear in (x, y), so that its test costs a few
additions and its depth is exact.
"""

import dataclasses

import numpy as np

from input_pipeline.street import objects

SKY, GROUND, FIRST = 0, 1, 2  # surface ids; FIRST + i is primitive i
FARTHEST = 250.0  # metres; what lies beyond counts as sky

_NEAR = 0.3


@dataclasses.dataclass(frozen=True)
class View:
  """A camera at one moment."""

  position: np.ndarray  # [3] metres, in the world
  rotation: np.ndarray  # [3, 3] camera to world
  intrinsics: np.ndarray  # [3, 3] pixels, pixel centres at integers
  height: int  # pixels
  width: int  # pixels

  @property
  def rays(self) -> np.ndarray:
    """[3, 3]: pixel (x, y, 1) to the world direction of unit depth."""
    return self.rotation @ np.linalg.inv(self.intrinsics)


@dataclasses.dataclass(frozen=True)
class Surfaces:
  """The primitives that one view may see."""

  primitives: np.ndarray  # [P] `objects.PRIMITIVE`, in the world
  # [P, 3, 3]: q = coefficients @ (x, y, 1). A quad's q is above; an
  # ellipsoid's is the ray's direction in its unit sphere.
  coefficients: np.ndarray
  eye: np.ndarray  # [P, 3]: the camera in an ellipsoid's unit sphere
  bounds: np.ndarray  # [P, 4]: least, greatest x, least, greatest y, pixels
  closest: np.ndarray  # [P]: no part of the surface has larger inverse depth


def to_world(primitives: np.ndarray, body_pose: np.ndarray) -> np.ndarray:
  """Moves the bodies' primitives to their places in a frame.

  Args:
    primitives: [P] `objects.PRIMITIVE`.
    body_pose: [M, 4] x, y, z, yaw of each body.

  Returns:
    [P] `objects.PRIMITIVE` in the world.
  """
  x, y, z, yaw = body_pose[primitives['body']].T
  turn = np.zeros((len(yaw), 3, 3))
  turn[:, 0, 0] = turn[:, 1, 1] = np.cos(yaw)
  turn[:, 1, 0] = np.sin(yaw)
  turn[:, 0, 1] = -turn[:, 1, 0]
  turn[:, 2, 2] = 1
  moved = primitives.copy()
  origin = (turn @ primitives['origin'][:, :, None])[..., 0]
  moved['origin'] = origin + np.stack([x, y, z], 1)
  moved['axes'] = turn @ primitives['axes']
  return moved


def project(view: View, primitives: np.ndarray) -> Surfaces:
  """Drops surfaces out of view and prepares the others, nearest first.

  Args:
    view: the camera.
    primitives: [P] `objects.PRIMITIVE` in the world.
  """
  primitives = primitives[_candidates(view, primitives)]
  quad = primitives['kind'] == objects.QUAD
  towards = view.position - primitives['origin']
  matrix = primitives['axes'].copy()
  matrix[quad, :, 2] = -towards[quad]
  solid = np.abs(np.linalg.det(matrix)) > 1e-9
  primitives, matrix = primitives[solid], matrix[solid]
  towards, quad = towards[solid], quad[solid]
  inverse = np.linalg.inv(matrix)
  bounds = np.where(
    quad[:, None],
    _quad_bounds(view, primitives),
    _ellipsoid_bounds(view, primitives),
  )
  seen = (bounds[:, 0] < view.width) & (bounds[:, 1] > -1)
  seen &= (bounds[:, 2] < view.height) & (bounds[:, 3] > -1)
  order = np.argsort(np.linalg.norm(towards, axis=1), kind='stable')
  order = order[seen[order]]
  return Surfaces(
    primitives=primitives[order],
    coefficients=(inverse @ view.rays)[order],
    eye=(inverse @ towards[:, :, None])[order, :, 0],
    bounds=bounds[order],
    closest=_closest(view, primitives)[order],
  )


def _closest(view, primitives):
  depth = (primitives['origin'] - view.position) @ view.rotation[:, 2]
  u, v, w = primitives['axes'].transpose(2, 0, 1) @ view.rotation[:, 2]
  quad = primitives['kind'] == objects.QUAD
  least = depth + np.where(
    quad, np.minimum(u, 0) + np.minimum(v, 0), -np.sqrt(u**2 + v**2 + w**2)
  )
  # A little more, so that rounding never hides a surface in front.
  return 1.001 / np.maximum(least, 0.5 * _NEAR)


def _candidates(view, primitives):
  quad = primitives['kind'] == objects.QUAD
  half = 0.5 * (primitives['axes'][:, :, 0] + primitives['axes'][:, :, 1])
  centre = primitives['origin'] + np.where(quad[:, None], half, 0)
  radius = np.linalg.norm(primitives['axes'], axis=(1, 2))
  radius = np.where(quad, np.linalg.norm(half, axis=1) * 1.5, radius)
  local = (centre - view.position) @ view.rotation
  ahead = (local[:, 2] > -radius) & (local[:, 2] < 170)
  inside = np.abs(local[:, 0]) < local[:, 2] * 1.1 + 2 * radius + 1
  towards = view.position - primitives['origin']
  facing = np.einsum('pi,pi->p', towards, primitives['axes'][:, :, 2]) > 0
  facing |= primitives['two_sided'] > 0
  clear = np.where(quad, facing, local[:, 2] > radius + _NEAR)
  return np.flatnonzero(ahead & inside & clear)


def _quad_bounds(view, primitives):
  """[P, 4] bounds of the part of each quad before the near plane."""
  u, v = primitives['axes'][:, :, 0], primitives['axes'][:, :, 1]
  o = primitives['origin'] - view.position
  corners = np.stack([o, o + u, o + u + v, o + v], 1) @ view.rotation
  following = np.roll(corners, -1, 1)
  z0, z1 = corners[..., 2], following[..., 2]
  crosses = (z0 < _NEAR) != (z1 < _NEAR)
  fraction = np.where(crosses, _NEAR - z0, 0) / np.where(crosses, z1 - z0, 1)
  cuts = corners + fraction[..., None] * (following - corners)
  points = np.concatenate([corners, cuts], 1)
  valid = np.concatenate([z0 >= _NEAR, crosses], 1)
  z = np.where(valid, points[..., 2], 1)
  k = view.intrinsics
  x = points[..., 0] / z * k[0, 0] + k[0, 2]
  y = points[..., 1] / z * k[1, 1] + k[1, 2]
  bounds = []
  for values in (x, y):
    bounds.append(np.where(valid, values, np.inf).min(1))
    bounds.append(np.where(valid, values, -np.inf).max(1))
  return np.stack(bounds, 1)


def _ellipsoid_bounds(view, primitives):
  """[P, 4] from the dual conic of each ellipsoid's outline."""
  centre = (primitives['origin'] - view.position) @ view.rotation
  axes = view.rotation.T @ primitives['axes']
  dual = axes @ axes.transpose(0, 2, 1) - centre[:, :, None] * centre[:, None]
  dual = view.intrinsics @ dual @ view.intrinsics.T
  bounds, last = [], np.minimum(dual[:, 2, 2], -1e-9)
  for i in (0, 1):
    middle = dual[:, i, 2]
    spread = np.sqrt(np.maximum(middle**2 - dual[:, i, i] * last, 0))
    bounds += [(middle + spread) / last, (middle - spread) / last]
  return np.stack(bounds, 1)


def rasterise(view: View, surfaces: Surfaces, samples: int) -> np.ndarray:
  """Finds the nearest surface at samples x samples points of every pixel.

  Args:
    view: the camera.
    surfaces: those it may see.
    samples: odd int; the middle point is the pixel's centre.

  Returns:
    [H, samples, W, samples] int32 ids: `SKY`, `GROUND` or `FIRST` + row.
  """
  x = (np.arange(view.width * samples) + 0.5) / samples - 0.5
  y = (np.arange(view.height * samples) + 0.5) / samples - 0.5
  down = -view.rays[2] / view.position[2]
  nearest = np.add.outer(down[1] * y + down[2], down[0] * x)
  nearest = nearest.astype(np.float32)
  ids = np.where(nearest > 1 / FARTHEST, GROUND, SKY).astype(np.int32)
  np.maximum(nearest, 1 / FARTHEST, out=nearest)
  limits = np.repeat([len(x), len(y)], 2)
  cells = (surfaces.bounds + 0.5) * samples
  cells = np.clip(np.floor(cells + [0, 1, 0, 1]), 0, limits).astype(int)
  quad = surfaces.primitives['kind'] == objects.QUAD
  tests = (_ellipsoid_test, _quad_test)
  for i, (x0, x1, y0, y1) in enumerate(cells.tolist()):
    if x0 < x1 and y0 < y1:
      window = nearest[y0:y1, x0:x1]
      if window.min() >= surfaces.closest[i]:
        continue
      test = tests[int(quad[i])]
      inverse, keep = test(surfaces, i, x[x0:x1], y[y0:y1], window)
      np.copyto(window, inverse, where=keep)
      np.copyto(ids[y0:y1, x0:x1], FIRST + i, where=keep)
  return ids.reshape(view.height, samples, view.width, samples)


def _quad_test(surfaces, i, x, y, window):
  a = surfaces.coefficients[i]
  q2 = _linear(a[2], x, y)
  keep = q2 > window
  q0, q1 = _linear(a[0], x, y), _linear(a[1], x, y)
  keep &= q0 >= 0
  keep &= q0 <= q2
  keep &= q1 >= 0
  keep &= q1 <= q2
  taper, ring, picket = surfaces.primitives[['taper', 'ring', 'picket']][i]
  if taper or ring[1] or picket:
    inverse = 1 / np.where(keep, q2, 1)
    keep &= _outline(q0 * inverse, q1 * inverse, taper, ring, picket)
  return q2, keep


def _linear(a, x, y):
  column, row = a[1] * y + a[2], a[0] * x
  return np.add.outer(column.astype(np.float32), row.astype(np.float32))


def _outline(u, v, taper, ring, picket):
  """Returns whether (u, v) in the unit square is inside a quad's outline."""
  inside = np.abs(u - 0.5) <= 0.5 - taper * v
  if ring[1]:
    radius = np.hypot(2 * u - 1, 2 * v - 1)
    inside &= (radius >= ring[0]) & (radius <= ring[1])
  if picket:
    inside &= (u * picket) % 1 < 0.62
  return inside


def _ellipsoid_test(surfaces, i, x, y, window):
  a, eye = surfaces.coefficients[i].copy(), surfaces.eye[i]
  # From the window's middle the terms are small enough for 32 bits.
  middle_x, middle_y = x[len(x) // 2], y[len(y) // 2]
  a[:, 2] += a[:, 0] * middle_x + a[:, 1] * middle_y
  x, y = x - middle_x, y - middle_y
  beyond = eye @ eye - 1
  gram = a.T @ a
  b = a.T @ eye
  form = np.outer(b, b) - beyond * gram
  column = (form[1, 1] * y + 2 * form[1, 2]) * y + form[2, 2]
  row = (form[0, 0] * x + 2 * form[0, 2]) * x
  root = np.add.outer(column.astype(np.float32), row.astype(np.float32))
  slope = (2 * form[0, 1] * y).astype(np.float32)
  root += np.multiply.outer(slope, x.astype(np.float32))
  keep = root > 0
  inverse = np.sqrt(np.maximum(root, 0, out=root), out=root)
  inverse -= _linear(b, x, y)
  inverse *= np.float32(1 / beyond)
  keep &= inverse > window
  return inverse, keep
