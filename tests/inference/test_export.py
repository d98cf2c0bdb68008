"""Export: the file alone predicts what the run does, in its own runtime."""

import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax.export
import numpy as np
import pytest
from PIL import Image

from sgde_jax import cli, models
from sgde_jax.configs import ablation, baseline
from sgde_jax.inference import export, steps
from sgde_jax.weights import initial, published
from tests.support import golden, predictions, runs

_DOC = pathlib.Path(__file__).parents[2] / 'docs' / 'deploy.md'
# Format -> the file of docs/deploy.md.
_FILES = {
  'stablehlo': 'depth.jax',
  'savedmodel': 'depth_savedmodel',
  'tflite': 'depth.tflite',
  'onnx': 'depth.onnx',
}


def _blocks(language):
  """The code blocks of docs/deploy.md in a language."""
  text = _DOC.read_text()
  return re.findall(rf'^```{language}\n(.*?)^```', text, re.M | re.S)


def _block(*names):
  """The shortest code block of docs/deploy.md with all of these names."""
  blocks = _blocks('python')
  return min((x for x in blocks if all(n in x for n in names)), key=len)


def _skip_without_packages(format):
  """Skips where a format cannot be written or run."""
  if format == 'onnx':
    pytest.importorskip('jax2onnx', reason='see docs/deploy.md for installing')
  elif format in ('savedmodel', 'tflite'):
    pytest.importorskip('tensorflow')
  if format == 'tflite':
    pytest.importorskip('ai_edge_litert')


def _run(format, folder, frames):
  """Runs a file by the lines of docs/deploy.md; returns its outputs."""
  path = str(folder / _FILES[format])
  names = {'frames': frames}
  code = _block(_FILES[format], 'outputs =')
  exec(code.replace(f"'{_FILES[format]}'", repr(path)), names)
  return {name: np.asarray(x) for name, x in names['outputs'].items()}


def _frames(count, *, seed=0, size=(32, 64)):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, *size, 3), np.uint8)


@pytest.fixture(name='predict', scope='module')
def fixture_predict(root, trained):
  """The prediction of the run, as `--mode=predict` computes it."""
  config = runs.make_config(root)
  mesh = runs.one_device_mesh()
  model, state = initial.load_trained(config, trained, mesh)
  predict = jax.jit(functools.partial(steps.predict_step, model=model))
  return functools.partial(predict, state.variables)


@pytest.mark.slow
@pytest.mark.parametrize('format', _FILES)
def test_formats_match_the_run(
  root, trained, predict, tmp_path, capsys, format
):
  _skip_without_packages(format)
  output = tmp_path / _FILES[format]
  export.export(runs.make_config(root), trained, output, format=format)
  printed = capsys.readouterr().out
  assert f'{output}: ' in printed and f'see {output.name}.json' in printed
  manifest = json.loads((tmp_path / f'{output.name}.json').read_text())
  is_flexible = format in ('stablehlo', 'onnx')
  shape = ['batch' if is_flexible else 1, 32, 64]
  assert manifest['format'] == format and manifest['step'] == 20
  assert manifest['input']['shape'] == [*shape, 3]
  assert manifest['outputs']['inverse_depth']['shape'] == shape
  assert manifest['outputs']['labels']['dtype'] == 'uint8'
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    output.name,
    f'{output.name}.json',
  ]
  for count in (1, 3) if is_flexible else (1,):
    frames = _frames(count, seed=count)
    expected, found = predict(frames), _run(format, tmp_path, frames)
    assert found['inverse_depth'].dtype == np.float32
    assert found['labels'].dtype == np.uint8
    np.testing.assert_array_equal(found['labels'], expected.labels)
    np.testing.assert_allclose(
      found['inverse_depth'], expected.inverse_depth, atol=1e-4, rtol=0
    )
    assert np.ptp(found['inverse_depth']) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize('format', _FILES)
def test_golden_network_in_every_format(tmp_path, format):
  _skip_without_packages(format)
  data = golden.load('network_r18')
  config = baseline.get_config().model
  model = models.create_model(config)
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    data['frames'],
  )
  variables = published.load_torch_weights(
    golden.published_parts(18, int(data['seed'])),
    jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes),
  )

  def predict(frames):  # Golden frames are no whole numbers.
    outputs = model.apply(variables, frames[:, None], train=False)
    return {'disparity': outputs.disparity[..., 0]}

  frames = data['frames'][:, 0]
  shape = jax.ShapeDtypeStruct(frames.shape, frames.dtype)
  export.FORMATS[format](predict, shape, tmp_path / _FILES[format])
  np.testing.assert_allclose(
    _run(format, tmp_path, frames)['disparity'],
    data['eval_disp_0'][..., 0],
    atol=1e-4,
    rtol=0,
  )


