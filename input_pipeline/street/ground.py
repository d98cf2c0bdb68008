"""Road, kerb, pavement and grass: two horizontal planes and a step."""

import numpy as np

from input_pipeline.street import layout, objects, route, visibility

_HALF = route.HALF_WIDTH
_EDGE = route.HALF_WIDTH + route.PAVEMENT
_PAINT = 0.78  # brightness of road markings


class Ground:
  """The ground of a scene."""

  def __init__(self, scene: layout.Scene):
    self._road, self._atlas = scene.road, scene.atlas
    self._crossings = scene.crossings

  def shade(
    self, view: visibility.View, x: np.ndarray, y: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intersects rays with the ground.

    Args:
      view: the camera.
      x: [N] pixels; every ray must go down.
      y: [N] pixels.

    Returns:
      depth [N] float64 (metres along the optical axis), labels [N] uint8,
      colours [N, 3] float32 in [0, 1], and where the rays meet the road's
      plane, [N, 2] float64 metres.
    """
    low, road = self._meet(view, x, y, 0.0)
    high, pavement = self._meet(view, x, y, route.KERB, road['s'])
    side, on = np.abs(pavement['lateral']), np.abs(road['lateral'])
    depth = np.where(side > _HALF, high['depth'], low['depth'])
    step = (side <= _HALF) & (on > _HALF)
    part = (on[step] - _HALF) / (on[step] - side[step])
    depth[step] += part * (high['depth'][step] - low['depth'][step])
    label = np.full(len(x), objects.LABEL['sidewalk'], np.uint8)
    label[on <= _HALF] = objects.LABEL['road']
    label[side > _HALF] = objects.LABEL['sidewalk']
    label[side > _EDGE] = objects.LABEL['terrain']
    colour = self._colour(low, road, high, pavement)
    return depth, label, colour, low['point']

  def _meet(self, view, x, y, height, guess=None):
    """Returns where rays meet a plane, and the pixel's footprint there."""
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
    place = dict(s=s, lateral=lateral, width_s=along[0] + along[1])
    return plane, place | {'width_lateral': across[0] + across[1]}

  def _colour(self, low, road, high, pavement):
    side, width = np.abs(road['lateral']), road['width_lateral']
    on_road = _covers(side, -_HALF, _HALF, width)
    side, width = np.abs(pavement['lateral']), pavement['width_lateral']
    on_pavement = _covers(side, _HALF, 1e6, width)
    on_grass = _covers(side, _EDGE, 1e6, width)
    on_road = np.minimum(on_road, 1 - on_pavement)
    colour = np.full((len(side), 3), 0.6, np.float32)  # the kerb's face
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
    side, width = np.abs(place['lateral']), place['width_lateral']
    stone = _covers(side, 0, _HALF + 0.2, width).astype(np.float32)
    return tone * (1 + 0.2 * stone[:, None])

  def _grass(self, place):
    # In world coordinates: the road's are ill-conditioned far from it.
    width = np.maximum(place['width_s'], place['width_lateral'])
    s, lateral = place['point'].T
    place = dict(s=s, lateral=lateral, width_s=width, width_lateral=width)
    tone = self._tile('grass', place, 3.7)
    return tone * (0.6 + 0.8 * self._tile('blotch', place, 23.0)[:, :1])

  def _tile(self, name, place, metres):
    texture = np.full(len(place['s']), self._atlas.index[name])
    names = 's', 'lateral', 'width_s', 'width_lateral'
    where = (place[name] / metres for name in names)
    return self._atlas.sample(texture, *where)[:, :3]

  def _markings(self, place):
    """[N] share of each footprint that is painted."""
    s, lateral = place['s'], place['lateral']
    width_s, width = place['width_s'], place['width_lateral']
    side = np.abs(lateral)
    dashes = _repeats(s, 6.0, 2.6, width_s)
    paint = _covers(lateral, -0.08, 0.08, width) * dashes
    kerbside = route.PARKING - 1.05
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
  first = np.clip(value - 0.5 * width, low, high)
  return (np.clip(value + 0.5 * width, low, high) - first) / width


def _repeats(value, period, length, width):
  """Share of an interval within [0, length], repeated at every period."""

  def integral(t):
    turns = np.floor(t / period)
    return turns * length + np.minimum(t - turns * period, length)

  return (integral(value + 0.5 * width) - integral(value - 0.5 * width)) / width


def darken(
  view: visibility.View,
  points: np.ndarray,
  shadows: np.ndarray,
  body_pose: np.ndarray,
) -> np.ndarray:
  """Soft shadows below vehicles.

  Args:
    view: the camera.
    points: [H, W, 2] where each pixel's ray meets the road, NaN where it sees
      no ground.
    shadows: [S, 6], as in `layout.Scene`.
    body_pose: [M, 4] the bodies of this frame.

  Returns:
    [H, W] float32 in (0, 1]: how much light is left.
  """
  light = np.ones(points.shape[:2], np.float32)
  pose = body_pose[shadows[:, 0].astype(int)]
  x, y = _shift(*pose[:, [0, 1, 3]].T, *shadows[:, 1:3].T)
  yaw, half = pose[:, 3] + shadows[:, 3], shadows[:, 4:6]
  ends = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * (half + 0.4)[:, None]
  places = x[:, None], y[:, None], yaw[:, None]
  corner_x, corner_y = _shift(*places, ends[..., 0], ends[..., 1])
  corners = np.stack([corner_x, corner_y, np.zeros_like(corner_x)], -1)
  local = (corners - view.position) @ view.rotation
  ahead = (local[..., 2].min(1) > 1) & (local[..., 2].max(1) < 80)
  pixels = local[ahead] @ view.intrinsics.T
  pixels = pixels[..., :2] / pixels[..., 2:]
  first = np.floor(np.maximum(pixels.min(1), 0)).astype(int)
  last = np.ceil(np.maximum(pixels.max(1), 0)).astype(int) + 1
  c, s, reach = np.cos(yaw), np.sin(yaw), half + 0.3
  windows = zip(np.flatnonzero(ahead), first, last, strict=True)
  for i, (x0, y0), (x1, y1) in windows:
    offset = points[y0:y1, x0:x1] - (x[i], y[i])
    along = np.abs(c[i] * offset[..., 0] + s[i] * offset[..., 1])
    across = np.abs(c[i] * offset[..., 1] - s[i] * offset[..., 0])
    soft = np.clip((reach[i, 0] - along) / 0.6, 0, 1)
    soft = soft * np.clip((reach[i, 1] - across) / 0.6, 0, 1)
    light[y0:y1, x0:x1] *= 1 - 0.72 * np.nan_to_num(soft)
  return light


def _shift(x, y, yaw, forward, left):
  c, s = np.cos(yaw), np.sin(yaw)
  return x + c * forward - s * left, y + s * forward + c * left
