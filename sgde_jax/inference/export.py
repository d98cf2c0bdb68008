"""Export: `--mode=export`, a trained run as a file for another runtime."""

import importlib.metadata
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Callable

import jax.export
import ml_collections
import numpy as np
from flax import linen as nn

import sgde_jax
from input_pipeline import cityscapes, files
from sgde_jax import configuration, models, parallel
from sgde_jax.inference import steps
from sgde_jax.weights import initial

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
Predict = Callable[[jax.Array], dict[str, jax.Array]]


def export(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  output: str | os.PathLike,
  *,
  format: str = 'stablehlo',
  batch: int = 0,
) -> None:
  """Writes a trained run's prediction, weights included, to a new file.

  The program maps `frames` `[B, H, W, 3]` uint8, of the size that the run was
  trained with, to `inverse_depth` and, with semantics, `labels`, see
  `steps.BatchPrediction`. `OUTPUT.json` describes it.

  Args:
    config: the whole config.
    workdir: the run's folder.
    output: the new file; for savedmodel a folder.
    format: one of `FORMATS`.
    batch: B; 0 for any number of frames where the format can, else 1.

  Raises:
    ValueError: if an output exists or cannot be written, or the format needs a
      package that is missing or another `config.model.dtype`.
  """
  output = pathlib.Path(output)
  manifest = output.with_name(f'{output.name}.json')
  for path in (output, manifest):
    if path.exists():
      raise ValueError(f'{path} exists; name a new file')
  files.check_writable(output.parent)
  _check(format, config.model.dtype)
  mesh = parallel.create_mesh(jax.local_devices()[:1])
  model, state = initial.load_trained(config, workdir, mesh)
  predict = bind(adapt(model, format), state.variables)
  count = batch or ('batch' if format in _ANY_BATCH else 1)
  shape = f'{count}, {config.data.height}, {config.data.width}, 3'
  frames = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), np.uint8)
  description = {
    'format': format,
    'file': output.name,
    'step': int(state.step),
    **describe(predict, frames, config),
    'versions': _versions(format),
    'commit': configuration.commit(),
  }
  whole = files.whole_folder if format == 'savedmodel' else files.whole_file
  with whole(output) as partial:
    FORMATS[format](predict, frames, partial)
    files.write_json(manifest, description)
  size = sum(path.stat().st_size for path in (output, *output.rglob('*')))
  outputs = ' and '.join(description['outputs'])
  print(
    f'{output}: {size / 1e6:.1f} MB, frames uint8 [{shape}] to {outputs},'
    f' see {manifest.name}'
  )


def adapt(model: models.DepthModel, format: str) -> models.DepthModel:
  """Returns the same network in the form that a format's runtime computes.

  XLA runs blockwise attention and SEEM's loop over chunks of points. The other
  runtimes lack such loops, gathers and scatters: there attention stores its
  matrix, and SEEM computes all pixels.
  """
  is_xla = format in _XLA
  implementation = 'blockwise' if is_xla else 'plain'
  attention = {**model.attention, 'implementation': implementation}
  seem = model.seem
  if seem and not is_xla:
    seem = {**seem, 'chunk': 0}
  return model.clone(attention=attention, seem=seem)


def bind(model: nn.Module, variables: dict) -> Predict:
  """Returns `steps.predict_step` with its weights as constants."""
  variables = jax.device_get(variables)

  def predict(frames):
    found = vars(steps.predict_step(variables, frames, model=model))
    return {name: x for name, x in found.items() if x is not None}

  return predict


def describe(
  predict: Predict,
  frames: jax.ShapeDtypeStruct,
  config: ml_collections.ConfigDict,
) -> dict:
  """Describes input, outputs and precision of an exported program."""
  model = config.model
  meanings = {
    'inverse_depth': {
      'unit': "1/metres, up to the training's unknown scale",
      'range': [1 / model.max_depth, 1 / model.min_depth],
    },
    'labels': {'unit': 'class', 'classes': cityscapes.NAMES},
  }
  return {
    'input': {
      'name': 'frames',
      **_describe_array(frames),
      'layout': 'NHWC',
      'channels': 'RGB',
      'range': [0, 255],
    },
    'outputs': {
      name: _describe_array(array) | meanings[name]
      for name, array in jax.eval_shape(predict, frames).items()
    },
    'precision': {
      'network': model.dtype,
      'products': jax.config.jax_default_matmul_precision or 'default',
    },
    'model': model.to_dict(),
  }


