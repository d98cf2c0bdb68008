"""Prediction for images, sequences and videos: `--mode=predict`."""

import contextlib
import dataclasses
import datetime
import fractions
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence

import jax
import ml_collections
import numpy as np
from PIL import Image

from input_pipeline import files, images, progress
from sgde_jax.inference import cameras, outputs, predictor, video

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')
_Path = str | os.PathLike
_RATE = 10  # Frames per second of a folder, as in KITTI.
_SEQUENCES = ('video', 'trajectory')  # Kinds with a result per sequence.


def predict(
  config: ml_collections.ConfigDict,
  workdir: _Path,
  source: _Path,
  output: _Path,
  *,
  write: Sequence[str] = ('inverse_depth',),
  scale: str | None = None,
  intrinsics: Sequence[str] | None = None,
  fov: float | None = None,
) -> None:
  """Writes a trained run's predictions for images or for a video.

  Results have the names of their images; those of a video's frames are
  `NAME/000000` and so on. Of several kinds each has a folder of its name in the
  output. Masks for KITTI drives have the names at which training finds them:
  for `DRIVE/image_02/data/N.png` it is `DRIVE/semantic_02/data/N.png` below the
  output, which may be the same folder.

  Every file is written whole. Repeating the command keeps complete results and
  so continues an interrupted one; results of other settings are replaced, masks
  never.

  Args:
    config: the whole config of the run.
    workdir: its folder.
    source: an image, a video, a folder of images, or of KITTI drives.
    output: folder for the results.
    write: the kinds of output, names of `outputs.KINDS`.
    scale: metres per unit of the network, a number or `evaluation`, see
      `cameras.read_scale`.
    intrinsics: for points, see `cameras.open_intrinsics`.
    fov: for points, instead of intrinsics.

  Raises:
    FileNotFoundError: if an image, video, folder or checkpoint is absent.
    ValueError: before any work, if a kind cannot be made of the run and input
      or a result would replace a user's file; at the end, if images are
      unreadable.
  """
  source, output = pathlib.Path(source), pathlib.Path(output)
  files.check_writable(output)
  metres = cameras.read_scale(scale, workdir)
  kinds = outputs.create(write, config, metres)
  sequences = _find_sequences(source)
  job = _Job(config, pathlib.Path(workdir), output, kinds, metres)
  if any('intrinsics' in kind.needs for kind in kinds):
    paths = [path for sequence in sequences for path in sequence.paths]
    job.intrinsics = cameras.open_intrinsics(paths, numbers=intrinsics, fov=fov)
  job.check(sequences)
  count, unreadable = job.run(sequences)
  print(f'predictions written to {output}: {count}')
  if unreadable:
    count = len(unreadable)
    names = files.list_first(unreadable)
    raise ValueError(f'unreadable images: {count}, others are written:{names}')


@dataclasses.dataclass(frozen=True)
class _Sequence:
  """Images of one folder in temporal order, one image, or a video.

  Attributes:
    paths: the images, or the video.
    place: folder of the images' results, relative to the output.
    name: place of the results for the whole; None for an image.
    is_video: whether it is a video.
  """

  paths: list[pathlib.Path]
  place: pathlib.Path
  name: pathlib.Path | None
  is_video: bool = False

  def items(self) -> Iterator['_Item']:
    """Yields the images; a video's are decoded, None if damaged."""
    if not self.is_video:
      for number, path in enumerate(self.paths):
        is_number = path.stem.isascii() and path.stem.isdigit()
        time = int(path.stem) if is_number else number
        yield _Item(path, self.place / path.stem, number, time)
      return
    (path,) = self.paths
    with video.open_reader(path) as reader:
      for frame in reader.frames:
        place = self.place / f'{frame.number:06d}'
        shown = {'duration': frame.duration, 'pixel_aspect': frame.pixel_aspect}
        yield _Item(path, place, frame.number, frame.time, frame.image, shown)


@dataclasses.dataclass
class _Item:
  """An image file or a video's frame on its way through the threads."""

  path: pathlib.Path
  place: pathlib.Path
  number: int
  time: fractions.Fraction | int  # Seconds in a video, else a file's number.
  image: np.ndarray | None = None
  shown: dict[str, fractions.Fraction] = dataclasses.field(default_factory=dict)
  turn: Image.Transpose | None = None
  is_read: bool = False


