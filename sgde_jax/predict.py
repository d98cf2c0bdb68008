"""Prediction: `--mode=predict`, disparity or classes of images of any size."""

import functools
import logging
import os
import pathlib
import time

import jax
import numpy as np

from input_pipeline import images
from sgde_jax import (
  configuration,
  evaluate,
  metrics,
  sharding,
  steps,
  visualization,
)

_SUFFIXES = ('.png', '.jpg', '.jpeg')
_FRAME_FOLDERS = ('image_02', 'image_03')
_FRAME_PARTS = [(name, 'data') for name in _FRAME_FOLDERS]


def predict(config, workdir, source, output, *, write='depth'):
  """Writes what a trained run sees in images.

  `depth`: per image a native-size `NAME.npy`, float32 `[H, W]`, inverse depth
  in 1/metres up to the training's unknown scale, and a magma `NAME.png`.

  `labels`: per image a native-size mask of train ids (8 bits). Of a folder in
  KITTI's layout they are named as its own labels, so that training finds them
  there: `DRIVE/image_02/data/N.png` gives `DRIVE/semantic_02/data/N.png` below
  the output, which may be the folder itself. Masks that are there already stay
  as they are and are counted, so that a run which was broken off goes on.

  An image that cannot be decoded does not stop the others.

  Args:
    config: the whole config of the run.
    workdir: folder of a trained run.
    source: path of an image, or of a folder of images; for `labels` also of a
      KITTI raw folder.
    output: folder for the results; made if it is missing.
    write: `depth` or `labels`.

  Raises:
    FileNotFoundError: no such image, folder or checkpoint.
    ValueError: a flag is missing, the run has no semantics, the one image is
      none, the output is no folder, or an image would be overwritten, before
      any work; images could not be decoded, after the others were written.
  """
  _check_flags(config, source, output, write)
  source, output = pathlib.Path(source), pathlib.Path(output)
  files = _list_images(source, layout=write == 'labels')
  jobs = {file: _target(file, source, output, write) for file in files}
  _refuse_overwriting(jobs)
  if write == 'labels':
    jobs = _without_those_there(jobs)
  if source.is_file():
    images.read_size(source)
  # One image at a time on one device: sizes differ, and so do users' machines.
  mesh = sharding.create_mesh(jax.local_devices()[:1])
  model, state = evaluate.load_trained(config, workdir, mesh)
  step = functools.partial(
    steps.predict_step, model=model, flip=config.eval.flip
  )
  predict_step = jax.jit(step)
  write_result = _write_labels if write == 'labels' else _write_depth

  def run(file, target):
    frame = images.read_frame(
      file, height=config.data.height, width=config.data.width
    )
    prediction = jax.device_get(predict_step(state.variables, frame[None]))
    target.parent.mkdir(parents=True, exist_ok=True)
    size = images.read_size(file)
    write_result(target, prediction, size, flip=config.eval.flip)

  unreadable = _run_all(jobs, run)
  print(f'predictions written to {output}: {len(jobs) - len(unreadable)}')
  _refuse_unreadable(unreadable)


def _check_flags(config, source, output, write):
  """Refuses flags that are missing or ask for what the run has not learnt."""
  if not source or not output:
    raise ValueError(
      'predict needs --input=IMAGE or FOLDER and --output=FOLDER'
    )
  configuration.refuse_file('--output', output)
  if write == 'labels' and not config.model.semantics:
    raise ValueError(
      '--write=labels needs a run that was trained with config.model.semantics'
    )


def _run_all(jobs, run):
  """Runs every job, with progress; returns why some could not be read."""
  unreadable = []
  start = time.monotonic()
  for count, (file, target) in enumerate(jobs.items(), start=1):
    try:
      run(file, target)
    except images.UnreadableError as error:
      unreadable.append(str(error))
    if count % 50 == 0 or count == len(jobs):
      rate = count / (time.monotonic() - start)
      logging.info('%d/%d images, %.1f images/s', count, len(jobs), rate)
  return unreadable


def _write_depth(target, prediction, size, *, flip):
  disparity = prediction.disparity[0]
  if flip:
    disparity = metrics.flip_post_process(*disparity)
  disparity = metrics.resize_bilinear(disparity, size).astype(np.float32)
  np.save(target.with_suffix('.npy'), disparity)
  visualization.write_png(target, visualization.colorize_disparity(disparity))


def _write_labels(target, prediction, size, *, flip):
  del flip  # Of the disparity alone.
  height, width = size
  mask = images.resize_nearest(
    prediction.labels[0], height=height, width=width
  )
  visualization.write_png(target, mask)


def _target(file, source, output, write):
  """The PNG that an image's result goes to."""
  if write == 'depth' or source.is_file():
    return output / f'{file.stem}.png'
  parts = [
    part.replace('image', 'semantic') if part in _FRAME_FOLDERS else part
    for part in file.relative_to(source).parent.parts
  ]
  return output.joinpath(*parts, f'{file.stem}.png')


def _refuse_overwriting(jobs):
  """Refuses results that would replace an image or each other."""
  inputs = {file.resolve() for file in jobs}
  first = {}
  for file, target in jobs.items():
    if target.resolve() in inputs:
      raise ValueError(
        f'the picture of {file} would overwrite it: use another --output'
      )
    if target in first:
      raise ValueError(
        f'{first[target]} and {file} would both be written to {target}, two'
        f' images named {file.stem}: rename one'
      )
    first[target] = file


def _without_those_there(jobs):
  """The jobs whose results do not exist yet; says how many do."""
  left = {file: target for file, target in jobs.items() if not target.exists()}
  if len(left) < len(jobs):
    logging.info(
      '%d of %d masks are there already and stay, the first: %s',
      len(jobs) - len(left),
      len(jobs),
      next(target for file, target in jobs.items() if file not in left),
    )
  return left


def _refuse_unreadable(problems):
  """Ends a run in which images could not be read; names the first ten."""
  if problems:
    more = f'\n  (+{len(problems) - 10} more)' if len(problems) > 10 else ''
    raise ValueError(
      f'unreadable images: {len(problems)}, the others are written:\n  '
      + '\n  '.join(problems[:10])
      + more
    )


def _list_images(source, *, layout):
  """The images at a path, sorted; with `layout` those of KITTI's folders."""
  if source.is_file():
    return [source]
  if not source.is_dir():
    raise FileNotFoundError(f'there is no image or folder {source}')
  files = _images(source.iterdir())
  if not files and layout:
    files = _images(
      pathlib.Path(folder) / name
      for folder, _, names in os.walk(source, followlinks=True)
      if pathlib.Path(folder).parts[-2:] in _FRAME_PARTS
      for name in names
    )
  if not files:
    below = ' or in image_02/data folders below it' if layout else ''
    raise FileNotFoundError(
      f'no {", ".join(_SUFFIXES)} files in {source}{below}'
    )
  return files


def _images(paths):
  return sorted(
    path
    for path in paths
    if path.suffix.lower() in _SUFFIXES
    and not path.name.startswith('.')  # As ._a.png, which macOS adds.
    and path.is_file()
  )