def write_stablehlo(
  predict: Predict, frames: jax.ShapeDtypeStruct, path: pathlib.Path
) -> None:
  """Writes a file for `jax.export.deserialize`, on all `PLATFORMS`."""
  trace = jax.export.export(jax.jit(predict), platforms=PLATFORMS)
  path.write_bytes(trace(frames).serialize())


def write_savedmodel(
  predict: Predict, frames: jax.ShapeDtypeStruct, path: pathlib.Path
) -> None:
  """Writes a folder for `tf.saved_model.load`; the batch must be fixed."""
  _save_tensorflow(predict, frames, path, PLATFORMS)


def write_tflite(
  predict: Predict, frames: jax.ShapeDtypeStruct, path: pathlib.Path
) -> None:
  """Writes a file of TensorFlow Lite's own operations; a fixed batch."""
  import tensorflow as tf

  with tempfile.TemporaryDirectory() as folder:
    _save_tensorflow(predict, frames, folder, ('cpu',))
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    path.write_bytes(converter.convert())


def write_onnx(
  predict: Predict, frames: jax.ShapeDtypeStruct, path: pathlib.Path
) -> None:
  """Writes a file for ONNX runtimes."""
  import jax2onnx

  names = list(jax.eval_shape(predict, frames))
  with jax.numpy_rank_promotion('allow'):  # Its own code needs it.
    model = jax2onnx.to_onnx(
      lambda frames: tuple(predict(frames).values()),
      [frames],
      model_name='sgde_jax',
      input_names=['frames'],
      output_names=names,
    )
  path.write_bytes(model.SerializeToString())


FORMATS = {
  'stablehlo': write_stablehlo,
  'savedmodel': write_savedmodel,
  'tflite': write_tflite,
  'onnx': write_onnx,
}
_ANY_BATCH = ('stablehlo', 'onnx')
_XLA = ('stablehlo', 'savedmodel')
# The module that writes a format, and how to install it.
_NEEDS = {
  'stablehlo': ('flatbuffers', 'pip install ".[export]"'),
  'savedmodel': ('tensorflow', 'pip install ".[tf]"'),
  'tflite': ('tensorflow', 'pip install ".[tf]"'),
  # Without its dependencies: it asks for an older Orbax, but never imports it.
  'onnx': (
    'jax2onnx',
    'pip install ".[onnx]" && pip install --no-deps jax2onnx==0.17.1',
  ),
}


def _check(format, dtype):
  """Raises ValueError if the format cannot be written."""
  if format not in _XLA and dtype != 'float32':
    raise ValueError(
      f'--format={format} has no convolutions in {dtype}: add'
      ' --config.model.dtype=float32'
    )
  module, command = _NEEDS[format]
  if not importlib.util.find_spec(module):
    raise ValueError(f'--format={format} needs {module}: {command}')


def _versions(format):
  """Returns the versions of the packages that write a format."""
  packages = importlib.metadata.packages_distributions()
  modules = 'jax', _NEEDS[format][0]
  return {'sgde_jax': sgde_jax.__version__} | {
    module: importlib.metadata.version(packages[module][0])
    for module in modules
  }


def _describe_array(array):
  shape = [x if isinstance(x, int) else str(x) for x in array.shape]
  return {'dtype': array.dtype.name, 'shape': shape}


def _save_tensorflow(predict, frames, folder, platforms):
  """Writes a SavedModel whose signature has the names of the outputs."""
  import tensorflow as tf
  from jax.experimental import jax2tf

  for kind in ('GPU', 'TPU'):  # Their memory belongs to JAX.
    tf.config.set_visible_devices([], kind)
  module = tf.Module()
  module.predict = tf.function(
    jax2tf.convert(
      predict, with_gradient=False, native_serialization_platforms=platforms
    ),
    input_signature=[tf.TensorSpec(frames.shape, frames.dtype, name='frames')],
    autograph=False,
  )
  tf.saved_model.save(module, folder, signatures=module.predict)
