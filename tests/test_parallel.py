"""Data parallelism: one, eight and two times one device agree."""

import functools
import math
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import input_pipeline
from sgde_jax import metrics, parallel
from sgde_jax.configs import default
from sgde_jax.inference import steps as inference
from sgde_jax.training import loop, steps
from sgde_jax.weights import initial
from tests.support import runs, special_runs

_FLOAT64 = '-m', 'tests.support.special_runs', 'float64'
# A single step is faster than optimizing it.
_FLAGS = f'{os.environ["XLA_FLAGS"]} --xla_backend_optimization_level=0'
# Fewer elements than this are no images or features.
_SMALL = 1000


def test_mesh_has_one_axis_over_all_devices():
  mesh = parallel.create_mesh()
  assert mesh.axis_names == ('data',)
  assert mesh.devices.tolist() == jax.devices()
  assert len(jax.devices()) == 8
  assert mesh.axis_types == (jax.sharding.AxisType.Auto,)


class _Device:
  """A fake GPU: each node of a cluster is a slice of its own."""

  platform = device_kind = 'gpu'

  def __init__(self, node, number):
    self.process_index = self.slice_index = node
    self.id = number


def test_mesh_of_several_nodes_follows_the_processes():
  devices = [_Device(1, 2), _Device(0, 1), _Device(1, 3), _Device(0, 0)]
  mesh = parallel.create_mesh(devices)
  assert [device.id for device in mesh.devices] == [0, 1, 2, 3]


def test_batch_is_split_and_comes_back():
  mesh = parallel.create_mesh()
  batch = {'x': np.arange(16 * 3.0).reshape(16, 3), 'y': np.arange(16)}
  arrays = parallel.to_devices(batch, mesh)
  assert [shard.data.shape for shard in arrays['x'].addressable_shards] == (
    [(2, 3)] * 8
  )
  np.testing.assert_array_equal(parallel.local_rows(arrays['x']), batch['x'])
  np.testing.assert_array_equal(parallel.gather_rows(batch['y']), batch['y'])


@pytest.fixture(name='cache_setting')
def fixture_cache_setting(monkeypatch, tmp_path):
  """Restores JAX's cache folder; the default is below tmp_path."""
  folder = jax.config.jax_compilation_cache_dir
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  yield
  jax.config.update('jax_compilation_cache_dir', folder)


@pytest.mark.usefixtures('cache_setting')
def test_compiled_programs_are_kept_by_default(tmp_path):
  jax.config.update('jax_compilation_cache_dir', None)
  parallel.cache_programs()
  chosen = str(tmp_path / 'sgde_jax' / 'compiled')
  assert jax.config.jax_compilation_cache_dir == chosen


@pytest.mark.usefixtures('cache_setting')
@pytest.mark.parametrize('given', ['', 'elsewhere'])
def test_the_users_cache_goes_first(given):
  jax.config.update('jax_compilation_cache_dir', given)
  parallel.cache_programs()
  assert jax.config.jax_compilation_cache_dir == given


@pytest.mark.usefixtures('cache_setting')
def test_no_home_means_no_cache(monkeypatch):
  jax.config.update('jax_compilation_cache_dir', None)
  monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
  parallel.cache_programs()
  assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize(
  'numbers',
  [
    np.arange(12) * (2**40 + 1),
    np.arange(12) / 3,
    np.arange(12, dtype=np.uint8),
    np.arange(12) % 2 == 0,
  ],
)
def test_rows_are_gathered_bit_for_bit(monkeypatch, numbers):
  rows = numbers.reshape(2, 6)

  def gather(array, tiled):
    assert tiled
    # What JAX does with arrays on a device.
    array = np.asarray(jnp.asarray(array))
    return np.concatenate([array, array])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(parallel.multihost_utils, 'process_allgather', gather)
  for part in (rows, rows[:, 0], rows[:, ::2]):
    gathered = parallel.gather_rows(part)
    assert gathered.dtype == numbers.dtype
    np.testing.assert_array_equal(gathered, np.concatenate([part, part]))


def test_replicated_tree_is_whole_on_every_device():
  tree = parallel.replicate({'w': np.arange(6.0)}, parallel.create_mesh())
  assert tree['w'].is_fully_replicated
  for shard in tree['w'].addressable_shards:
    np.testing.assert_array_equal(shard.data, np.arange(6.0))


