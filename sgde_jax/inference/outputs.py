"""Files of predictions: their content, and which files they may replace.

All files but arrays carry a line of text, their description: the kind of
output, its unit, the run and the image. In a PNG it is the text `Description`,
elsewhere a comment. By it a file is known as an earlier result, and as complete
if the same command would write the same line.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import ml_collections
import numpy as np
from PIL import Image, PngImagePlugin

from input_pipeline import cityscapes, files, images
from sgde_jax import visualization
from sgde_jax.inference import cameras, predictor, video

_POINT = np.dtype([('xyz', '<f4', 3), ('rgb', 'u1', 3)])
_PLY = """ply
format binary_little_endian 1.0
comment {description}
comment camera frame: x right, y down, z forward
element vertex {count}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
end_header
"""


@dataclasses.dataclass(frozen=True)
class Result:
  """What the files of an image are made of.

  Attributes:
    image: `[H, W, 3]` uint8, upright.
    prediction: of the image, in metres if there is a scale; without depth or
      labels where no kind needs them.
    turn: how the stored image was turned upright, see `images.find_turn`.
    intrinsics: `[3, 3]`, in pixels of the image; None if no kind needs them.
    details: the end of the descriptions: the run and the image.
  """

  image: np.ndarray
  prediction: predictor.Prediction
  turn: Image.Transpose | None
  intrinsics: np.ndarray | None
  details: str


class Output:
  """A kind of output, `--write=NAME`.

  Attributes:
    name: its name.
    suffixes: of its files, in the order in which they are written.
    needs: `depth`, `labels` and `intrinsics`, whichever it is made of.
    content: what its files hold, for their descriptions.
    measure: what the scale applies to; '' for nothing.
  """

  name = ''
  suffixes = ('.png',)
  needs = ('depth',)
  content = ''
  measure = 'depth'

  def __init__(self, config: ml_collections.ConfigDict, scale: float | None):
    self._config, self._scale = config, scale

  def target(self, output: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    """Returns the path, without suffix, of the result for a place.

    The place is relative to the input; a KITTI drive's `image_02` becomes
    `NAME_02`.
    """
    return output.joinpath(
      *(
        part.replace('image', self._folder)
        if part in cameras.CAMERA_FOLDERS
        else part
        for part in place.parts
      )
    )

  def files(self, target: pathlib.Path) -> list[pathlib.Path]:
    """Returns the paths of a target's files."""
    return [target.with_name(target.name + end) for end in self.suffixes]

  def describe(self, details: str) -> str:
    """Returns the description of a result, one line of ASCII."""
    parts = [f'{self._mark} {self.content}', details]
    if self.measure:
      unit = 'relative: in metres up to an unknown factor'
      if self._scale is not None:
        unit = f'in metres, by a scale of {self._scale:.6g}'
      parts.insert(1, f'{self.measure} is {unit}')
    return '; '.join(parts)

  def is_complete(self, target: pathlib.Path, details: str) -> bool:
    """Returns whether all files exist as the same command would write them."""
    wanted = self.describe(details)
    return all(
      path.exists() if path.suffix == '.npy' else _describes(path) == wanted
      for path in self.files(target)
    )

  def owns(self, found: Sequence[pathlib.Path]) -> bool:
    """Returns whether existing files of a target are an earlier result."""
    marked = [path for path in found if path.suffix != '.npy']
    marks = [_describes(path).startswith(self._mark) for path in marked]
    return any(marks) and all(marks)

  def write(self, target: pathlib.Path, result: Result) -> None:
    """Writes the files of an image, unless they are complete."""
    if not self.is_complete(target, result.details):
      self._write(self.files(target), self.describe(result.details), result)

  def _write(self, paths, description, result):
    raise NotImplementedError

  @property
  def _folder(self):
    return self.name

  @property
  def _mark(self):
    return f'sgde_jax {self.name}:'


class InverseDepth(Output):
  """`NAME.npy`, float32 in 1/metres, and `NAME.png`, in colours."""

  name = 'inverse_depth'
  suffixes = ('.npy', '.png')
  content = '1 / depth'

  def _write(self, paths, description, result):
    inverse_depth, (array, picture) = result.prediction.inverse_depth, paths
    colours = visualization.colorize_inverse_depth(inverse_depth)
    # Both appear at the end, the array first: its picture has the description.
    with files.whole_file(picture) as second, files.whole_file(array) as first:
      np.save(first, inverse_depth)
      _save_png(second, colours, description)


