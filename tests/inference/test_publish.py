"""Published folders: weights, config and model card."""

import json
import re

import jax
import numpy as np
import pytest

from sgde_jax import configuration, models, run_files
from sgde_jax.configs import baseline, default
from sgde_jax.inference import model_card, publish
from sgde_jax.inference import predictor as inference
from sgde_jax.weights import initial, published, weight_files
from tests.support import predictions, runs


def _card(config, workdir, **options):
  usual = {'name': 'street', 'step': 20, 'parameters': 12_300_000}
  return model_card.format_card(config, workdir, **usual | options)


def _resolve(workdir):
  return configuration.resolve(default.get_config(), workdir, {})


@pytest.mark.slow
@pytest.mark.usefixtures('one_device')
def test_a_run_is_published_and_read_back(trained, tmp_path, capsys):
  config, output = _resolve(trained), tmp_path / 'street'
  publish.publish(config, trained, output)
  names = ['README.md', 'config.json', 'model.safetensors']
  assert sorted(path.name for path in output.iterdir()) == names
  assert str(output) in capsys.readouterr().out
  mesh = runs.one_device_mesh()
  _, run = initial.load_trained(config, trained, mesh)
  shared = _resolve(output)
  _, found = initial.load_trained(shared, output, mesh)
  jax.tree.map(np.testing.assert_array_equal, found.variables, run.variables)
  shared = shared.copy_and_resolve_references().unlock()
  shared.init_from = str(output)
  weights = initial.read_weights(shared, runs.create_model(shared), mesh)
  assert len(weights) == len(jax.tree.leaves(run.variables))
  image = predictions.write_image(tmp_path / 'a.png')
  expected = inference.load(trained)(image)
  for source in (output, output / 'model.safetensors'):
    prediction = inference.load(source)(image)
    np.testing.assert_array_equal(
      prediction.inverse_depth, expected.inverse_depth
    )
    np.testing.assert_array_equal(prediction.labels, expected.labels)
  card = (output / 'README.md').read_text()
  errors = runs.read_scalars(trained, 'eval/abs_rel')
  assert f'| {errors[20]:.4f} | ' in card and 'step 20' in card
  # Published weights are a run without checkpoints: publish them again.
  publish.publish(_resolve(output), output, tmp_path / 'again')
  first, second = (
    weight_files.read_state(folder / 'model.safetensors')
    for folder in (output, tmp_path / 'again')
  )
  assert first.keys() == second.keys()
  for name, tensor in first.items():
    np.testing.assert_array_equal(tensor, second[name])


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  """Published weights of a small baseline."""
  config = baseline.get_config()
  config.model.encoder_layers = config.model.pose_layers = 10
  config.data.height, config.data.width = 32, 64
  wanted = initial.template(
    config, models.create_model(config.model), runs.one_device_mesh()
  ).variables
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.standard_normal(x.shape).astype(x.dtype), wanted
  )
  folder = tmp_path / 'published'
  folder.mkdir()
  weight_files.write_safetensors(
    folder / 'model.safetensors', published.export_state(variables, (32, 64))
  )
  config.init_from = str(folder)
  return folder, config, variables


@pytest.mark.usefixtures('one_device')
def test_other_weights_are_published_without_training(folder, tmp_path):
  folder, config, variables = folder
  config.data.root = '/home/ann/KITTI'
  config.eval.semantic_root = '/home/ann/stills'
  config.data.source = 'kitti'
  config.model.attention.implementation = 'fused'
  output = tmp_path / 'new'
  publish.publish(config, tmp_path / 'none', output)
  parts = published.read_parts(output)
  assert published.trained_size(parts) == (32, 64)
  jax.tree.map(
    np.testing.assert_array_equal,
    published.load_torch_weights(parts, jax.tree.map(np.zeros_like, variables)),
    variables,
  )
  modes = {path.stat().st_mode for path in output.iterdir()}
  assert len(modes) == 1  # The same people can read all files.
  text = (output / 'config.json').read_text()
  shared = json.loads(text)
  assert shared['init_from'] == '' and '/home' not in text
  assert shared['data']['root'] == 'KITTI'
  assert shared['model']['attention']['implementation'] == 'auto'
  card = (output / 'README.md').read_text()
  assert 'None here: these are the weights of published.' in card
  assert 'never evaluated' in card and '/home' not in card


