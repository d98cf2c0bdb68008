"""Road, kerb, pavement and grass: two horizontal planes and a step."""

import numpy as np

from input_pipeline.street import objects
from input_pipeline.street import road as street_road

_HALF = street_road.HALF_WIDTH
_EDGE = street_road.HALF_WIDTH + street_road.PAVEMENT
_PAINT = 0.78  # brightness of road markings


class Ground:
  """The ground of a scene.

  Args:
    scene: `street_scene.Scene`.
  """

  def __init__(self, scene):
    self._road, self._atlas = scene.road, scene.atlas
    self._crossings = scene.crossings

  def shade(self, view, x, y):
    """Intersects rays with the ground.

    Args:
      view: `street_visibility.View`.
      x: [N] float, pixels; every ray must go down.
      y: [N] float, pixels.

    Returns:
      depth [N] float64 (metres along the optical axis), labels [N] uint8,
      colours [N, 3] float32 in [0, 1], and where the rays meet the road's
      plane, [N, 2] float64 metres.
    """
    low, road = self._meet(view, x, y, 0.0)
    high, pavement = self._meet(view, x, y, street_road.KERB, road['s'])
    beside, on = np.abs(pavement['lateral']), np.abs(road['lateral'])
    depth = np.where(beside > _HALF, high['depth'], low['depth'])
    step = (beside <= _HALF) & (on > _HALF)
    part = (on[step] - _HALF) / (on[step] - beside[step])
    depth[step] += part * (high['depth'][step] - low['depth'][step])
    label = np.full(len(x), objects.LABEL['sidewalk'], np.uint8)
    label[on <= _HALF] = objects.LABEL['road']
    label[beside > _HALF] = objects.LABEL['sidewalk']
    label[beside > _EDGE] = objects.LABEL['terrain']
    colour = self._colour(low, road, high, pavement)
    return depth, label, colour, low['point']

  def _meet(self, view, x, y, height, guess=None):
    """Where rays meet a plane, and the pixel's footprint there."""
    rays = view.rays
    d = rays @ np.stack([x, y, np.ones_like(x)])
    reach = (height - view.position[2]) / d[2]
    point = (view.position[:2, None] + reach * d[:2]).T
    # d(point)/d(pixel), by the quotient rule: [N, 2 (east, north)] for x, y.
    steps = [
      ((rays[:2, i, None] - d[:2] * rays[2, i] / d[2]) * reach).T
      for i in (0, 1)
    ]
    s, lateral, heading = self._road.locate(*point.T, guess=guess)
    c, n = np.cos(heading), np.sin(heading)
    along = [np.abs(c * step[:, 0] + n * step[:, 1]) for step in steps]
    across = [np.abs(c * step[:, 1] - n * step[:, 0]) for step in steps]
    plane = {'depth': reach, 'point': point}
    place = {
      's': s,
      'lateral': lateral,
      'width_s': along[0] + along[1],
      'width_lateral': across[0] + across[1],
    }
    return plane, place

  def _colour(self, low, road, high, pavement):
    on_road = _covers(
      np.abs(road['lateral']), -_HALF, _HALF, road['width_lateral']
    )
    beside = np.abs(pavement['lateral'])
    on_pavement = _covers(beside, _HALF, 1e6, pavement['width_lateral'])
    on_grass = _covers(beside, _EDGE, 1e6, pavement['width_lateral'])
    on_road = np.minimum(on_road, 1 - on_pavement)
    colour = np.full((len(beside), 3), 0.6, np.float32)  # the kerb's face
    colour *= (1 - on_road - on_pavement).astype(np.float32)[:, None]
    for weight, plane, place, shade in (
      (on_road, low, road, self._asphalt),
      (on_pavement - on_grass, high, pavement, self._slabs),
      (on_grass, high, pavement, self._grass),
    ):
      rows = np.flatnonzero(weight > 1e-3)
      part = {name: values[rows] for name, values in place.items()}
      tone = shade({**part, 'point': plane['point'][rows]})
      colour[rows] += weight[rows, None].astype(np.float32) * tone
    return colour

  def _asphalt(self, place):
    tone = self._tile('asphalt', place, 8.0)
    tone *= 0.6 + 0.8 * self._tile('detail', place, 2.7)[:, :1]
    tone *= 0.8 + 0.4 * self._tile('blotch', place, 31.0)[:, :1]
    worn = 0.75 + 0.5 * (self._tile('detail', place, 5.3)[:, :1] - 0.5)
    paint = (self._markings(place)[:, None] * worn).astype(np.float32)
    return tone + paint * (_PAINT - tone)

  def _slabs(self, place):
    tone = self._tile('slabs', place, 2.4)
    tone *= 0.75 + 0.5 * self._tile('detail', place, 3.1)[:, :1]
    tone *= 0.75 + 0.5 * self._tile('blotch', place, 17.0)[:, :1]
    # A row of kerb stones runs along the road.
    stone = _covers(
      np.abs(place['lateral']), 0, _HALF + 0.2, place['width_lateral']
    ).astype(np.float32)
    return tone * (1 + 0.2 * stone[:, None])

  def _grass(self, place):
    # In world coordinates: the road's are ill-conditioned far from it.
    width = np.maximum(place['width_s'], place['width_lateral'])
    place = {
      's': place['point'][:, 0],
      'lateral': place['point'][:, 1],
      'width_s': width,
      'width_lateral': width,
    }
    tone = self._tile('grass', place, 3.7)
    return tone * (0.6 + 0.8 * self._tile('blotch', place, 23.0)[:, :1])

  def _tile(self, name, place, metres):
    texture = np.full(len(place['s']), self._atlas.index[name])
    return self._atlas.sample(
      texture,
      place['s'] / metres,
      place['lateral'] / metres,
      place['width_s'] / metres,
      place['width_lateral'] / metres,
    )[:, :3]

  def _markings(self, place):
    """[N] share of each footprint that is painted."""
    s, lateral = place['s'], place['lateral']
    width_s, width = place['width_s'], place['width_lateral']
    side = np.abs(lateral)
    dashes = _repeats(s, 6.0, 2.6, width_s)
    paint = _covers(lateral, -0.08, 0.08, width) * dashes
    kerbside = street_road.PARKING - 1.05
    paint += _covers(side, kerbside - 0.06, kerbside + 0.06, width)
    bays = _repeats(s, 12.0, 0.12, width_s)
    paint += _covers(side, kerbside, _HALF - 0.3, width) * bays
    crossing = np.zeros_like(s)
    for start in self._crossings:
      crossing += _covers(s, start - 1.5, start + 1.5, width_s)
      stop = _covers(s, start - 3.1, start - 2.7, width_s)
      paint += stop * _covers(lateral, -kerbside, -0.1, width)
      stop = _covers(s, start + 2.7, start + 3.1, width_s)
      paint += stop * _covers(lateral, 0.1, kerbside, width)
    stripes = _repeats(lateral + 100, 1.0, 0.5, width)
    inside = _covers(side, -1, _HALF - 0.3, width)
    return np.clip(paint * (1 - crossing) + crossing * stripes * inside, 0, 1)


