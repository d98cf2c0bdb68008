"""Weights of the hub: by a stand-in, and by its library without network."""

import sys
import types

import numpy as np
import pytest

from sgde_jax.configs import default
from sgde_jax.weights import hub, published, weight_files


@pytest.fixture(name='repositories')
def fixture_repositories(tmp_path, monkeypatch):
  """A folder of repositories; only files that are asked for are downloaded."""
  cache, asked = tmp_path / 'cache', []

  def snapshot_download(repository, *, allow_patterns):
    source, folder = tmp_path / repository, cache / repository
    asked.append(repository)
    if not source.is_dir():
      raise RuntimeError(f'404 Client Error.\n\nNot Found: {repository}')
    for path in source.rglob('*'):
      name = str(path.relative_to(source))
      if name in allow_patterns:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
    return str(folder)

  module = types.ModuleType('huggingface_hub')
  module.snapshot_download = snapshot_download
  monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
  return tmp_path


def _add(path, content=b'x'):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def test_fetches_the_named_files_of_a_repository(repositories):
  for name in ('config.json', 'model.safetensors', 'optimizer.bin'):
    _add(repositories / 'ann' / 'street' / name)
  folder = published.fetch('hf://ann/street')
  names = sorted(path.name for path in folder.iterdir())
  assert names == ['config.json', 'model.safetensors']


def test_fetches_a_file_and_the_config_next_to_it(repositories):
  for name in (
    'config.json',
    'best/config.json',
    'best/a.safetensors',
    'b.pth',
  ):
    _add(repositories / 'ann' / 'street' / name)
  path = hub.fetch('hf://ann/street/best/a.safetensors', ['b.pth'])
  assert path.name == 'a.safetensors' and path.is_file()
  assert [p.name for p in path.parent.iterdir() if p != path] == ['config.json']
  with pytest.raises(FileNotFoundError, match='repository has no file c.pth'):
    hub.fetch('hf://ann/street/c.pth', [])


def test_imagenet_weights_of_the_hub(repositories):
  config = default.get_config()
  config.model.encoder_weights = 'hf://timm/resnet18.tv_in1k'
  path = repositories / 'timm' / 'resnet18.tv_in1k' / 'model.safetensors'
  path.parent.mkdir(parents=True)
  weight_files.write_safetensors(path, {'conv1.weight': np.ones((4, 3, 7, 7))})
  variables = {
    'params': {'encoder': {'conv1': {'kernel': np.zeros((7, 7, 3, 4))}}}
  }
  found = published.read_imagenet_weights(config.model, variables)
  assert found['params/encoder/conv1/kernel'].shape == (7, 7, 3, 4)
  assert (found['params/encoder/conv1/kernel'] == 1).all()


def test_what_cannot_be_downloaded(repositories):
  del repositories
  problem = '^hf://ann/none cannot be downloaded: 404 Client Error. Not Found'
  with pytest.raises(OSError, match=problem):
    published.read_parts('hf://ann/none')


def test_hub_without_its_library(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(ValueError, match='pip install huggingface_hub'):
    hub.fetch('hf://ann/street', [])


def test_other_urls_and_local_paths(monkeypatch, tmp_path):
  with pytest.raises(ValueError, match='gs://bucket/a is a URL'):
    hub.fetch('gs://bucket/a', [])
  monkeypatch.setenv('HOME', '/home/ann')
  assert str(hub.fetch('~/run', [])) == '/home/ann/run'
  assert hub.fetch(tmp_path, []) == tmp_path


@pytest.mark.parametrize('source', ['hf://timm/resnet18.tv_in1k', 'hf://no'])
def test_library_without_network(monkeypatch, tmp_path, source):
  constants = pytest.importorskip('huggingface_hub.constants')
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
  with pytest.raises(
    OSError, match=f'{source} cannot be downloaded: '
  ) as error:
    hub.fetch(source, ['model.safetensors'])
  assert '\n' not in str(error.value)
