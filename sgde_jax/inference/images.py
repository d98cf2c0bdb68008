"""Prediction for images and videos: `--mode=predict`."""

import logging
import os
import pathlib

import ml_collections
import numpy as np
from PIL import Image

from input_pipeline import files, images, progress
from sgde_jax.inference import outputs, predictor, video

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')
_Path = str | os.PathLike
_CAMERAS = [camera for camera, _ in outputs.FRAME_FOLDERS]


def predict(
  config: ml_collections.ConfigDict,
  workdir: _Path,
  source: _Path,
  output: _Path,
  *,
  write: str = 'depth',
) -> None:
  """Writes a trained run's predictions for images or for a video.

  `write` selects `outputs.DepthOutput` (`depth`) or `LabelOutput` (`labels`).
  Masks for a folder in KITTI's layout have the names at which training finds
  them: for `DRIVE/image_02/data/N.png` it is `DRIVE/semantic_02/data/N.png`
  below the output, which may be the same folder. Existing masks are kept, so
  repeating the command continues an interrupted one.

  A video has results for every frame, `NAME/000000.png` and so on, and
  `NAME.mp4`: the frames above the pictures of their results.

  Args:
    config: the whole config of the run.
    workdir: its folder.
    source: an image, a video, a folder of images, or of KITTI drives.
    output: folder for the results.
    write: what to write.

  Raises:
    FileNotFoundError: if an image, video, folder or checkpoint is absent.
    ValueError: before any work, if the run has no semantics for labels or a
      result would replace a user's file; at the end, if images are unreadable.
  """
  source, output = pathlib.Path(source), pathlib.Path(output)
  files.check_writable(output)
  kind = outputs.DepthOutput()
  if write == 'labels':
    kind = outputs.LabelOutput(config.data.labels)
    if not config.model.semantics:
      raise ValueError('--write=labels needs a run with config.model.semantics')
  is_video = source.is_file() and source.suffix.lower() in video.SUFFIXES
  run = _predict_video if is_video else _predict_images
  count, unreadable = run(config, workdir, source, output, kind)
  print(f'predictions written to {output}: {count}')
  if unreadable:
    count = len(unreadable)
    names = files.list_first(unreadable)
    raise ValueError(f'unreadable images: {count}, others are written:{names}')


def _predict_images(config, workdir, source, output, kind):
  """Returns the number of images written, and a message for each failure."""
  masks = isinstance(kind, outputs.LabelOutput)
  sources = _list_images(source, drives=masks)
  targets = {path: _target(path, source, output) for path in sources}
  outputs.check_targets(targets, kind.suffixes)
  if masks:
    targets = {path: t for path, t in targets.items() if not t.exists()}
    logging.info('%d masks to write, of %d', len(targets), len(sources))
  if source.is_file():
    images.read_size(source)  # Fails before the weights are loaded.
  network = predictor.restore(config, workdir)
  unreadable = []
  for path, target in progress.bar(targets.items(), 'predicting'):
    try:
      kind.write(target, kind.predict(network, images.decode_frame(path)))
    except images.UnreadableError as error:
      unreadable.append(str(error))
  return len(targets) - len(unreadable), unreadable


def _predict_video(config, workdir, source, output, kind):
  """Returns the number of frames written, and a message if others failed."""
  target, folder = output / f'{source.stem}.mp4', output / source.stem
  outputs.check_targets({source: target}, ('.mp4', ''))
  earlier = [
    path
    for path in folder.glob('[0-9]*')
    if path.stem.isdecimal() and path.suffix in ('.png', '.npy')
  ]
  count, unreadable = 0, []
  with video.open_reader(source) as (frames, rate):
    network = predictor.restore(config, workdir)
    with (
      files.whole_files(folder, replaced=earlier) as partial,
      video.open_writer(target, rate) as write_frame,
    ):
      try:
        for frame in progress.bar(frames, 'predicting'):
          result = kind.predict(network, Image.fromarray(frame))
          kind.write(partial / f'{count:06d}.png', result)
          write_frame(np.concatenate([frame, kind.draw(frame, result)]))
          count += 1
      except images.UnreadableError as error:
        unreadable.append(str(error))
  return count, unreadable


def _target(path, source, output):
  """Returns the path of the result's PNG, for a drive's frame its mask."""
  parts = [
    part.replace('image', 'semantic') if part in _CAMERAS else part
    for part in path.relative_to(source).parent.parts
  ]
  return output.joinpath(*parts, f'{path.stem}.png')


def _list_images(source, *, drives):
  """Lists the images at a path, sorted; with `drives` those of KITTI drives."""
  if source.is_file():
    return [source]
  found, seen = [], set()
  for folder, below, names in os.walk(source, followlinks=True):
    real = os.path.realpath(folder)
    if not drives or real in seen:  # Links may lead in a circle.
      below.clear()
    if real not in seen:
      found += filter(_is_image, (pathlib.Path(folder, n) for n in names))
    seen.add(real)
  in_drives = [p for p in found if p.parts[-3:-1] in outputs.FRAME_FOLDERS]
  # A folder of drives may hold other pictures, too.
  found = (drives and in_drives) or [p for p in found if p.parent == source]
  if not found:
    where = f'{source} or image_02/data folders below it' if drives else source
    raise FileNotFoundError(f'no {", ".join(_SUFFIXES)} files in {where}')
  return sorted(found)


def _is_image(path):
  is_hidden = path.name.startswith('.')  # Such as ._a.png from macOS.
  return path.suffix.lower() in _SUFFIXES and not is_hidden and path.is_file()