@pytest.mark.usefixtures('one_device')
def test_a_folder_appears_whole_or_not_at_all(folder, tmp_path, monkeypatch):
  _, config, _ = folder
  output = tmp_path / 'new'

  def fail(*_, **__):
    raise OSError('the disk is full')

  monkeypatch.setattr(publish.configuration, 'save', fail)
  before = sorted(tmp_path.iterdir())
  with pytest.raises(OSError, match='the disk is full'):
    publish.publish(config, tmp_path / 'none', output)
  assert sorted(tmp_path.iterdir()) == before
  output.mkdir()
  with pytest.raises(ValueError, match=f'--output={output} exists'):
    publish.publish(config, tmp_path / 'none', output)
  with pytest.raises(FileNotFoundError, match='no checkpoint'):
    publish.publish(baseline.get_config(), tmp_path / 'none', tmp_path / 'x')


def _write_evaluation(workdir, step, abs_rel):
  figures = dict.fromkeys(
    ('sq_rel', 'rmse', 'rmse_log', 'a1', 'a2', 'a3'), 0.5
  ) | {'abs_rel': abs_rel, 'images': 7, 'ratio': 31.25, 'ratio_std': 0.125}
  made = {'step': step, 'protocol': 'crop garg', 'list': 'test.txt'}
  run_files.write_evaluation(
    workdir, run_files.Evaluation(made, figures, [{'index': 0}])
  )
  return figures


def _log_evaluation(workdir, step, figures):
  entry = {'step': step, 'protocol': 'crop none, list a.txt'}
  entry |= {f'eval/{name}': value for name, value in figures.items()}
  with open(workdir / 'metrics.jsonl', 'a') as file:
    file.write(json.dumps(entry) + '\n')
    file.write(json.dumps({'step': step, 'train/loss': 1.0}) + '\n')


def test_card_has_the_metadata_of_the_hub(tmp_path):
  config = default.get_config()
  head = _card(config, tmp_path).split('---\n')[1]
  assert head.splitlines()[:4] == [
    'license: apache-2.0',
    'library_name: sgde_jax',
    'pipeline_tag: depth-estimation',
    'tags:',
  ]
  tags = re.findall('^- (.*)$', head, re.M)
  assert 'semantic-segmentation' in tags and 'jax' in tags
  config.data.source = 'kitti'
  head = _card(config, tmp_path).split('---\n')[1]
  assert head.startswith('license: other\nlicense_name: ')
  config = default.get_config()
  config.model.encoder_weights = 'resnet18.pth'  # Under a licence of its own.
  assert 'license: other' in _card(config, tmp_path)


def test_card_states_what_the_model_is(tmp_path):
  config = default.get_config()
  start = {'step': 0, 'version': '0.2.0', 'commit': 'abc'}
  (tmp_path / 'configs.jsonl').write_text(json.dumps(start) + '\n')
  card = _card(config, tmp_path)
  for part in (
    '640x192',
    'ResNet-18 encoder',
    'attention between the two at levels 4, 3, 2',
    'SEEM',
    '12.3 million',
    "sgde_jax.load('street')",
    'sgde_jax 0.2.0, commit abc',
    '| initial weights | random |',
    'arXiv 2012.08048',
  ):
    assert part in card, part
  config = baseline.get_config()
  config.data.source, config.data.root = 'kitti', '/data/KITTI'
  config.model.encoder_weights = 'hf://timm/resnet18.tv_in1k'
  config.model.pose_weights = '/home/ann/resnet18.pth'
  card = _card(config, tmp_path)
  for part in ('SEEM', '2012.08048', '19 classes', '/home', '/data'):
    assert part not in card, part
  assert 'hf://timm/resnet18.tv_in1k, resnet18.pth' in card
  assert 'CC BY-NC-SA 3.0' in card


def test_card_has_the_figures_of_these_weights(tmp_path):
  config = default.get_config()
  assert 'never evaluated' in _card(config, tmp_path)
  figures = _write_evaluation(tmp_path, 20, 0.125)
  card = _card(config, tmp_path)
  assert '| 0.1250 | 0.5000 |' in card
  assert '7 images; crop garg, list test.txt' in card
  assert 'depth(scale=31.25)' in card and 'not on these' not in card
  # One of other weights gives way to one of these in the log of the training.
  _write_evaluation(tmp_path, 10, 0.25)
  card = _card(config, tmp_path)
  assert 'Measured at step 10, not on these weights' in card
  assert 'depth()' in card
  assert 'None here: these are the weights of' in _card(
    config, tmp_path, step=0
  )
  _log_evaluation(tmp_path, 20, figures | {'abs_rel': 0.375})
  card = _card(config, tmp_path)
  assert '0.3750' in card and 'crop none, list a.txt' in card
  assert '0.2500' in _card(config, tmp_path, step=5)
