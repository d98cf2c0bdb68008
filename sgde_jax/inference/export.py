"""Export: `--mode=export`, a trained run as one file that JAX alone runs."""

import os
import pathlib

import jax.export
import ml_collections
import numpy as np
from flax import linen as nn

from input_pipeline import files
from sgde_jax import parallel
from sgde_jax.inference import steps
from sgde_jax.weights import initial

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def export(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  output: str | os.PathLike,
) -> None:
  """Writes a trained run's prediction, weights included, to a new file.

  `jax.export.deserialize` reads it, on all `PLATFORMS`. The program maps frames
  `[B, H, W, 3]` uint8 of any B, at the size that the run was trained with, to a
  dict of `inverse_depth` and, with semantics, `labels`, see
  `steps.BatchPrediction`.
  """
  import flatbuffers  # noqa: F401  Needed at the end; fail at the start.

  if os.path.exists(output):
    raise ValueError(f'--output={output} exists; name a new file')
  files.check_writable(pathlib.Path(output).parent)
  config = config.copy_and_resolve_references()
  # The one attention that every platform has.
  config.model.attention.implementation = 'blockwise'
  mesh = parallel.create_mesh(jax.local_devices()[:1])
  model, state = initial.load_trained(config, workdir, mesh)
  shape = f'batch, {config.data.height}, {config.data.width}, 3'
  program = trace_prediction(
    model, state.variables, jax.export.symbolic_shape(shape)
  )
  content = program.serialize()
  files.write_bytes(output, content)
  names = jax.tree.unflatten(program.out_tree, program.out_avals)
  print(
    f'{output}: {len(content) / 1e6:.1f} MB, frames uint8 [{shape}] to'
    f' {" and ".join(names)}, for {", ".join(PLATFORMS)}'
  )


def trace_prediction(
  model: nn.Module, variables: dict, shape: tuple
) -> jax.export.Exported:
  """Traces `steps.predict_step` with its weights, for every platform.

  The model's attention must run on all of them; `shape` is that of the frames,
  (B, H, W, 3), the batch possibly symbolic.
  """
  variables = jax.device_get(variables)  # Constants of the program.

  def predict(frames):
    found = vars(steps.predict_step(variables, frames, model=model))
    return {name: x for name, x in found.items() if x is not None}

  trace = jax.export.export(jax.jit(predict), platforms=PLATFORMS)
  return trace(jax.ShapeDtypeStruct(shape, np.uint8))