class Png16(Output):
  """`NAME.png`, 16 bits, depth x 256 as KITTI stores it."""

  name = 'png16'
  content = 'depth x 256'

  def _write(self, paths, description, result):
    depth = self._limit(result.prediction.depth())
    values = np.clip(np.rint(256 * depth), 1, 65535).astype(np.uint16)
    _write_png(paths[0], values, description)

  def _limit(self, depth):
    return depth


class Benchmark(Png16):
  """The files that KITTI's depth prediction benchmark takes.

  `NAME.png` of every image in one folder, clipped to the evaluation's range.
  """

  name = 'benchmark'

  def __init__(self, config, scale):
    super().__init__(config, scale)
    if scale is None:
      raise ValueError(
        '--write=benchmark is in metres: give --scale=NUMBER or evaluation'
      )

  def target(self, output, place):
    """Returns a path in one folder, wherever the image lies."""
    return output / place.name

  def _limit(self, depth):
    limits = self._config.eval
    return np.clip(depth, limits.min_depth, limits.max_depth)


class Points(Output):
  """`NAME.ply`, the pixels as coloured points in the camera's frame."""

  name = 'ply'
  suffixes = ('.ply',)
  needs = ('depth', 'intrinsics')
  content = 'points of the pixels, row by row'

  def _write(self, paths, description, result):
    points = result.prediction.points(result.intrinsics)
    rows = np.empty(len(points), _POINT)
    rows['xyz'], rows['rgb'] = points, result.image.reshape(-1, 3)
    header = _PLY.format(description=description, count=len(points))
    files.write_bytes(paths[0], header.encode() + rows.tobytes())


class Labels(Output):
  """`NAME.png`, an 8-bit mask in the coding that the run was trained with.

  It covers the pixels as they are stored; `coloured/NAME.png` shows it.
  Existing masks are kept, whoever made them.
  """

  name = 'labels'
  needs = ('labels',)
  measure = ''
  _folder = 'semantic'  # Training looks for masks in `semantic_02`.

  @property
  def content(self):
    """The coding of the masks."""
    coding = self._config.data.labels
    return 'ids' if coding == 'ids' else 'train ids'

  def files(self, target):
    """Returns the paths of the coloured picture and of the mask."""
    (mask,) = super().files(target)
    return [target.parent / 'coloured' / mask.name, mask]

  def is_complete(self, target, details):
    """Returns whether there is a mask."""
    return self.files(target)[-1].exists()

  def owns(self, found):
    """Returns whether there is a mask, or our coloured picture alone."""
    if found[-1].parent.name == 'coloured':
      return super().owns(found)
    try:
      with Image.open(found[-1]) as picture:
        return picture.mode in ('L', 'P')
    except OSError:
      return False

  def _write(self, paths, description, result):
    labels = images.turn_back(result.prediction.labels, result.turn)
    coloured, mask = paths
    _write_png(coloured, visualization.colorize_labels(labels), description)
    if self.content == 'ids':
      labels = cityscapes.train_ids_to_ids(labels)
    _write_png(mask, labels, description)


class Overlay(Output):
  """`NAME.png`, the image with its classes drawn over it."""

  name = 'overlay'
  needs = ('labels',)
  measure = ''
  content = 'classes over the image'

  def _write(self, paths, description, result):
    labels = result.prediction.labels
    picture = visualization.overlay_labels(result.image, labels)
    _write_png(paths[0], picture, description)


class Video(Output):
  """`NAME.mp4` of a sequence: its frames above their results."""

  name = 'video'
  suffixes = ('.mp4',)
  content = 'frames above their inverse depth'

  def drawer(self) -> Callable[[Result], np.ndarray]:
    """Returns a function that draws the pictures of one video in order."""
    brightest = None

    def draw(result):
      nonlocal brightest
      inverse_depth = result.prediction.inverse_depth
      wanted = np.percentile(inverse_depth, 95)
      if brightest is None:
        brightest = wanted
      brightest = 0.9 * brightest + 0.1 * wanted  # Slowly: no flicker.
      colours = visualization.colorize_inverse_depth(
        inverse_depth, vmax=brightest
      )
      rows = [result.image, colours]
      if 'labels' in self.needs:
        labels = result.prediction.labels
        rows.append(visualization.overlay_labels(result.image, labels))
      return np.concatenate(rows)

    return draw


