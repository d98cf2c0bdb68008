"""The documentation names what exists: commands, flags, fields, links."""

import ast
import json
import pathlib
import pkgutil
import re

import numpy as np
import pytest
from PIL import Image

from sgde_jax.configs import default

_ROOT = pathlib.Path(__file__).parents[1]
_PAGES = [_ROOT / 'README.md', *sorted((_ROOT / 'docs').rglob('*.md'))]
_LINKING = [*_PAGES, *sorted(_ROOT.glob('C*.md'))]
_COMMAND = re.compile(
  r'\b(sgde-jax|python main\.py|python -m [\w.]+)((?: .*)?)'
)
_FLAG = re.compile(r"""(?:^|[\s"'])--([\w.]+)(?:=([^\s"']*))?""")


def _relative(path):
  return str(path.relative_to(_ROOT))


def _code(page):
  """Yields the lines of fenced blocks and the inline code of a page."""
  text = page.read_text()
  blocks = re.findall(r'^ *```\w*\n(.*?)^ *```', text, re.M | re.S)
  prose = re.sub(r'^ *```.*?^ *```', '', text, flags=re.M | re.S)
  for block in blocks:
    yield from block.replace('\\\n', ' ').splitlines()
  yield from (
    code.replace('\n', ' ') for code in re.findall('`([^`]+)`', prose)
  )


def _commands():
  for page in _PAGES:
    for line in _code(page):
      match = _COMMAND.search(line)
      if match and not match[1].endswith(' pytest'):
        yield _relative(page), match[1], match[2].split(' # ')[0]


def _sources(program):
  """The files that define the flags of a command."""
  if not program.startswith('python -m '):
    return [_ROOT / 'sgde_jax' / 'cli.py']
  path = _ROOT.joinpath(*program.split()[-1].split('.'))
  return sorted(path.glob('*.py')) or [path.with_suffix('.py')]


def _strings(paths):
  return {
    node.value.removeprefix('--')
    for path in paths
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
  }


def _fields(tree=None, prefix=''):
  tree = default.get_config().to_dict() if tree is None else tree
  names = {'loss.curvature_weight'}  # What docs/add-a-loss.md adds.
  for name, value in tree.items():
    names.add(prefix + name)
    if isinstance(value, dict):
      names |= _fields(value, f'{prefix}{name}.')
  return names


@pytest.mark.parametrize(
  ('page', 'program', 'arguments'), sorted(set(_commands()))
)
def test_modules_and_flags_in_commands_exist(page, program, arguments):
  del page
  sources = _sources(program)
  assert all(path.is_file() for path in sources), program
  known, fields = _strings(sources), _fields()
  for name, value in _FLAG.findall(arguments):
    if name.startswith('config.'):
      assert name.removeprefix('config.') in fields, name
      continue
    assert name in known | {'help', 'config'}, name
    if name == 'config':
      path = value.split(':')[0]
      named = _ROOT / 'configs' / f'{path}.py'
      assert named.is_file() or (_ROOT / path).is_file(), value
    if name == 'set' and value != 'FIELD=VALUE':
      assert value.split('=')[0] in fields, value


def test_documentation_has_commands():
  assert len({program for _, program, _ in _commands()}) > 10


@pytest.mark.parametrize('page', _PAGES, ids=_relative)
def test_config_fields_in_the_text_exist(page):
  fields = _fields()
  for code in _code(page):
    for name in re.findall(r'\bconfig\.([a-z][\w.]*\w)(?!\()', code):
      assert name in fields | {'json', 'jsonl'}, name


@pytest.mark.parametrize('page', _PAGES, ids=_relative)
def test_source_files_in_the_text_exist(page):
  for code in _code(page):
    for name in re.findall(r'(?<![\w./-])[a-z_][\w/]*/\w+\.py\b', code):
      paths = [_ROOT / name, _ROOT / 'sgde_jax' / name]
      assert any(path.is_file() for path in paths), name


@pytest.mark.parametrize('page', _PAGES, ids=_relative)
def test_python_names_in_the_text_exist(page):
  for name in re.findall(
    r'(?<![\w/.])(?:sgde_jax|input_pipeline)(?:\.\w+)+(?![\w/])',
    page.read_text(),
  ):
    assert pkgutil.resolve_name(name), name


def _slugs(page):
  """The anchors of a page's headings, as Python-Markdown makes them."""
  text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S)
  for heading in re.findall(r'^#+ (.*)$', text, re.M):
    heading = re.sub(r'[`*]|\]\(.*?\)', '', heading)
    heading = re.sub(r'[^\w\s-]', '', heading).strip().lower()
    yield re.sub(r'[-\s]+', '-', heading)


@pytest.mark.parametrize('page', _LINKING, ids=_relative)
def test_relative_links_resolve(page):
  for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
    if re.match(r'https?:', target):
      continue
    name, _, anchor = target.partition('#')
    path = page.parent / name if name else page
    assert path.exists(), target
    if anchor:
      assert anchor in _slugs(path), target


@pytest.mark.parametrize(
  ('name', 'most'), [('README.md', 170), ('docs/results.md', 150)]
)
def test_pages_stay_short(name, most):
  assert len((_ROOT / name).read_text().splitlines()) <= most


def test_every_page_is_in_the_navigation():
  navigation = (_ROOT / 'mkdocs.yml').read_text()
  for page in _PAGES[1:]:
    assert page.relative_to(_ROOT / 'docs').as_posix() in navigation


@pytest.mark.slow
@pytest.mark.parametrize('name', ['README.md', 'docs/index.md'])
def test_python_lines_predict_an_image(name, trained, tmp_path):
  image = tmp_path / 'image.png'
  pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
  Image.fromarray(pixels).save(image)
  blocks = re.findall(
    r'^```python\n(.*?)^```', (_ROOT / name).read_text(), re.M | re.S
  )
  lines = next(block for block in blocks if block.startswith('import sgde_jax'))
  names = {}
  exec(
    lines.replace("'W'", repr(str(trained))).replace(
      "'image.png'", repr(str(image))
    ),
    names,
  )
  prediction = names['prediction']
  assert prediction.inverse_depth.shape == (40, 80)
  assert (prediction.depth() > 0).all()


@pytest.mark.slow
def test_notebook_runs(trained, root, tmp_path, monkeypatch):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'demo').symlink_to(trained)
  (tmp_path / 'runs' / 'street_192x64').symlink_to(root)
  (tmp_path / 'docs').mkdir()
  monkeypatch.chdir(tmp_path / 'docs')
  notebook = json.loads((_ROOT / 'docs' / 'predict.ipynb').read_text())
  names = {}
  for cell in notebook['cells']:
    if cell['cell_type'] == 'code':
      assert not cell['outputs']
      exec(''.join(cell['source']), names)
  assert names['prediction'].labels.shape == names['depth'].shape == (40, 80)
  assert names['points'].shape == (40 * 80, 3)
  assert names['poses'].shape == (len(names['paths']), 4, 4)
