"""Export: the file alone predicts what the run does."""

import functools
import subprocess
import sys

import jax.export
import numpy as np
import pytest

from sgde_jax import parallel
from sgde_jax.configs import ablation
from sgde_jax.inference import export, steps
from sgde_jax.weights import initial
from tests.support import runs

# The example in docs/usage.md: nothing of this project is imported.
_USE = """
import sys
import jax
import jax.export
import numpy as np
options = {}
if jax.default_backend() == 'cpu':
  options['xla_cpu_experimental_ynn_fusion_type'] = ''
with open(sys.argv[1], 'rb') as file:
  exported = jax.export.deserialize(bytearray(file.read()))
predict = jax.jit(exported.call, compiler_options=options)
for name in sys.argv[2:]:
  np.savez(f'{name}.npz', **predict(np.load(name)))
assert 'sgde_jax' not in sys.modules and 'flax' not in sys.modules
"""


def _frames(count, *, seed=0, size=(32, 64)):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, *size, 3), np.uint8)


@pytest.mark.slow
def test_exported_file_alone_matches_the_run(
  root, trained, tmp_path, one_device
):
  output = tmp_path / 'new' / 'run.jax'
  printed, _ = runs.run_main(
    '--mode=export', f'--workdir={trained}', f'--output={output}'
  )
  assert f'{output}: {output.stat().st_size / 1e6:.1f} MB' in printed
  assert 'uint8 [batch, 32, 64, 3] to inverse_depth and labels' in printed
  batches = {f'{count}.npy': _frames(count, seed=count) for count in (1, 3)}
  for name, frames in batches.items():
    np.save(tmp_path / name, frames)
  subprocess.run(
    [sys.executable, '-c', _USE, output, *batches], cwd=tmp_path, check=True
  )
  config = runs.make_config(root)
  model, state = initial.load_trained(config, trained, parallel.create_mesh())
  predict = jax.jit(functools.partial(steps.predict_step, model=model))
  for name, frames in batches.items():
    expected = predict(state.variables, frames)
    found = np.load(tmp_path / f'{name}.npz')
    assert found['inverse_depth'].dtype == np.float32
    assert found['labels'].dtype == np.uint8
    # Sums round differently: a class, hence an edge, may change at a pixel.
    close = np.isclose(
      found['inverse_depth'], expected.inverse_depth, rtol=1e-4
    )
    assert np.mean(close) > 0.99
    assert np.mean(found['labels'] == expected.labels) > 0.99
    assert np.ptp(found['inverse_depth']) > 0.01


def test_export_supports_every_platform_and_contains_the_weights(root):
  config = ablation.switch(runs.make_config(root), 'baseline')
  model = runs.create_model(config)
  init = functools.partial(model.init, train=False)
  frames = jax.ShapeDtypeStruct((1, 2, 32, 64, 3), np.float32)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape, leaf.dtype),
    jax.eval_shape(init, jax.random.key(0), frames),
  )
  program = export.trace_prediction(
    model, variables, jax.export.symbolic_shape('b, 32, 64, 3')
  )
  assert program.platforms == export.PLATFORMS
  (frames,) = program.in_avals  # No weights among the arguments.
  assert frames.dtype == np.uint8 and frames.shape[1:] == (32, 64, 3)
  (inverse_depth,) = program.out_avals  # No labels without semantics.
  assert inverse_depth.dtype == np.float32
  assert inverse_depth.shape[1:] == (32, 64)
  decoders = {
    name: part
    for name, part in variables['params'].items()
    if not name.startswith('pose')
  }
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(decoders))
  # The motion of the camera, which prediction does not need, is left out.
  assert size < len(program.serialize()) < 1.1 * size


@pytest.mark.parametrize(
  ('output', 'message'),
  [
    ('folder', 'folder exists; name a new file'),
    ('file', 'file exists; name a new file'),
    ('file/below', 'file cannot be written to'),
  ],
)
def test_outputs_that_cannot_be_written(root, tmp_path, output, message):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=message):
    export.export(
      runs.make_config(root),
      tmp_path / 'run',
      tmp_path / output,
    )


def test_missing_flatbuffers_raises_before_work(root, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'flatbuffers', None)
  with pytest.raises(ImportError, match='flatbuffers'):
    export.export(runs.make_config(root), tmp_path / 'run', tmp_path / 'file')


def test_run_without_a_checkpoint(root, tmp_path):
  output = tmp_path / 'file'
  with pytest.raises(FileNotFoundError, match='checkpoint'):
    export.export(runs.make_config(root), tmp_path / 'run', output)
  assert not output.exists()
