"""Who may import whom, read off the source."""

import ast
import graphlib
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]


def _modules(*packages):
  """Dotted name -> file of every module of the packages."""
  files = {}
  for package in packages:
    for path in sorted((_ROOT / package).rglob('*.py')):
      parts = path.relative_to(_ROOT).with_suffix('').parts
      files['.'.join(p for p in parts if p != '__init__')] = path
  return files


MODULES = _modules('sgde_jax', 'input_pipeline')


def _names(node):
  """The dotted names that an import statement binds or looks into."""
  if isinstance(node, ast.Import):
    return [alias.name for alias in node.names]
  if isinstance(node, ast.ImportFrom):
    return [f'{node.module}.{alias.name}' for alias in node.names]
  return []


def _imports(path):
  """Pairs (dotted name, whether inside a function) of a file's imports."""
  found = []

  def visit(node, in_function):
    if isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
    found.extend((name, in_function) for name in _names(node))
    in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
      visit(child, in_function)

  visit(ast.parse(path.read_text(), str(path)), False)
  return found


IMPORTS = {module: _imports(path) for module, path in MODULES.items()}


def _importers(*libraries, top_level_only=False):
  """Modules that import one of the libraries."""
  return {
    module
    for module, imports in IMPORTS.items()
    for name, in_function in imports
    if name.split('.')[0] in libraries and not (top_level_only and in_function)
  }


def _edges():
  """Module -> modules of ours that it imports, anywhere in the file."""
  edges = {}
  for module, imports in IMPORTS.items():
    names = (name for name, _ in imports)
    ours = (n if n in MODULES else n.rpartition('.')[0] for n in names)
    edges[module] = {name for name in ours if name in MODULES} - {module}
  return edges


def _reachable(module):
  edges, seen, pending = _edges(), set(), [module]
  while pending:
    for name in edges[pending.pop()] - seen:
      seen.add(name)
      pending.append(name)
  return seen


def test_the_reading_of_imports_sees_what_it_should():
  assert {'sgde_jax.train', 'sgde_jax.models.encoder', 'sgde_jax'} <= set(
    MODULES
  )
  assert 'sgde_jax.evaluate' in _edges()['sgde_jax.train']
  assert 'input_pipeline' in _edges()['sgde_jax.train']
  assert 'sgde_jax.models.layers' in _edges()['sgde_jax.models.encoder']
  assert 'sgde_jax.train' in _importers('clu')
  assert 'sgde_jax.train' not in _importers('clu', top_level_only=True)
  assert 'sgde_jax.geometry' in _reachable('sgde_jax.train')


def test_the_input_pipeline_knows_neither_the_networks_nor_jax():
  users = _importers('sgde_jax', 'jax', 'jaxlib', 'flax', 'optax', 'chex')
  assert not [m for m in users if m.startswith('input_pipeline')]


def test_only_checkpointing_imports_orbax():
  assert _importers('orbax') == {'sgde_jax.checkpointing'}


def test_tensorflow_is_imported_late_and_by_few():
  frameworks = ('tensorflow', 'tensorflow_datasets', 'clu', 'tensorboard')
  allowed = {f'sgde_jax.{name}' for name in ('train', 'evaluate', 'predict')}
  allowed |= {
    f'input_pipeline.{name}' for name in ('reading', 'records', 'tfds_builder')
  }
  assert _importers(*frameworks) <= allowed
  late = _importers(*frameworks, top_level_only=True)
  assert late <= {'input_pipeline.tools.build_records'}


@pytest.mark.parametrize(
  'prefix',
  [
    'street',
    'kitti',
    'labels',
    'odometry',
    'sampling',
    'split',
    'standing',
    'images',
  ],
)
def test_layout_and_order_need_no_tensorflow(prefix):
  modules = [m for m in MODULES if m.startswith(f'input_pipeline.{prefix}')]
  assert modules
  for module in modules:
    # The package itself is the door and opens onto the readers.
    reached = _reachable(module) - {'input_pipeline'}
    assert 'input_pipeline.reading' not in reached
    assert not (reached | {module}) & _importers('tensorflow')


def test_imports_point_down_only():
  # Raises CycleError, which names the cycle.
  order = list(graphlib.TopologicalSorter(_edges()).static_order())
  layers = ('geometry', 'warping', 'losses', 'steps', 'evaluate', 'train')
  positions = [order.index(f'sgde_jax.{name}') for name in layers]
  assert positions == sorted(positions)
  for lower, upper in zip(layers, layers[1:], strict=False):
    assert f'sgde_jax.{lower}' in _reachable(f'sgde_jax.{upper}')


def test_nothing_imports_the_loop_or_the_commands():
  edges = _edges()
  for command in ('train', 'predict', 'export'):
    users = {m for m, names in edges.items() if f'sgde_jax.{command}' in names}
    assert not users


def test_geometry_stands_alone():
  for module in ('geometry', 'models.layers', 'trajectory', 'pretrained'):
    assert not _reachable(f'sgde_jax.{module}')


def test_only_video_imports_pyav_and_late():
  assert _importers('av') == {'sgde_jax.video'}
  assert not _importers('av', top_level_only=True)


def test_importing_everything_loads_no_tensorflow():
  code = (
    'import sys, input_pipeline\n'
    'import sgde_jax.train, sgde_jax.predict, sgde_jax.export\n'
    "heavy = ('tensorflow', 'clu', 'tensorboard', 'torch')\n"
    'print(sorted(set(heavy) & set(sys.modules)))'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    cwd=_ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.strip() == '[]'