class _Job:
  """Writes kinds of output for sequences.

  Attributes:
    intrinsics: result of `cameras.open_intrinsics`, or None.
  """

  def __init__(self, config, workdir, output, kinds, scale):
    self._config, self._workdir, self._scale = config, workdir, scale
    self._output, self._kinds = output, kinds
    self.intrinsics = None
    self._unreadable = {}

  def check(self, sequences):
    """Raises ValueError before work that could not be finished."""
    targets = []
    for kind, sequence in self._pairs(sequences):
      if kind.name in _SEQUENCES:
        if sequence.name is None:
          raise ValueError(f'--write={kind.name} needs a video or a folder')
        targets.append((kind, sequence.paths[0], self._total(kind, sequence)))
      elif sequence.is_video:
        folder = self._folder(kind) / sequence.place
        found = outputs.frame_targets(kind, folder).values()
        targets += [(kind, sequence.paths[0], target) for target in found]
      else:
        targets += [
          (kind, path, self._target(kind, sequence.place / path.stem))
          for path in sequence.paths
        ]
    outputs.check_targets(targets)
    if 'trajectory' in self._names:
      for sequence in sequences:
        if not sequence.is_video and len(sequence.paths) < 2:
          raise ValueError(
            f'{sequence.paths[0]}: a trajectory needs two frames'
          )
      if not {1, -1} & set(self._config.data.frame_offsets):
        logging.warning(
          'this run was trained on motions to the offsets %s, and a trajectory'
          ' is made of motions from frame to frame',
          tuple(self._config.data.frame_offsets[1:]),
        )
    for sequence in sequences:  # Fails before the weights are loaded.
      if sequence.is_video:
        with video.open_reader(sequence.paths[0]):
          pass
      elif sequence.name is None:
        images.read_size(sequence.paths[0])

  def run(self, sequences):
    """Returns the number of images written, and messages of failures."""
    devices = jax.local_devices()
    network = predictor.restore(self._config, self._workdir, devices)
    data, flip = self._config.data, self._config.eval.flip
    self._origin = (
      f'run {ascii(self._workdir.absolute().name)} at step {network.step}, '
      f'{data.width}x{data.height}{", flipped too" if flip else ""}'
    )
    count, unreadable = 0, []
    for sequence in sequences:
      self._unreadable = {}
      count += self._write(network, sequence)
      unreadable += [text for _, text in sorted(self._unreadable.items())]
    return count, unreadable

  def _write(self, network, sequence):
    """Writes the results of a sequence; returns the number of its images."""
    each = [kind for kind in self._kinds if kind.name not in _SEQUENCES]
    totals = {
      kind.name: kind
      for kind in self._kinds
      if kind.name in _SEQUENCES
      and not kind.is_complete(
        self._total(kind, sequence), self._details(*sequence.paths)
      )
    }
    count = 0
    if each or 'video' in totals:
      count = self._write_images(network, sequence, each, totals.get('video'))
    if 'trajectory' in totals:
      poses = self._write_trajectory(network, sequence, totals['trajectory'])
      count = count or poses
    return count

  def _write_images(self, network, sequence, kinds, film):
    """Writes results per image, and the video `film` if it is not None."""
    needs = {need for kind in (*kinds, film) if kind for need in kind.needs}
    batch_size = 1 if sequence.name is None else self._config.eval.batch_size
    details, kept, numbers = self._details, [], set()

    def read(item):
      numbers.add(item.number)
      due = film or any(
        not kind.is_complete(self._target(kind, item.place), details(item.path))
        for kind in kinds
      )
      if due:
        return self._read(item)
      kept.append(item)
      return None

    def finish(found):
      item, image, compute = found
      inverse_depth, labels = compute()
      if inverse_depth is not None and self._scale is not None:
        inverse_depth = inverse_depth / np.float32(self._scale)
      image = np.asarray(image)
      result = outputs.Result(
        image=image,
        prediction=predictor.Prediction(inverse_depth, labels),
        turn=item.turn,
        intrinsics=self.intrinsics
        and self.intrinsics(item.path, image.shape[:2]),
        details=details(item.path),
      )
      for kind in kinds:
        kind.write(self._target(kind, item.place), result)
      return item, result if film else None

    found = network.stream(
      sequence.items(),
      read,
      batch_size=batch_size,
      labels_only='depth' not in needs,
    )
    done = progress.in_order(finish, found, ahead=2 * progress.THREADS)
    total = None if sequence.is_video else len(sequence.paths)
    count = 0
    with contextlib.ExitStack() as stack:
      if film:
        add = stack.enter_context(self._open_film(sequence, film))
      for item, result in progress.bar(done, 'predicting', total):
        count += 1
        if film:
          add(item, result)
    if kept:
      logging.info('%d results were complete and are kept', len(kept))
    for kind in kinds if sequence.is_video else ():
      written = numbers - self._unreadable.keys()
      outputs.remove_rest(kind, self._folder(kind) / sequence.place, written)
    return count

  @contextlib.contextmanager
  def _open_film(self, sequence, film):
    """Yields a function that adds the picture of a result to a video."""
    (path,) = film.files(self._total(film, sequence))
    comment = film.describe(self._details(*sequence.paths))
    with video.open_writer(path, comment=comment) as write:
      size, draw = None, film.drawer()

      def add(item, result):
        nonlocal size
        picture = draw(result)
        size = size or picture.shape[:2]
        if picture.shape[:2] != size:  # All pictures of a video have one size.
          image = Image.fromarray(picture)
          picture = np.asarray(image.resize((size[1], size[0])))
        is_video = sequence.is_video
        time = item.time if is_video else fractions.Fraction(item.number, _RATE)
        write(picture, time, **item.shown)

      yield add

  def _write_trajectory(self, network, sequence, kind):
    """Returns the number of frames whose poses are written."""
    items = []

    def remember():
      for item in sequence.items():
        items.append(item)
        yield item

    poses = network.trajectory(
      progress.bar(remember(), 'predicting motion'),
      batch_size=self._config.eval.batch_size,
      read=self._read,
    )
    if self._scale is not None:
      poses[:, :3, 3] *= self._scale
    times = [float(item.time) for item in items if item.is_read]
    target = self._total(kind, sequence)
    kind.save(target, poses, times, self._details(*sequence.paths))
    return len(poses)

  def _read(self, item):
    """Returns an item's upright image; None, and a message, if damaged."""
    try:
      if item.path.suffix.lower() not in video.SUFFIXES:
        stored = images.decode_frame(item.path)
        item.turn = images.find_turn(stored)
        image = images.turn_upright(stored)
      elif item.image is None:
        raise images.UnreadableError(f'frame {item.number} of {item.path}')
      else:
        image, item.image = Image.fromarray(item.image), None
    except images.UnreadableError as error:
      self._unreadable[item.number] = str(error)
      return None
    item.is_read = True
    return image

  @property
  def _names(self):
    return [kind.name for kind in self._kinds]

  def _pairs(self, sequences):
    return [(kind, x) for kind in self._kinds for x in sequences]

  def _folder(self, kind):
    """Returns where a kind's results lie: with others, in its own folder."""
    return self._output / kind.name if len(self._kinds) > 1 else self._output

  def _target(self, kind, place):
    return kind.target(self._folder(kind), place)

  def _total(self, kind, sequence):
    return kind.target(self._folder(kind), sequence.name)

  def _details(self, *paths):
    """Returns the end of a description: the run and the input."""
    status = [os.stat(path) for path in paths]
    latest = max(x.st_mtime for x in status)
    when = datetime.datetime.fromtimestamp(latest, datetime.UTC)
    name = ascii(paths[0].name)
    if len(paths) > 1:
      name = f'{len(paths)} images from {name} to {ascii(paths[-1].name)}'
    return (
      f'{self._origin}; {name}, {sum(x.st_size for x in status)} bytes of '
      f'{when:%Y-%m-%dT%H:%M:%S}'
    )


