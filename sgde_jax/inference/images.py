"""Prediction: `--mode=predict`, disparity or classes of images and videos."""

import contextlib
import functools
import io
import logging
import os
import pathlib
import time

import jax
import numpy as np
from PIL import Image

from input_pipeline import cityscapes, command_line, images
from input_pipeline import files as appearing
from sgde_jax import folders, metrics, parallel, visualization
from sgde_jax.inference import steps, video
from sgde_jax.training import log
from sgde_jax.weights import initial

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')
_FRAME_FOLDERS = ('image_02', 'image_03')
_FRAME_PARTS = [(name, 'data') for name in _FRAME_FOLDERS]


def predict(config, workdir, source, output, *, write='depth'):
  """Writes what a trained run sees in images or in a video.

  `depth`: per image a native-size `NAME.npy`, float32 `[H, W]`, inverse depth
  in 1/metres up to the training's unknown scale, and a magma `NAME.png`.

  `labels`: per image a native-size mask (8 bits) of train ids, or of ids where
  the run was trained with `config.data.labels=ids`. Of a folder in
  KITTI's layout they are named as its own labels, so that training finds them
  there: `DRIVE/image_02/data/N.png` gives `DRIVE/semantic_02/data/N.png` below
  the output, which may be the folder itself. Masks that are there already stay
  as they are and are counted, so that a run which was broken off goes on.

  Of a video the same for every frame, in `NAME/000000.png` and so on, and
  `NAME.mp4`: the frames above their disparity, or above their classes.

  An image is turned as its EXIF data says, but not for `labels`: a mask lies
  over the pixels as they are stored, which is how training reads them.

  An image that cannot be decoded does not stop the others.

  Args:
    config: the whole config of the run.
    workdir: folder of a trained run.
    source: path of an image, of a video, or of a folder of images; for `labels`
      also of a KITTI raw folder.
    output: folder for the results; made if it is missing.
    write: `depth` or `labels`.

  Raises:
    FileNotFoundError: no such image, video, folder or checkpoint.
    ValueError: a flag is missing, the run has no semantics, the one image or
      video is none, the output is no folder, or an input would be overwritten,
      before any work; images or frames could not be decoded, after the others
      were written.
  """
  _check_flags(config, source, output, write)
  source, output = pathlib.Path(source), pathlib.Path(output)
  if source.is_file() and source.suffix.lower() in video.SUFFIXES:
    count, unreadable = _predict_video(config, workdir, source, output, write)
  else:
    count, unreadable = _predict_images(config, workdir, source, output, write)
  print(f'predictions written to {output}: {count}')
  _refuse_unreadable(unreadable)


def _predict_images(config, workdir, source, output, write):
  """Returns how many images' results were written and what went wrong."""
  files = _list_images(source, layout=write == 'labels')
  jobs = {file: _target(file, source, output, write) for file in files}
  replaced = ('.png', '.npy') if write == 'depth' else ()  # Masks stay.
  _refuse_overwriting(jobs, replaced=replaced)
  if write == 'labels':
    jobs = _without_those_there(jobs)
  if source.is_file():
    try:
      images.read_size(source)
    except images.UnreadableError as error:
      known = ', '.join(video.SUFFIXES)
      raise ValueError(f'--input: {error}; videos are {known}') from error
  run = _load(config, workdir, write)
  unreadable = []
  for file, target in _with_progress(jobs.items()):
    try:
      image = images.decode_frame(file)
      if write == 'depth':
        image = images.turn_upright(image)
      _save(target, run(image), write, config.data.labels)
    except images.UnreadableError as error:
      unreadable.append(str(error))
  return len(jobs) - len(unreadable), unreadable


