"""Prediction: `--mode=predict`, disparity for images of any size."""

import functools
import logging
import pathlib
import time

import jax
import numpy as np

from input_pipeline import images
from sgde_jax import evaluate, metrics, sharding, steps, visualization

_SUFFIXES = ('.png', '.jpg', '.jpeg')


def predict(config, workdir, source, output):
  """Writes a native-size disparity `.npy` and a magma PNG per image.

  The array is float32 `[H, W]`, inverse depth in 1/metres up to the
  training's unknown scale.

  Args:
    config: the whole config of the run.
    workdir: folder of a trained run.
    source: path of an image, or of a folder of images.
    output: folder for the results; made if it is missing.

  Raises:
    FileNotFoundError: no such image, folder or checkpoint.
    ValueError: an image cannot be read, or a flag is missing.
  """
  if not source or not output:
    raise ValueError(
      'predict needs --input=IMAGE or FOLDER and --output=FOLDER'
    )
  files = _list_images(pathlib.Path(source))
  sizes = [images.read_size(file) for file in files]
  output = pathlib.Path(output)
  for file in files:
    if (output / f'{file.stem}.png').resolve() == file.resolve():
      raise ValueError(
        f'the picture of {file} would overwrite it: use another --output'
      )
  output.mkdir(parents=True, exist_ok=True)
  # One image at a time on one device: sizes differ, and so do users' machines.
  mesh = sharding.create_mesh(jax.local_devices()[:1])
  model, state = evaluate.load_trained(config, workdir, mesh)
  predict_step = jax.jit(
    functools.partial(
      steps.predict_step, model=model, flip=config.eval.flip
    )
  )
  start = time.monotonic()
  for count, (file, size) in enumerate(
    zip(files, sizes, strict=True), start=1
  ):
    frame = images.read_frame(
      file, height=config.data.height, width=config.data.width
    )
    prediction = jax.device_get(predict_step(state.variables, frame[None]))
    disparity = prediction.disparity[0]
    if config.eval.flip:
      disparity = metrics.flip_post_process(*disparity)
    disparity = metrics.resize_bilinear(disparity, size).astype(np.float32)
    np.save(output / f'{file.stem}.npy', disparity)
    visualization.write_png(
      output / f'{file.stem}.png',
      visualization.colorize_disparity(disparity),
    )
    if count % 50 == 0 or count == len(files):
      seconds = time.monotonic() - start
      logging.info(
        '%d/%d images, %.1f images/s', count, len(files), count / seconds
      )
  print(f'wrote {len(files)} predictions to {output}')


def _list_images(source):
  """The images at a path, sorted; their names must differ in their stems."""
  if source.is_file():
    return [source]
  if not source.is_dir():
    raise FileNotFoundError(f'there is no image or folder {source}')
  files = sorted(
    file for file in source.iterdir() if file.suffix.lower() in _SUFFIXES
  )
  if not files:
    raise FileNotFoundError(f'no {", ".join(_SUFFIXES)} files in {source}')
  stems = [file.stem for file in files]
  doubles = {stem for stem in stems if stems.count(stem) > 1}
  if doubles:
    raise ValueError(
      f'{source} holds two images named {sorted(doubles)[0]}, whose results'
      ' would overwrite each other: rename one'
    )
  return files
