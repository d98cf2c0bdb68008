"""Lays out the street of one drive, from a seed."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from input_pipeline.street import objects, route, textures

_PAINTS = np.array([
  (0.85, 0.86, 0.87), (0.12, 0.12, 0.14), (0.5, 0.52, 0.55), (0.62, 0.1, 0.1),
  (0.12, 0.22, 0.5), (0.3, 0.33, 0.36), (0.75, 0.7, 0.6), (0.15, 0.35, 0.25),
  (0.8, 0.55, 0.15), (0.35, 0.5, 0.62),
])  # fmt: skip
# (storeys, bays) of the house fronts.
_FACADES = ((2, 3), (2, 4), (3, 3), (3, 4), (3, 5), (4, 4), (4, 5), (2, 5))
_EDGE = route.HALF_WIDTH + route.PAVEMENT


@dataclasses.dataclass(frozen=True)
class Scene:
  """One drive of N frames: its objects, their places and motions."""

  road: route.Road
  motion: route.Motion
  atlas: textures.Atlas
  fixed: np.ndarray  # [P] `objects.PRIMITIVE`, in the world
  moving: np.ndarray  # [P] `objects.PRIMITIVE`, in frames of bodies 1 .. M
  # [N, M + 1, 4]: x, y, z in metres and yaw in radians of each body in the
  # world; body 0 is the world.
  body_pose: np.ndarray
  # [S, 6]: body, x, y, yaw, half length, half width of what darkens the road
  # below it.
  shadows: np.ndarray
  crossings: np.ndarray  # [C] arc lengths of the zebra crossings


def create_scene(seed: int, drive: int, frames: int) -> Scene:
  """Builds a drive; the same arguments give the same scene.

  Args:
    seed: non-negative.
    drive: the drive's number, from 1.
    frames: number of frames, at 10 Hz.
  """
  rng = np.random.default_rng((seed, drive))
  atlas = textures.Atlas(textures.paint_all(rng, _FACADES))
  s = route.travel(rng, frames)
  road = route.Road(rng, s[-1])
  motion = route.drive(rng, road, s)
  layout = _Layout(rng, road, atlas, s)
  return Scene(
    road=road,
    motion=motion,
    atlas=atlas,
    fixed=layout.fixed.build(),
    moving=layout.moving.build(),
    body_pose=np.stack(layout.body_pose, 1),
    shadows=np.array(layout.shadows, float).reshape(-1, 6),
    crossings=np.array(layout.crossings),
  )


class _Layout:
  """Places objects along the road."""

  def __init__(self, rng, road, atlas, travelled):
    self.rng, self.road, self.travelled = rng, road, travelled
    self.fixed = objects.Builder(atlas.index)
    self.moving = objects.Builder(atlas.index)
    self.body_pose = [np.zeros((len(travelled), 4))]
    self.shadows = []
    self.crossings = []
    s = rng.uniform(20, 45)
    while s < road.end:
      self.crossings.append(s)
      s += rng.uniform(45, 80)
    for side in (-1, 1):
      self._add_frontage(side)
      self._add_woods(side)
      self._add_furniture(side)
      self._add_parked_cars(side)
    self._add_traffic()
    self._add_walkers()

  def _along(self, low: float, high: float) -> Iterator[float]:
    """Yields arc lengths over the whole road, at steps of `low` to `high`."""
    s = self.road.start + 20 + self.rng.uniform(0, high)
    while s < self.road.end - 20:
      yield s
      s += self.rng.uniform(low, high)

  def _stand(self, s, side, lateral, *, turn=0.0, z=route.KERB):
    """Points the builder's +y at the road's middle on `side` (-1 = right)."""
    x, y, heading = self.road.pose(s, side * lateral)
    yaw = heading + (np.pi if side > 0 else 0) + turn
    self.fixed.place((x, y, z), yaw)
    return x, y, yaw

  def _add_frontage(self, side):
    rng, s = self.rng, self.road.start + 5
    while s < self.road.end - 25:
      front = int(rng.integers(len(_FACADES)))
      length = _FACADES[front][1] * rng.uniform(2.7, 3.4)
      kind = rng.random()
      gap = rng.uniform(0, 0.6)
      if kind < 0.62:
        setback = rng.uniform(0, 0.5)
        self._add_house(side, s + length / 2, length, setback, front)
      elif kind < 0.85:
        self._add_garden(side, s, length)
        setback = rng.uniform(4, 7)
        self._add_house(side, s + length / 2, length, setback, front)
      else:
        length += 5
        self._add_garden(side, s, length)
        for step in np.arange(2, length, 4):
          self._stand(s + step, side, _EDGE + rng.uniform(3, 9))
          objects.add_tree(self.fixed, rng, size=rng.uniform(1, 1.5))
      s += length + gap

  def _add_house(self, side, s, length, setback, front):
    rng, fixed, label = self.rng, self.fixed, 'building'
    depth = rng.uniform(8, 11)
    height = _FACADES[front][0] * rng.uniform(2.9, 3.5)
    self._stand(s, side, _EDGE + setback)
    tint = rng.uniform(0.9, 1.12) * rng.uniform(0.94, 1.06, 3)
    half = length / 2
    # +y faces the road, so the front is the y = 0 plane seen from +y.
    origin, u, v = (half, 0, 0), (-length, 0, 0), (0, 0, height)
    look = {'tint': tint, 'detail': 0.4}
    fixed.quad(origin, u, v, f'facade{front}', label, **look)
    low, high = (-half, -depth, 0), (half, -0.02, height)
    faces = 'bricks', 'bricks', 'plain', 'roof'
    look['tint'] = tint * (0.85, 0.74, 0.66)
    fixed.box(low, high, faces, label, metres=2.4, **look)
    low, high = (-half, -0.3, height - 0.25), (half, 0.35, height + 0.1)
    fixed.box(low, high, 'plain', label, tint=(0.55, 0.52, 0.48))
    if rng.random() < 0.6:
      self._add_gable(half, depth, height, tint)
    for x in np.arange(-half + 1.8, half - 1.5, rng.uniform(2.6, 4)):
      self._add_front_detail(x, height)

  def _add_gable(self, half, depth, height, tint):
    quad, rise, label = self.fixed.quad, self.rng.uniform(2, 3.4), 'building'
    brown = np.array([0.62, 0.36, 0.28]) * self.rng.uniform(0.6, 1.1)
    look = {'repeat': (half, 2.5), 'detail': 0.5, 'tint': brown}
    origin, u, v = (half, 0.3, height), (-2 * half, 0, 0), -depth / 2 - 0.3
    quad(origin, u, (0, v, rise), 'roof', label, **look)
    origin, u, v = (-half, -depth, height), (2 * half, 0, 0), depth / 2
    quad(origin, u, (0, v, rise), 'roof', label, **look)
    tint = tint * (0.75, 0.66, 0.58)
    look = {'taper': 0.5, 'repeat': (4, 1), 'tint': tint}
    for x, y, along in ((half, -depth, depth), (-half, 0.0, -depth)):
      u, v = (0, along, 0), (0, 0, rise)
      quad((x, y, height), u, v, 'bricks', label, **look)

  def _add_front_detail(self, x, height):
    rng, fixed, label = self.rng, self.fixed, 'building'
    kind = rng.random()
    if kind < 0.18:  # an awning
      low, high = (x - 1, 0, 2.6), (x + 1, 0.9, 2.72)
      fixed.box(low, high, 'boards', label, tint=rng.uniform(0.3, 1, 3))
    elif kind < 0.4 and height > 7:  # a balcony
      z = rng.choice([3.2, 6.0])
      low, high = (x - 0.9, 0, z), (x + 0.9, 0.8, z + 0.14)
      fixed.box(low, high, 'plain', label, tint=(0.6, 0.58, 0.55))
      low, high = (x - 0.9, 0.74, z + 0.14), (x + 0.9, 0.8, z + 1)
      fixed.box(low, high, 'boards', label, tint=rng.uniform(0.3, 0.7))
    elif kind < 0.55:  # a step
      fixed.box((x - 0.8, 0, 0), (x + 0.8, 0.5, 0.2), 'stones', label)
    elif kind < 0.7:  # a rainwater pipe
      low, high = (x - 0.05, 0, 0), (x + 0.05, 0.1, height - 0.3)
      fixed.box(low, high, 'plain', label, tint=0.5)

  def _add_garden(self, side, s, length):
    """Adds a fence, a wall or a hedge along the pavement, and bushes behind."""
    rng, kind = self.rng, self.rng.random()
    paints = [(0.8, 0.78, 0.75), (0.5, 0.36, 0.25), (0.3, 0.34, 0.32)]
    paint = rng.choice(paints)
    steps = np.linspace(s, s + length, max(2, int(length / 3)) + 1)
    for start, stop in zip(steps[:-1], steps[1:], strict=True):
      # Along the chord, so that the pieces meet on a bend.
      x0, y0, _ = self.road.pose(start, side * _EDGE)
      x1, y1, _ = self.road.pose(stop, side * _EDGE)
      yaw = np.arctan2(y1 - y0, x1 - x0)
      span = np.hypot(x1 - x0, y1 - y0)
      self.fixed.place((x0, y0, route.KERB), yaw)
      if kind < 0.5:
        self._add_fence(span, paint)
      elif kind < 0.75:
        low, high, tint = (0, -0.12, 0), (span, 0.12, 1.1), (0.85, 0.8, 0.72)
        look = {'metres': 1.6, 'tint': tint, 'detail': 0.6}
        self.fixed.box(low, high, 'stones', 'wall', **look)
      else:
        low, high, tint = (0, -0.35, 0), (span, 0.35, 1.2), (0.42, 0.6, 0.28)
        look = {'metres': 1.5, 'tint': tint, 'detail': 0.6}
        self.fixed.box(low, high, 'leaves', 'vegetation', **look)
      self._stand(0.5 * (start + stop), side, _EDGE + rng.uniform(1, 2.5))
      objects.add_bush(self.fixed, rng, size=rng.uniform(0.8, 1.5))

  def _add_fence(self, span, tint):
    box, label = self.fixed.box, 'fence'
    look = {'picket': np.round(span / 0.28), 'repeat': (span / 4.5, 1)}
    look |= {'two_sided': 1, 'tint': tint}
    origin, u, v = (0, 0, 0.1), (span, 0, 0), (0, 0, 1.1)
    self.fixed.quad(origin, u, v, 'boards', label, **look)
    for z in (0.3, 0.85):
      low, high = (0, -0.03, z), (span, 0.03, z + 0.1)
      box(low, high, 'plain', label, tint=np.multiply(tint, 0.8))
    low, high = (-0.07, -0.07, 0), (0.07, 0.07, 1.3)
    box(low, high, 'plain', label, tint=np.multiply(tint, 0.7))

  def _add_woods(self, side):
    """Adds woods behind the houses, which close the view."""
    for lateral in (24, 45, 75):
      for s in self._along(5, 9):
        self._stand(s, side, lateral + self.rng.uniform(-4, 4), z=0)
        objects.add_bush(self.fixed, self.rng, size=self.rng.uniform(5, 9))

  def _add_furniture(self, side):
    rng, edge = self.rng, route.HALF_WIDTH
    for s in self._along(16, 24):
      self._stand(s, side, edge + 0.5)
      objects.add_lamp(self.fixed, rng)
    for s in self._along(8, 16):
      self._stand(s, side, edge + rng.uniform(0.7, 0.9))
      objects.add_tree(self.fixed, rng, size=rng.uniform(0.75, 1.05))
    for s in self._along(9, 17):
      # Signs face the traffic of their side.
      self._stand(s, side, edge + rng.uniform(0.35, 0.6))
      objects.add_sign(self.fixed, rng)
    for s in self.crossings:
      self._stand(s + side * 3.2 * -1, side, edge + 0.4)
      objects.add_light(self.fixed, rng)
    for s in self._along(12, 26):
      for step in range(int(rng.integers(2, 6))):
        self._stand(s + 1.3 * step, side, edge + 0.3)
        objects.add_pole(self.fixed, rng)
    for s in self._along(40, 70):
      self._stand(s, side, edge + 2.6)
      objects.add_pole(self.fixed, rng, height=8.5)
    for s in self._along(12, 28):
      lateral = edge + rng.uniform(1, 1.3)
      turn = rng.choice([0.0, np.pi]) + rng.uniform(-0.3, 0.3)
      self._stand(s, side, lateral, turn=turn)
      objects.add_bicycle(self.fixed, rng)
    for s in self._along(7, 14):
      for _ in range(int(rng.integers(1, 3))):
        where = s + rng.uniform(-0.8, 0.8)
        lateral = edge + rng.uniform(1.3, 2.6)
        self._stand(where, side, lateral, turn=rng.uniform(0, 2 * np.pi))
        objects.add_person(self.fixed, rng)

  def _add_parked_cars(self, side):
    rng, s = self.rng, self.road.start + 20
    while s < self.road.end - 20:
      # Only cars: a bus is wider than the strip, and one passed at arm's length
      # fills a third of the picture, too near for neighbours to match it.
      length = rng.uniform(5.2, 6.2)
      s += length
      middle = s - length / 2
      near = np.abs(np.array(self.crossings) - middle).min() <= 6
      if rng.random() < 0.36 or near:
        continue
      turn = rng.uniform(-0.03, 0.03)
      x, y, yaw = self._stand(middle, side, route.PARKING, z=0, turn=turn)
      self._add_vehicle(self.fixed, 'car')
      self.shadows.append((0, x, y, yaw, length / 2 - 0.8, 0.95))

  def _add_vehicle(self, builder, kind):
    paint = self.rng.choice(_PAINTS)
    if kind == 'car':
      objects.add_car(builder, self.rng, paint)
    else:
      objects.add_bus(builder, kind, paint, 8.0)

  def _add_body(self, s, lateral, *, towards=0.0, z=0.0):
    """Adds a moving body at arc lengths s [N]; returns its number."""
    x, y, heading = self.road.pose(s, lateral)
    pose = np.stack([x, y, np.full_like(x, z), heading + towards], 1)
    self.body_pose.append(pose)
    body = len(self.body_pose) - 1
    self.moving.place(body=body)
    return body

  def _add_traffic(self):
    """Adds oncoming vehicles, cyclists and, on some drives, a car ahead."""
    rng, lane = self.rng, route.LANE
    time = np.arange(len(self.travelled)) / route.FRAME_RATE
    reach = self.travelled[-1] + 160 + 9 * time[-1]
    start, speed = rng.uniform(20, 45), rng.uniform(5, 9)
    while start < reach:
      kind = rng.choice(['car', 'bus', 'truck'], p=[0.8, 0.1, 0.1])
      body = self._add_body(start - speed * time, lane, towards=np.pi)
      self._add_vehicle(self.moving, kind)
      half = 2.1 if kind == 'car' else 4.2
      self.shadows.append((body, 0, 0, 0, half, 0.95))
      start += rng.uniform(35, 80)
    speed = rng.uniform(3, 5)
    for start in np.arange(rng.uniform(15, 30), reach, 45):
      self._add_body(start - speed * time, 4.0, towards=np.pi)
      objects.add_bicycle(self.moving, rng, rider=True)
    if rng.random() < 0.35:
      gap = rng.uniform(14, 24) + 5 * np.sin(
        2 * np.pi * (time / rng.uniform(8, 14) + rng.random())
      )
      body = self._add_body(self.travelled + gap, -lane)
      self._add_vehicle(self.moving, 'car')
      self.shadows.append((body, 0, 0, 0, 2.1, 0.95))

  def _add_walkers(self):
    rng = self.rng
    time = np.arange(len(self.travelled)) / route.FRAME_RATE
    for side in (-1, 1):
      for start in self._along(10, 22):
        forward = rng.random() < 0.5
        s = start + (1 if forward else -1) * rng.uniform(0.9, 1.6) * time
        lateral = side * (route.HALF_WIDTH + rng.uniform(1.2, 2.5))
        towards = 0 if forward else np.pi
        self._add_body(s, lateral, towards=towards, z=route.KERB)
        objects.add_person(self.moving, rng)