class Trajectory(Output):
  """`NAME.txt` of a sequence, its camera poses, and `NAME.png`, their plot."""

  name = 'trajectory'
  suffixes = ('.txt', '.png')
  needs = ()
  measure = 'position'
  content = 'camera to world, the first frame: time x y z qx qy qz qw (TUM)'

  def save(
    self,
    target: pathlib.Path,
    poses: np.ndarray,
    times: Sequence[float],
    details: str,
  ) -> None:
    """Writes poses `[N, 4, 4]` and their times."""
    from scipy.spatial import transform

    quaternions = transform.Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    rows = np.column_stack([times, poses[:, :3, 3], quaternions])
    lines = (' '.join(f'{value:.9g}' for value in row) for row in rows)
    description = self.describe(details)
    text, picture = self.files(target)
    files.write_text(text, '\n'.join([f'# {description}', *lines]) + '\n')
    plot = visualization.draw_trajectories(
      {'prediction': poses},
      title=target.name,
      unit='relative' if self._scale is None else 'metres',
    )
    _write_png(picture, plot, description)


KINDS = {
  kind.name: kind
  for kind in (
    InverseDepth,
    Png16,
    Benchmark,
    Points,
    Labels,
    Overlay,
    Video,
    Trajectory,
  )
}


def create(
  names: Iterable[str], config: ml_collections.ConfigDict, scale: float | None
) -> list[Output]:
  """Returns the kinds of output with these names.

  Raises:
    ValueError: if the run lacks what a kind needs.
  """
  names = list(dict.fromkeys(names))
  kinds = [KINDS[name](config, scale) for name in names]
  for kind in kinds:
    if 'labels' in kind.needs and not config.model.semantics:
      raise ValueError(
        f'--write={kind.name} needs a run with config.model.semantics'
      )
    if kind.name == 'video' and {'labels', 'overlay'} & set(names):
      kind.needs, kind.content = ('depth', 'labels'), f'{kind.content}, classes'
  return kinds


def check_targets(
  targets: Iterable[tuple[Output, pathlib.Path, pathlib.Path]],
) -> None:
  """Raises ValueError if results would replace the user's own files.

  Args:
    targets: kind of output, input, and target of its result.
  """
  targets = list(targets)
  inputs = {os.path.realpath(source) for _, source, _ in targets}
  first = {}
  for kind, source, target in targets:
    paths = kind.files(target)
    found = [path for path in paths if path.exists()]
    folder, problem = target.parent.resolve(), None
    if target in first:
      problem = f'{first[target]} has the same name'
    elif cameras.in_drive(folder):
      problem = f'it would lie among the frames of {folder}'
    elif same := [path for path in paths if os.path.realpath(path) in inputs]:
      problem = f'it would overwrite {same[0]}'
    elif found and not kind.owns(found):
      problem = f'{found[0]} exists and is not an earlier result'
    if problem:
      raise ValueError(f'result of {source}: {problem}; use another --output')
    first[target] = source


def frame_targets(
  kind: Output, folder: pathlib.Path
) -> dict[int, pathlib.Path]:
  """Returns number -> target of a folder's results for a video's frames."""
  found = {
    path.stem
    for path in folder.glob('[0-9]*')
    if path.suffix in kind.suffixes and path.stem.isdecimal()
  }
  return {int(stem): folder / stem for stem in found}


def remove_rest(
  kind: Output, folder: pathlib.Path, written: Iterable[int]
) -> None:
  """Removes results for frames that a video of the same name had before."""
  for number, target in frame_targets(kind, folder).items():
    found = [path for path in kind.files(target) if path.exists()]
    marks = [_describes(path) for path in found if path.suffix != '.npy']
    if number not in written and any(marks) and all(marks):
      for path in found:
        path.unlink()


def _describes(path):
  """Reads a file's description; '' if it has none of ours."""
  try:
    if path.suffix == '.png':
      with Image.open(path) as picture:
        text = str(picture.info.get('Description', ''))
    elif path.suffix == '.mp4':
      text = video.read_comment(path)
    else:  # A comment in one of the first lines.
      with open(path, 'rb') as file:
        head = file.read(4096).decode('ascii', 'replace')
      starts = '# ', 'comment '
      lines = [x for x in head.split('\n') if x.startswith(starts)]
      text = lines[0].partition(' ')[2] if lines else ''
  except (OSError, ValueError, SyntaxError):  # Of any other file.
    return ''
  return text if text.startswith('sgde_jax ') else ''


def _write_png(path, array, description):
  with files.whole_file(path) as partial:
    _save_png(partial, array, description)


def _save_png(path, array, description):
  text = PngImagePlugin.PngInfo()
  text.add_text('Description', description)
  # The least compression takes a third of the default's time.
  picture = Image.fromarray(array)
  picture.save(path, format='PNG', pnginfo=text, compress_level=1)