def test_indivisible_batch_raises():
  mesh = parallel.create_mesh()
  parallel.check_batch_size(16, mesh, 'config.batch_size')
  with pytest.raises(ValueError, match='config.batch_size = 12.*8 devices'):
    parallel.check_batch_size(12, mesh, 'config.batch_size')


# Small, because XLA has no fast float64 convolutions on the CPU.
_SETTINGS = {
  'batch_size': 8,
  'num_steps': 1,
  'data__width': 32,
  'model__attention__levels': (4,),
  'eval__batch_size': 8,
  'log_every': 1,
  'picture_every': 1,
}


@pytest.fixture(name='workdirs', scope='module')
def fixture_workdirs(root, tmp_path_factory):
  """The same single step on one device, on eight, and by two processes.

  Returns:
    The folder of the workdirs `one`, `eight` and `two`, and what each of the
    two processes printed.
  """
  folder = tmp_path_factory.mktemp('sharding')
  flags = runs.make_flags(root, **_SETTINGS)
  processes = _start_two(root, folder / 'two')
  # Processes of their own, so that this one's memory stays below 3 GB.
  for name, devices in (('eight', '8'), ('one', '1')):
    environment = {'JAX_NUM_CPU_DEVICES': devices, 'XLA_FLAGS': _FLAGS}
    workdir = f'--workdir={folder / name}'
    runs.run_main(workdir, *flags, script=_FLOAT64, environment=environment)
  return folder, [runs.finish(process)[0] for process in processes]


def _start_two(root, workdir):
  """Starts a run of two processes with a device each, and examples for both."""
  address = runs.free_address()
  return [
    runs.start(
      f'--workdir={workdir}',
      *runs.make_flags(root, **_SETTINGS | {'eval__batch_size': 2}),
      '--distributed',
      f'--coordinator_address={address}',
      '--num_processes=2',
      f'--process_id={number}',
      script=_FLOAT64,
      environment={'XLA_FLAGS': _FLAGS},
    )
    for number in range(2)
  ]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['eight', 'two'])