@pytest.mark.slow
def test_command_and_documented_lines_alone(trained, predict, tmp_path):
  output = tmp_path / 'depth.jax'
  printed, _ = runs.run_main(
    '--mode=export', '--batch=1', f'--workdir={trained}', f'--output={output}'
  )
  assert f'{output}: {output.stat().st_size / 1e6:.1f} MB' in printed
  assert 'uint8 [1, 32, 64, 3] to inverse_depth and labels' in printed
  predictions.write_image(tmp_path / 'image.png')
  code = '\n'.join(
    [
      _block('image.png'),
      _block('depth.jax', 'outputs ='),
      "np.savez('outputs.npz', frames=frames, **outputs)",
      'import sys',
      "assert 'sgde_jax' not in sys.modules and 'flax' not in sys.modules",
    ]
  )
  subprocess.run([sys.executable, '-c', code], cwd=tmp_path, check=True)
  found = np.load(tmp_path / 'outputs.npz')
  expected = predict(found['frames'])
  np.testing.assert_allclose(
    found['inverse_depth'], expected.inverse_depth, atol=1e-4
  )


@pytest.mark.slow
def test_cpp_example(root, trained, predict, tmp_path):
  _skip_without_packages('onnx')
  (code,) = _blocks('cpp')
  (tmp_path / 'depth.cc').write_text(code)
  header = ['g++', '-include', 'onnxruntime_cxx_api.h', '-E', '-xc++', '-']
  if (
    not shutil.which('g++')
    or subprocess.run(
      header, stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).returncode
  ):
    pytest.skip('no onnxruntime_cxx_api.h: set CPATH, LIBRARY_PATH')
  build = ['g++', '-std=c++17', 'depth.cc', '-lonnxruntime', '-o', 'depth']
  subprocess.run(build, cwd=tmp_path, check=True)
  export.export(
    runs.make_config(root), trained, tmp_path / 'depth.onnx', format='onnx'
  )
  frames = _frames(1)
  Image.fromarray(frames[0]).save(tmp_path / 'image.ppm')
  run = [tmp_path / 'depth', 'depth.onnx', 'image.ppm', 'depth.raw']
  subprocess.run(run, cwd=tmp_path, check=True)
  found = np.fromfile(tmp_path / 'depth.raw', np.float32).reshape(1, 32, 64)
  np.testing.assert_allclose(found, predict(frames).inverse_depth, atol=1e-4)


def test_export_supports_every_platform_and_contains_the_weights(
  root, tmp_path
):
  config = ablation.switch(runs.make_config(root), 'baseline')
  model = runs.create_model(config)
  init = functools.partial(model.init, train=False)
  frames = jax.ShapeDtypeStruct((1, 2, 32, 64, 3), np.float32)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape, leaf.dtype),
    jax.eval_shape(init, jax.random.key(0), frames),
  )
  predict = export.bind(model, variables)
  shape = jax.export.symbolic_shape('b, 32, 64, 3')
  export.write_stablehlo(
    predict, jax.ShapeDtypeStruct(shape, np.uint8), tmp_path / 'file'
  )
  content = (tmp_path / 'file').read_bytes()
  program = jax.export.deserialize(bytearray(content))
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
  assert size < len(content) < 1.1 * size


@pytest.mark.parametrize(
  ('output', 'message'),
  [
    ('folder', 'folder exists; name a new file'),
    ('file', 'file exists; name a new file'),
    ('new', 'new.json exists; name a new file'),
    ('file/below', 'file cannot be written to'),
  ],
)
def test_outputs_that_cannot_be_written(root, tmp_path, output, message):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'file').touch()
  (tmp_path / 'new.json').touch()
  with pytest.raises(ValueError, match=message):
    export.export(runs.make_config(root), tmp_path / 'run', tmp_path / output)


@pytest.mark.parametrize(
  ('format', 'module', 'extra'),
  [
    ('stablehlo', 'flatbuffers', 'export'),
    ('savedmodel', 'tensorflow', 'tf'),
    ('tflite', 'tensorflow', 'tf'),
    ('onnx', 'jax2onnx', 'onnx'),
  ],
)
def test_missing_packages_are_named_before_work(
  root, tmp_path, monkeypatch, format, module, extra
):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(
    ValueError, match=rf'format={format} needs {module}: .*\[{extra}\]'
  ):
    export.export(
      runs.make_config(root), tmp_path / 'run', tmp_path / 'x', format=format
    )


@pytest.mark.parametrize('format', ['tflite', 'onnx'])
def test_formats_without_bfloat16(root, tmp_path, format):
  config = runs.make_config(root, model__dtype='bfloat16')
  with pytest.raises(ValueError, match='add --config.model.dtype=float32'):
    export.export(config, tmp_path / 'run', tmp_path / 'x', format=format)


def test_run_without_a_checkpoint(root, tmp_path):
  output = tmp_path / 'file'
  with pytest.raises(FileNotFoundError, match='checkpoint'):
    export.export(runs.make_config(root), tmp_path / 'run', output)
  assert not list(tmp_path.iterdir())


def test_command_line_names_all_formats():
  assert set(cli.FORMATS) == set(export.FORMATS)


def test_ros_example_is_python():
  assert any('rclpy' in block for block in _blocks('python'))
  for block in _blocks('python'):
    compile(block, 'docs/deploy.md', 'exec')
