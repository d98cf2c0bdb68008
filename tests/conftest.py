"""Settings of the whole test session, made before JAX starts.

Eight virtual CPU devices, and one cache of compiled programs that the workers
and the processes started by tests share. On an accelerator, run its tests by
`TEST_PLATFORM=cuda python -m pytest tests/models/test_attention.py`.
"""

import collections
import fcntl
import importlib.metadata
import os
import shutil
import tempfile

# Compiling takes most of the time, by XLA's defaults twice as long.
_XLA_FLAGS = ['--xla_backend_optimization_level=1']
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # Removed later.
  _XLA_FLAGS.append('--xla_cpu_use_fusion_emitters=false')
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:  # Workers inherit it.
  _CACHE = tempfile.TemporaryDirectory(prefix='jax_cache_')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _CACHE.name
os.environ |= {
  'JAX_PLATFORMS': os.environ.get('TEST_PLATFORM', 'cpu'),
  'JAX_NUM_CPU_DEVICES': '8',
  'XLA_FLAGS': ' '.join(_XLA_FLAGS),
  # Float32 products on accelerators, too, whose default is less exact.
  'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
  'JAX_NUMPY_RANK_PROMOTION': 'raise',
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
  'TF_CPP_MIN_LOG_LEVEL': '3',
}

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

# The shapes in the signatures are checked only in tests.
jaxtyping.install_import_hook(
  ['sgde_jax.ops', 'sgde_jax.models'], 'beartype.beartype'
)

from sgde_jax import parallel  # noqa: E402
from tests.support import runs  # noqa: E402


def pytest_collection_modifyitems(items):
  """Puts files with most slow tests first, so that workers end together."""
  slow = collections.Counter(
    item.path for item in items if item.get_closest_marker('slow')
  )
  items.sort(key=lambda item: -slow[item.path])


def _make_once(tmp_path_factory, name, make):
  """Makes a folder that all workers of a session share and do not change."""
  base = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:  # Each has its own below.
    base = base.parent
  made = base / f'{name}.made'
  with open(base / f'{name}.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not made.exists():
      shutil.rmtree(base / name, ignore_errors=True)  # Of one that failed.
      make(base / name)
      made.touch()
  return base / name


@pytest.fixture(scope='session', name='root')
def fixture_root(tmp_path_factory):
  """A KITTI raw folder of random frames: 4 training and 3 test examples."""
  return _make_once(tmp_path_factory, 'kitti', runs.write_root)


@pytest.fixture(scope='session', name='trained')
def fixture_trained(root, tmp_path_factory):
  """Workdir of 20 steps in one go, with checkpoints of steps 10 and 20."""
  flags = runs.make_flags(root)
  return _make_once(
    tmp_path_factory,
    'trained',
    lambda workdir: runs.run_main(f'--workdir={workdir}', *flags),
  )


@pytest.fixture(scope='module', autouse=True)
def fixture_clear_caches():
  """Frees the programs of a file, which would add up to gigabytes."""
  yield
  jax.clear_caches()


@pytest.fixture(name='one_device')
def fixture_one_device(monkeypatch):
  """Makes runs inside the test process use one device."""
  monkeypatch.setattr(parallel, 'create_mesh', runs.one_device_mesh)
