"""The wheel: what it installs, and that it works outside the source tree."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

import sgde_jax

_ROOT = pathlib.Path(__file__).parents[1]
_SOURCES = (
  'configs',
  'input_pipeline',
  'sgde_jax',
  'LICENSE',
  'README.md',
  'pyproject.toml',
)


@pytest.fixture(scope='module', name='wheel')
def fixture_wheel(tmp_path_factory):
  """The wheel, built from a copy so that the tree gets no build folders."""
  folder = tmp_path_factory.mktemp('package')
  for name in _SOURCES:
    command = ['cp', '--recursive', '--no-dereference', _ROOT / name, folder]
    subprocess.run(command, check=True)
  arguments = ['--wheel', '--outdir', folder / 'dist', folder]
  subprocess.run([sys.executable, '-m', 'build', *arguments], check=True)
  (path,) = (folder / 'dist').glob('*.whl')
  return path


@pytest.mark.slow
def test_wheel_installs_two_packages_and_the_configs(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
    (metadata,) = (name for name in names if name.endswith('/METADATA'))
    description = archive.read(metadata).decode()
  tops = {name.partition('/')[0] for name in names}
  info = f'sgde_jax-{sgde_jax.__version__}.dist-info'
  assert tops == {'sgde_jax', 'input_pipeline', info}
  for path in (_ROOT / 'configs').rglob('*.*'):
    if path.suffix in ('.py', '.txt'):
      assert f'sgde_jax/configs/{path.relative_to(_ROOT / "configs")}' in names
  assert {'sgde_jax/py.typed', 'input_pipeline/py.typed'} <= names
  read = {'sgde_jax/evaluation/report.html', 'sgde_jax/colour_maps.png'}
  assert read <= names
  assert f'Version: {sgde_jax.__version__}\n' in description
  for extra in ('tf', 'video', 'export', 'hub', 'dev'):
    assert f'Provides-Extra: {extra}\n' in description


@pytest.mark.slow
def test_wheel_works_from_another_folder(wheel, tmp_path):
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(tmp_path / 'site')
  code = (
    'import sys, sgde_jax.cli as cli\n'
    'assert cli.__file__.startswith(sys.argv.pop(1))\n'
    'sys.exit(cli.run())'
  )

  def run(*arguments):
    return subprocess.run(
      [sys.executable, '-c', code, tmp_path / 'site', *arguments],
      cwd=tmp_path,
      env=os.environ | {'PYTHONPATH': str(tmp_path / 'site')},
      capture_output=True,
      text=True,
      check=False,
    )

  assert '--workdir' in run('--help').stdout
  found = run('--config=drive_0009', '--workdir=run', '--config.data.root=no')
  assert "sgde-jax: error: there is no folder 'no'" in found.stderr