def test_eight_devices_match_one(root, workdirs, name):
  config = runs.make_config(root, **_SETTINGS)
  ours, one = (workdirs[0] / part for part in (name, 'one'))
  with special_runs.float64():
    our_state, state = (runs.restore(config, part) for part in (ours, one))
  _assert_close(_gradients(our_state), _gradients(state))
  _assert_close(our_state.batch_stats, state.batch_stats)
  for scalar in ('loss', 'gradient_norm'):
    figures = [
      runs.read_scalars(part, f'train/{scalar}')[1] for part in (ours, one)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
  for scalar in (*metrics.depth.DEPTH_ERRORS, 'ratio', 'images'):
    tables = [runs.read_scalars(part, f'eval/{scalar}') for part in (ours, one)]
    assert list(tables[0]) == [0, 1]
    assert tables[0] == pytest.approx(tables[1], rel=1e-4)


def _gradients(state):
  """The first step's gradients: Adam's first moment is a tenth of them."""
  (adam,) = (
    part
    for part in jax.tree.leaves(
      state.opt_state, is_leaf=lambda node: hasattr(node, 'mu')
    )
    if hasattr(part, 'mu')
  )
  return jax.tree.map(lambda moment: 10 * moment, adam.mu)


def _assert_close(ours, theirs):
  """Checks that each tensor agrees within 1e-5 of its largest entry."""
  errors = {
    jax.tree_util.keystr(path): float(
      abs(ours - theirs).max() / abs(theirs).max()
    )
    for (path, ours), theirs in zip(
      jax.tree_util.tree_leaves_with_path(ours),
      jax.tree.leaves(theirs),
      strict=True,
    )
  }
  assert max(errors.values()) < 1e-5, errors


@pytest.mark.slow
def test_training_does_not_gather_the_batch(root):
  config = runs.make_config(root, **_SETTINGS)
  data = input_pipeline.open_data(config.data, evaluation=False)
  batches = data.train_batches(seed=0, start_step=0, batch_size=8)
  step, *_ = runs.compile_step(config, parallel.create_mesh(), batches)
  compiled = step.func
  assert 'all-reduce' in compiled.as_text()
  assert all(math.prod(shape) < _SMALL for shape in _all_gathers(compiled))


@pytest.mark.slow
def test_prediction_does_not_gather_the_batch(root):
  step = functools.partial(inference.predict_step, flip=True)
  compiled = _compile_by_rows(root, step, (32, 64, 3))
  assert 'while' in compiled.as_text()  # SEEM's chunks
  assert all(math.prod(shape) < _SMALL for shape in _all_gathers(compiled))


@pytest.mark.slow
def test_pictures_do_not_gather_the_batch(root):
  compiled = _compile_by_rows(root, _preview, (2, 32, 64, 3))
  assert all(math.prod(shape) < _SMALL for shape in _all_gathers(compiled))


def _preview(variables, frames, *, model):
  """`preview_step` as a function of the frames alone."""
  batch = {
    'frames': frames,
    'intrinsics': jnp.tile(jnp.eye(3), (len(frames), 1, 1)),
    'labels': frames[:, 0, ..., 0],
  }
  loss = loop.bind_loss(default.get_config().loss, model)
  return steps.preview_step(variables, batch, model=model, loss=loss)


def _compile_by_rows(root, step, shape):
  """Compiles a step of the whole method for eight devices, two rows each."""
  config = runs.make_config(root, model__attention__levels=(4, 2))
  model, mesh = runs.create_model(config), parallel.create_mesh()
  state = initial.template(config, model, mesh)
  rows = parallel.batch_sharded(mesh)
  frames = jax.ShapeDtypeStruct((16, *shape), np.uint8, sharding=rows)
  step = parallel.jit(functools.partial(step, model=model), out_shardings=rows)
  return step.lower(state.variables, frames).compile()


def _all_gathers(compiled):
  """Returns the shapes of the results of a compiled program's all-gathers."""
  results = re.findall(r'= (.*?) all-gather(?:-start)?\(', compiled.as_text())
  return [
    tuple(map(int, filter(None, shape.split(','))))
    for result in results
    for shape in re.findall(r'\w+\[([\d,]*)\]', result)
  ]


@pytest.mark.parametrize(
  'gathering',
  [
    lambda x: jax.lax.top_k(x, 300),
    lambda x: x[jnp.arange(8)[:, None], jnp.argsort(x, axis=1)],
  ],
)
def test_gathered_batch_would_be_detected(gathering):
  rows = parallel.batch_sharded(parallel.create_mesh())
  step = jax.jit(gathering, in_shardings=rows, out_shardings=rows)
  gathers = _all_gathers(step.lower(jnp.zeros((8, 2000))).compile())
  assert any(math.prod(shape) >= _SMALL for shape in gathers)


@pytest.mark.slow
def test_only_process_0_writes(workdirs):
  folder, (first, second) = workdirs
  assert 'abs_rel' in first
  assert 'abs_rel' not in second
  events, *files = sorted(
    runs.list_files(folder / 'two'),
    key=lambda name: not name.startswith('events.'),
  )
  assert events.startswith('events.')
  # It draws its own rows only, the first half of every batch.
  assert files == [
    'config.json',
    'configs.jsonl',
    'evaluation/confusion.csv',
    'evaluation/metrics.json',
    'evaluation/per_image.csv',
    'metrics.jsonl',
    'parameters.txt',
    'pictures/eval_000000.png',
    'pictures/train_000001_0.png',
    'pictures/train_000001_1.png',
  ]


@pytest.mark.skipif(
  jax.default_backend() != 'cpu', reason='these are options for CPUs'
)
def test_no_convolution_runs_in_ynnpack():
  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  def loss(kernel, x):
    return jnp.sum(convolve(x, kernel) ** 2)

  keys = jax.random.split(jax.random.key(0))
  x = jax.random.normal(keys[0], (4, 48, 160, 64))  # YNNPACK gets large ones.
  kernel = jax.random.normal(keys[1], (3, 3, 64, 64))
  gradient = jax.grad(loss)
  usual = jax.jit(gradient).lower(kernel, x).compile()
  assert 'ynn_fusion' in usual.as_text()  # Else the options change nothing.
  ours = parallel.jit(gradient).lower(kernel, x).compile()
  assert 'ynn_fusion' not in ours.as_text()
  expected = usual(kernel, x)
  scale = jnp.abs(expected).max()
  np.testing.assert_allclose(
    ours(kernel, x) / scale, expected / scale, atol=1e-4
  )


def test_options_are_passed_to_jit():
  double = parallel.jit(
    lambda x: 2 * x,
    cpu_options={'xla_backend_optimization_level': 1},
    donate_argnums=0,
  )
  x = jnp.ones(3)
  np.testing.assert_array_equal(double(x), 2)
  assert x.is_deleted()
