"""Imports point down only; heavy libraries are imported lazily, by few."""

import ast
import graphlib
import os
import pathlib
import subprocess
import sys

import pytest

import sgde_jax
from sgde_jax.configs import default

_ROOT = pathlib.Path(__file__).parents[1]
# Every module may import from its own layer and from those above it here.
_LAYERS = (
  ('input_pipeline',),
  (
    'sgde_jax',  # Only its __init__, which imports lazily.
    'sgde_jax.configs',
    'sgde_jax.configuration',
    'sgde_jax.parallel',
    'sgde_jax.run_files',
    'sgde_jax.visualization',
  ),
  ('sgde_jax.ops',),
  ('sgde_jax.models', 'sgde_jax.metrics'),
  ('sgde_jax.weights',),
  ('sgde_jax.inference',),
  ('sgde_jax.evaluation',),
  ('sgde_jax.training',),
  ('sgde_jax.cli',),
)


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
  """The dotted names that an import statement imports."""
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


def _place(module):
  """A module's layer and package; None for one that belongs to no layer."""
  for layer, packages in enumerate(_LAYERS):
    for package in packages:
      below = package != 'sgde_jax' and module.startswith(f'{package}.')
      if module == package or below:
        return layer, package
  return None


def test_imports_are_parsed():
  assert {'sgde_jax', 'sgde_jax.training.loop', 'input_pipeline'} <= set(
    MODULES
  )
  edges = _edges()
  assert 'sgde_jax.ops.geometry' in edges['sgde_jax.ops.warping']
  assert 'input_pipeline.data' in edges['input_pipeline']
  assert 'sgde_jax.training.loop' in edges['sgde_jax.cli']
  assert 'sgde_jax.cli' in _importers('jax')
  assert 'sgde_jax.cli' not in _importers('jax', top_level_only=True)


def test_every_module_has_a_layer():
  assert not [module for module in MODULES if _place(module) is None]


def test_imports_point_down():
  wrong = []
  for module, names in _edges().items():
    layer, package = _place(module)
    for name in names:
      other_layer, other_package = _place(name)
      is_below = other_layer < layer or other_package == package
      if not is_below and (layer, other_layer) != (1, 1):
        wrong.append(f'{module} imports {name}')
  assert not wrong


def test_no_import_is_circular():
  # Raises CycleError, which names the cycle.
  assert list(graphlib.TopologicalSorter(_edges()).static_order())


def test_input_pipeline_uses_neither_sgde_jax_nor_jax():
  users = _importers('sgde_jax', 'jax', 'jaxlib', 'flax', 'optax', 'chex')
  assert not [m for m in users if m.startswith('input_pipeline')]


def test_only_checkpoints_import_orbax():
  assert _importers('orbax') == {'sgde_jax.weights.checkpoints'}


def test_only_video_imports_pyav_lazily():
  assert _importers('av') == {'sgde_jax.inference.video'}
  assert not _importers('av', top_level_only=True)


def test_only_hub_imports_its_library_lazily():
  assert _importers('huggingface_hub') == {'sgde_jax.weights.hub'}
  assert not _importers('huggingface_hub', top_level_only=True)


def test_nothing_needs_pytorch():
  assert not _importers('torch', 'torchvision')


def test_tensorflow_and_clu_are_imported_lazily():
  frameworks = ('tensorflow', 'clu', 'tensorboard')
  assert _importers(*frameworks)
  assert not _importers(*frameworks, top_level_only=True)
  datasets = _importers('tensorflow_datasets', top_level_only=True)
  assert datasets <= {'input_pipeline.tools.build_records'}


@pytest.mark.parametrize(
  ('imports', 'heavy'),
  [
    (
      'import sgde_jax, sgde_jax.cli, sgde_jax.configuration, input_pipeline',
      ('jax', 'flax', 'orbax', 'tensorflow', 'clu', 'matplotlib', 'torch'),
    ),
    (
      'import sgde_jax.training.loop, sgde_jax.inference.images\n'
      'import sgde_jax.inference.export, sgde_jax.evaluation',
      (
        *('orbax', 'tensorflow', 'clu', 'tensorboard', 'av', 'matplotlib'),
        'huggingface_hub',
      ),
    ),
  ],
)
def test_imports_load_no_heavy_library(imports, heavy):
  code = (
    f'{imports}\nimport sys\nprint(sorted(set({heavy}) & set(sys.modules)))'
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


def test_public_names():
  for name in sgde_jax.__all__:
    assert callable(getattr(sgde_jax, name))
    assert name in dir(sgde_jax)
  assert not hasattr(sgde_jax, 'train')
  model = sgde_jax.create_model(default.get_config().model)
  assert model.encoder_layers == 18