def _predict_video(config, workdir, source, output, write):
  """Returns how many frames' results were written and what went wrong."""
  target = output / f'{source.stem}.mp4'
  _refuse_overwriting({source: target}, replaced=('.mp4', ''))
  earlier = _earlier_frames(target)
  count, unreadable = 0, []
  with video.open_reader(source) as (frames, rate):
    run, show = _load(config, workdir, write), _make_show(write)
    with (
      appearing.whole_files(output / source.stem, replaced=earlier) as partial,
      video.open_writer(target, rate) as write_frame,
    ):
      try:
        for frame in _with_progress(frames):
          result = run(Image.fromarray(frame))
          path = partial / f'{count:06d}.png'
          _save(path, result, write, config.data.labels)
          write_frame(np.concatenate([frame, show(frame, result)]))
          count += 1
      except images.UnreadableError as error:
        unreadable.append(str(error))
  return count, unreadable


def _load(config, workdir, write):
  """Loads a run: a function from an RGB picture to its disparity or classes.

  One image at a time on one device: sizes differ, and so do users' machines.
  """
  mesh = parallel.create_mesh(jax.local_devices()[:1])
  model, state = initial.load_trained(config, workdir, mesh)
  flip = config.eval.flip
  step = functools.partial(steps.predict_step, flip=flip)
  step = steps.label_step if write == 'labels' else step
  predict_step = parallel.jit(functools.partial(step, model=model))

  def run(image):
    frame = images.resize_frame(
      image, height=config.data.height, width=config.data.width
    )
    prediction = jax.device_get(predict_step(state.variables, frame[None]))
    height, width = image.height, image.width
    if write == 'labels':
      return images.resize_nearest(prediction[0], height=height, width=width)
    disparity = prediction.inverse_depth[0]
    if flip:
      disparity = metrics.flip_post_process(*disparity)
    disparity = metrics.resize_bilinear(disparity, (height, width))
    return disparity.astype(np.float32)

  return run


def _check_flags(config, source, output, write):
  """Refuses flags that are missing or ask for what the run has not learnt."""
  if not source or not output:
    raise ValueError(
      'predict needs --input=IMAGE, VIDEO or FOLDER and --output=FOLDER'
    )
  folders.refuse_unwritable('--output', output)
  if write == 'labels' and not config.model.semantics:
    raise ValueError(
      '--write=labels needs a run that was trained with config.model.semantics'
    )


def _with_progress(items):
  """Yields the items; tells how fast it goes."""
  start = time.monotonic()
  total = f'/{len(items)}' if hasattr(items, '__len__') else ''
  for count, item in enumerate(items, start=1):
    yield item
    if count % 50 == 0 or f'/{count}' == total:
      rate = count / (time.monotonic() - start)
      logging.info('%d%s images, %.1f images/s', count, total, rate)


def _save(target, result, write, coding):
  """Writes an image's disparity and its picture, or its mask."""
  if write == 'labels':
    if coding == 'ids':  # As the masks that may lie beside.
      result = cityscapes.train_ids_to_ids(result)
    visualization.write_png(target, result)
    return
  content = io.BytesIO()
  np.save(content, result)
  log.write_bytes(target.with_suffix('.npy'), content.getvalue())
  visualization.write_png(target, visualization.colorize_disparity(result))


def _make_show(write):
  """Returns a function from a frame and its result to a picture of a video.

  Disparity's brightest colour follows the frames slowly, lest it flicker.
  """
  if write == 'labels':
    return lambda frame, mask: visualization.overlay_labels(
      frame, mask, cityscapes.COLOURS
    )
  brightest = None

  def show(frame, disparity):
    nonlocal brightest
    del frame
    now = np.percentile(disparity, 95)
    brightest = now if brightest is None else 0.9 * brightest + 0.1 * now
    return visualization.colorize_disparity(disparity, vmax=brightest)

  return show


def _target(file, source, output, write):
  """The PNG that an image's result goes to."""
  if write == 'depth' or source.is_file():
    return output / f'{file.stem}.png'
  parts = [
    part.replace('image', 'semantic') if part in _FRAME_FOLDERS else part
    for part in file.relative_to(source).parent.parts
  ]
  return output.joinpath(*parts, f'{file.stem}.png')


