"""Export: `--mode=export`, a trained run as one file that JAX alone runs."""

import importlib.util
import os
import pathlib

import jax.export
import numpy as np

from sgde_jax import folders, parallel
from sgde_jax.inference import steps
from sgde_jax.training import log
from sgde_jax.weights import initial

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def export(config, workdir, output):
  """Writes a trained run's prediction, weights included, to one file.

  What `jax.export.deserialize` reads takes frames `[B, H, W, 3]` uint8 of any
  B, at the size that the run was trained with, and returns a dict of

    inverse_depth `[B, H, W]` float32 in 1/metres up to the
      training's unknown scale, every semantic edge refined;
    labels `[B, H, W]` uint8 train ids, of a run with semantics,

  as `steps.predict_step` does, without mirrored frames, on `PLATFORMS`.

  Args:
    config: the whole config of the run.
    workdir: folder of a trained run.
    output: path of the new file; its folder is made if it is missing.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: the output is not given, is a folder or is there already;
      `flatbuffers` is not installed; the checkpoint does not fit the config.
  """
  _check(output)
  mesh = parallel.create_mesh(jax.local_devices()[:1])
  model, state = initial.load_trained(_portable(config), workdir, mesh)
  shape = f'batch, {config.data.height}, {config.data.width}, 3'
  program = trace_prediction(
    model, state.variables, jax.export.symbolic_shape(shape)
  )
  content = program.serialize()
  log.write_bytes(output, content)
  names = jax.tree.unflatten(program.out_tree, program.out_avals)
  print(
    f'{output}: {len(content) / 1e6:.1f} MB, frames uint8 [{shape}] to'
    f' {" and ".join(names)}, for {", ".join(PLATFORMS)}'
  )


def trace_prediction(model, variables, shape):
  """Traces `steps.predict_step` with its weights, for every platform.

  Args:
    model: the network; its attention must not be that of one platform.
    variables: the model's variables.
    shape: (B, H, W, 3), the batch possibly symbolic.

  Returns:
    A `jax.export.Exported` from uint8 frames to a dict, see `export`.
  """
  variables = jax.device_get(variables)  # Constants of the program.

  def predict(frames):
    found = vars(steps.predict_step(variables, frames, model=model))
    return {name: x for name, x in found.items() if x is not None}

  trace = jax.export.export(jax.jit(predict), platforms=PLATFORMS)
  return trace(jax.ShapeDtypeStruct(shape, np.uint8))


def _check(output):
  """Refuses what cannot be written to, before any work."""
  if not output:
    raise ValueError('export needs --output=FILE')
  if os.path.isdir(output) or os.fspath(output).endswith('/'):
    raise ValueError(f'--output={output} is a folder; name a file')
  if os.path.exists(output):
    raise ValueError(f'--output={output} is there already; name a new file')
  folders.refuse_unwritable(
    'the folder of --output', pathlib.Path(output).parent
  )
  if importlib.util.find_spec('flatbuffers') is None:
    raise ValueError(
      'jax.export writes its files with flatbuffers: pip install flatbuffers'
    )


def _portable(config):
  """The config with the one attention that every platform has."""
  config = config.copy_and_resolve_references()
  config.model.attention.implementation = 'blockwise'
  return config