def _covers(value, low, high, width):
  """Share of an interval of this width around the value within [low, high]."""
  half = 0.5 * width
  return (
    np.clip(value + half, low, high) - np.clip(value - half, low, high)
  ) / width


def _repeats(value, period, length, width):
  """The same for [0, length] repeated at every period."""

  def integral(t):
    turns = np.floor(t / period)
    return turns * length + np.minimum(t - turns * period, length)

  return (integral(value + 0.5 * width) - integral(value - 0.5 * width)) / width


def darken(view, points, shadows, body_pose):
  """Soft shadows beneath vehicles.

  Args:
    view: `street_visibility.View`.
    points: [H, W, 2] float, where each pixel's ray meets the road, NaN where
      it sees no ground.
    shadows: [S, 6] float, as in `street_scene.Scene`.
    body_pose: [M, 4] float, the bodies of this frame.

  Returns:
    [H, W] float32 in (0, 1]: how much light is left.
  """
  light = np.ones(points.shape[:2], np.float32)
  pose = body_pose[shadows[:, 0].astype(int)]
  c, s = np.cos(pose[:, 3]), np.sin(pose[:, 3])
  x = pose[:, 0] + c * shadows[:, 1] - s * shadows[:, 2]
  y = pose[:, 1] + s * shadows[:, 1] + c * shadows[:, 2]
  yaw, half = pose[:, 3] + shadows[:, 3], shadows[:, 4:6]
  ends = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * (half + 0.4)[:, None]
  c, s = np.cos(yaw), np.sin(yaw)
  corner_x = x[:, None] + c[:, None] * ends[..., 0] - s[:, None] * ends[..., 1]
  corner_y = y[:, None] + s[:, None] * ends[..., 0] + c[:, None] * ends[..., 1]
  corners = np.stack([corner_x, corner_y, np.zeros_like(corner_x)], -1)
  local = (corners - view.position) @ view.rotation
  ahead = (local[..., 2].min(1) > 1) & (local[..., 2].max(1) < 80)
  pixels = local[ahead] @ view.intrinsics.T
  pixels = pixels[..., :2] / pixels[..., 2:]
  first = np.floor(np.maximum(pixels.min(1), 0)).astype(int)
  last = np.ceil(np.maximum(pixels.max(1), 0)).astype(int) + 1
  for i, (x0, y0), (x1, y1) in zip(
    np.flatnonzero(ahead), first, last, strict=True
  ):
    offset = points[y0:y1, x0:x1] - (x[i], y[i])
    along = np.abs(c[i] * offset[..., 0] + s[i] * offset[..., 1])
    across = np.abs(c[i] * offset[..., 1] - s[i] * offset[..., 0])
    soft = np.clip((half[i, 0] + 0.3 - along) / 0.6, 0, 1) * np.clip(
      (half[i, 1] + 0.3 - across) / 0.6, 0, 1
    )
    light[y0:y1, x0:x1] *= 1 - 0.72 * np.nan_to_num(soft)
  return light