def _refuse_overwriting(jobs, *, replaced):
  """Refuses results that would replace an image, another file or each other.

  So are pictures in a drive's folder of frames, where they would be taken for
  frames. Files (and folders, '') of the two endings `replaced` are replaced
  where both are there, of an earlier prediction. A picture or video alone is
  taken for the user's, and beside the images each of them is.
  """
  real_folder = functools.cache(pathlib.Path.resolve)

  def real(path):
    if path.is_symlink():
      return path.resolve()
    return real_folder(path.parent) / path.name

  inputs = set(map(real, jobs))
  first = {}
  for file, target in jobs.items():
    if real_folder(target.parent).parts[-2:] in _FRAME_PARTS:
      raise ValueError(
        f'what is written of {file} would lie among the frames, as one of'
        ' them: use another --output'
      )
    lost = [target] if real(target) in inputs else []
    there = [
      path for path in map(target.with_suffix, replaced) if path.exists()
    ]
    beside = real_folder(target.parent) == real_folder(file.parent)
    if beside or there == [target]:
      lost += there
    if lost:
      raise ValueError(
        f'what is written of {file} would overwrite {lost[0]}: use another'
        ' --output'
      )
    if target in first:
      raise ValueError(
        f'{first[target]} and {file} would both be written to {target}, two'
        f' images named {file.stem}: rename one'
      )
    first[target] = file


def _earlier_frames(target):
  """Lists what an earlier prediction wrote of a video's frames.

  Refuses such files where no video lies beside them, which comes with them.
  """
  folder = target.with_suffix('')
  found = [
    path
    for path in folder.glob('[0-9]*')
    if path.stem.isdecimal() and path.suffix in ('.png', '.npy')
  ]
  if found and not target.exists():
    raise ValueError(
      f'{folder} holds numbered files and there is no {target}, so that they'
      ' may be yours: use another --output'
    )
  return found


def _without_those_there(jobs):
  """The jobs whose results do not exist yet; says how many do.

  Refuses other pictures in the masks' places, such as those of depth.
  """
  there = {target for target in jobs.values() if target.exists()}
  for target in sorted(there):
    with contextlib.suppress(OSError), Image.open(target) as picture:
      if picture.mode not in ('L', 'P'):
        raise ValueError(
          f'{target} is there and is no mask, which has 8 bits a pixel: use'
          ' another --output'
        )
  if there:
    logging.info(
      '%d of %d masks are there already and stay, the first: %s',
      len(there),
      len(jobs),
      min(there),
    )
  return {file: path for file, path in jobs.items() if path not in there}


def _refuse_unreadable(problems):
  """Ends a run in which images could not be read; names the first ten."""
  if problems:
    raise ValueError(
      f'unreadable images: {len(problems)}, the others are written:'
      + command_line.list_first(problems)
    )


def _list_images(source, *, layout):
  """The images at a path, sorted; with `layout` those of KITTI's folders."""
  if source.is_file():
    return [source]
  if not source.is_dir():
    raise FileNotFoundError(f'there is no image, video or folder {source}')
  files = []
  if layout:  # First: a folder of drives may hold a picture or two besides.
    files = _images(
      pathlib.Path(folder) / name
      for folder, names in _walk(source)
      if pathlib.Path(folder).parts[-2:] in _FRAME_PARTS
      for name in names
    )
  files = files or _images(source.iterdir())
  if not files:
    below = '; folders below it are not searched'
    if layout:
      below = ' or in image_02/data folders below it'
    raise FileNotFoundError(
      f'no {", ".join(_SUFFIXES)} files in {source}{below}'
    )
  return files


def _walk(source):
  """Yields every folder once, whatever links lead to it, and its files."""
  seen = set()
  for folder, below, names in os.walk(source, followlinks=True):
    real = os.path.realpath(folder)
    if real in seen:
      below.clear()
    else:
      seen.add(real)
      yield folder, names


def _images(paths):
  return sorted(
    path
    for path in paths
    if path.suffix.lower() in _SUFFIXES
    and not path.name.startswith('.')  # As ._a.png, which macOS adds.
    and path.is_file()
  )