def _find_sequences(source):
  """Lists the sequences at a path."""
  nowhere = pathlib.Path()
  if source.is_file():
    if source.suffix.lower() not in video.SUFFIXES:
      return [_Sequence([source], nowhere, None)]
    name = pathlib.Path(source.stem)
    return [_Sequence([source], name, name, is_video=True)]
  folders = {}
  for path in _list_images(source):
    folders.setdefault(path.parent, []).append(path)
  return [
    _Sequence(
      sorted(paths, key=_frame_order),
      folder.relative_to(source),
      _sequence_name(folder, source),
    )
    for folder, paths in folders.items()
  ]


def _sequence_name(folder, source):
  place = folder.relative_to(source)
  if len(place.parts) > 1:  # DRIVE/image_02 without its data.
    return place.parent
  parts = folder.absolute().parts
  in_drive = cameras.in_drive(folder.absolute())
  return pathlib.Path('_'.join(parts[-3:-1]) if in_drive else parts[-1])


def _frame_order(path):
  """Sorts numbered files by number, before others by name."""
  is_number = path.stem.isascii() and path.stem.isdigit()
  return (0, int(path.stem), '') if is_number else (1, 0, path.name)


def _list_images(source):
  """Lists the images of KITTI drives below a folder, or those in it, sorted."""
  found, seen = [], set()
  for folder, below, names in os.walk(source, followlinks=True):
    real = os.path.realpath(folder)
    if real in seen:  # Links may lead in a circle.
      below.clear()
    else:
      found += filter(_is_image, (pathlib.Path(folder, n) for n in names))
    seen.add(real)
  # A folder of drives may hold other pictures, too.
  in_drives = [path for path in found if cameras.in_drive(path.parent)]
  found = in_drives or [path for path in found if path.parent == source]
  if not found:
    raise FileNotFoundError(
      f'no {", ".join(_SUFFIXES)} files in {source} or image_02/data folders '
      'below it'
    )
  return sorted(found)


def _is_image(path):
  is_hidden = path.name.startswith('.')  # Such as ._a.png from macOS.
  return path.suffix.lower() in _SUFFIXES and not is_hidden and path.is_file()
