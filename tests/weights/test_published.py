"""Published weights, golden networks and mismatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from sgde_jax import metrics, models, parallel
from sgde_jax.configs import ablation, baseline, default
from sgde_jax.inference import predictor as inference
from sgde_jax.weights import initial, published, weight_files
from tests.support import golden, torch_files


def _config(layers, dtype='float32'):
  config = baseline.get_config().model
  config.encoder_layers, config.dtype = layers, dtype
  return config


def _zeros(model):
  shapes = jax.eval_shape(
    lambda key: model.init(key, jnp.zeros((1, 3, 64, 96, 3)), train=False),
    jax.random.key(0),
  )
  return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)


@pytest.fixture(
  scope='module', params=[18, pytest.param(50, marks=pytest.mark.slow)]
)
def golden_network(request):
  data = golden.load(f'network_r{request.param}')
  parts = golden.published_parts(request.param, int(data['seed']))
  return request.param, data, parts


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_golden_networks(golden_network, dtype, tmp_path):
  layers, data, parts = golden_network
  with golden.precision(dtype):
    model = models.create_model(_config(layers, dtype))
    variables = published.load_torch_weights(parts, _zeros(model))
    if dtype == 'float32':  # By way of a file in our own layout.
      path = tmp_path / 'model.safetensors'
      state = published.export_state(variables, (192, 640))
      weight_files.write_safetensors(path, state)
      variables = published.load_torch_weights(
        published.read_parts(path), _zeros(model)
      )
    frames = jnp.asarray(data['frames'], dtype)

    @jax.jit
    def predict(variables, frames, dtype=dtype):
      variables = jax.tree.map(lambda v: v.astype(dtype), variables)
      return {
        mode: model.apply(
          variables,
          frames,
          train=mode == 'train',
          mutable=['batch_stats'],
          method=lambda m, f, train: (
            m(f, train=train),
            m.encoder(f[:, 0], train=train),
          ),
        )[0]
        for mode in ('eval', 'train')
      }

    for mode, (outputs, features) in predict(variables, frames).items():
      for scale in range(4):
        np.testing.assert_allclose(
          outputs.disparities[scale],
          data[f'{mode}_disp_{scale}'],
          atol=1e-5 if dtype == 'float64' else 1e-4,
          err_msg=f'{mode} disparity {scale}',
        )
      for i, feature in enumerate(features):
        expected = data[f'{mode}_feature_{i}_slice']
        np.testing.assert_allclose(
          feature[:, ::4, ::4, ::16],
          expected,
          atol=(1e-4 if dtype == 'float64' else 1e-3) * np.abs(expected).max(),
        )
        tolerance = 1e-5 if dtype == 'float64' else 1e-3
        np.testing.assert_allclose(
          [np.mean(feature), np.std(feature, ddof=1)],
          [data[f'{mode}_feature_{i}_mean'], data[f'{mode}_feature_{i}_std']],
          rtol=tolerance,
        )
      if mode == 'eval':
        for i, offset in enumerate((-1, 1)):
          for name, value in (
            ('axisangle', outputs.axis_angle),
            ('translation', outputs.translation),
          ):
            np.testing.assert_allclose(
              value[:, i],
              data[f'pose_{offset}_{name}'],
              atol=1e-5 if dtype == 'float64' else 1e-4,
            )


@pytest.mark.parametrize('kind', ['safetensors', 'npz', 'new.pth', 'old.pth'])
def test_every_type_of_file_holds_the_same_weights(tmp_path, kind):
  parts = golden.published_parts(18, 0)
  for part, state in parts.items():
    arrays = {name: np.asarray(tensor) for name, tensor in state.items()}
    suffix = kind.rpartition('.')[2]
    path = tmp_path / f'{part}.{suffix}'
    if suffix == 'pth':
      torch_files.write(path, state, old=kind == 'old.pth')
    elif suffix == 'npz':
      np.savez(path, **arrays)
    else:
      weight_files.write_safetensors(path, arrays)
  found = published.read_parts(tmp_path)
  assert published.trained_size(found) == (192, 640)
  variables = _zeros(models.create_model(_config(18)))
  jax.tree.map(
    np.testing.assert_array_equal,
    published.load_torch_weights(found, variables),
    published.load_torch_weights(parts, variables),
  )


def _random_variables(config):
  rng = np.random.default_rng(0)
  zeros = _zeros(models.create_model(config.model))
  return jax.tree.map(
    lambda x: rng.standard_normal(x.shape).astype(x.dtype), zeros
  )


def test_exported_states_are_read_back_bit_for_bit(tmp_path):
  config = default.get_config()
  variables = _random_variables(config)
  state = published.export_state(variables, (192, 640))
  count = len(jax.tree.leaves(variables)) + 3  # And three of Monodepth2's.
  assert len(state) == count
  shapes = golden.encoder_shapes(18, 3)
  for name, shape in {
    **{f'encoder.{k}': v for k, v in shapes.items() if '.fc.' not in k},
    **{
      f'depth.{name}': shape for name, shape in golden.depth_shapes(18).items()
    },
    **{f'pose.{name}': shape for name, shape in golden.pose_shapes().items()},
    'encoder.height': (),
    'pose_encoder.encoder.conv1.weight': (64, 6, 7, 7),
    'semantic.decoder.9.conv.conv.weight': (16, 16, 3, 3),
    'semantic.decoder.10.conv.bias': (19,),
    'attention.4.query.weight': (64, 256, 1, 1),
    'attention.2.depth_update.gain': (64,),
    'attention.3.semantic_update.project.weight': (128, 64, 1, 1),
    'seem.hidden.1.weight': (256, 257),
    'seem.residual.bias': (1,),
  }.items():
    assert state[name].shape == shape, name
  path = tmp_path / 'model.safetensors'
  weight_files.write_safetensors(path, state)
  for source in (tmp_path, path):
    parts = published.read_parts(source)
    assert sorted(parts) == sorted(published.PARTS)
    assert published.trained_size(parts) == (192, 640)
    found = published.load_torch_weights(
      parts, jax.tree.map(np.zeros_like, variables)
    )
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_single_files_that_are_no_whole_model(tmp_path):
  path = tmp_path / 'model.safetensors'
  tensor = {'layer1.0.bn1.weight': np.ones(3)}
  weight_files.write_safetensors(path, tensor)
  with pytest.raises(
    ValueError, match='its names start with layer1, and those'
  ):
    published.read_parts(tmp_path)
  weight_files.write_safetensors(
    path, {'encoder.encoder.bn1.weight': np.ones(3)}
  )
  with pytest.raises(FileNotFoundError, match='holds encoder, but no depth'):
    published.read_parts(path)
  assert published.read_parts(tmp_path / 'none') == {}


def test_parts_that_the_model_lacks(golden_network):
  layers, _, parts = golden_network
  parts = parts | {'seem': {'residual.bias': np.zeros(1)}}
  variables = _zeros(models.create_model(_config(layers)))
  with pytest.raises(ValueError, match='seem: the model has no such part'):
    published.load_torch_weights(parts, variables)


def test_weights_that_are_not_finite_raise(golden_network):
  layers, _, parts = golden_network
  variables = _zeros(models.create_model(_config(layers)))
  depth = {name: tensor.copy() for name, tensor in parts['depth'].items()}
  depth['decoder.3.conv.conv.bias'][2] = np.nan
  depth['decoder.10.conv.weight'][0, 0, 0, 0] = -np.inf
  with pytest.raises(ValueError, match='weights are not finite:') as error:
    published.load_torch_weights({'depth': depth}, variables)
  names = str(error.value).splitlines()[1:]
  assert names == [
    '  depth.decoder.3.conv.conv.bias',
    '  depth.decoder.10.conv.weight',
  ]
  variables['params']['depth_levels_0']['upconv_0']['conv']['bias'][0] = np.nan
  with pytest.raises(ValueError, match='depth.decoder.8.conv.conv.bias'):
    published.export_state(variables, (64, 96))


def _read_weights(config):
  model = models.create_model(config.model)
  return initial.read_weights(config, model, parallel.create_mesh())


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  """A folder of published weights for a ResNet-18, as `.npz`."""
  folder = tmp_path / 'mono_640x192'
  folder.mkdir()
  for part, tensors in golden.published_parts(18, 0).items():
    np.savez(folder / f'{part}.npz', **tensors)
  return folder


@pytest.mark.slow
def test_load_predicts_at_the_size_stored_in_the_encoder(folder):
  encoder = dict(np.load(folder / 'encoder.npz'))
  np.savez(folder / 'encoder.npz', **encoder | {'height': 64, 'width': 96})
  predictor = inference.load(folder)
  image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
  prediction = predictor(image)
  assert prediction.labels is None
  assert prediction.inverse_depth.shape == (48, 80)
  resized = np.asarray(Image.fromarray(image).resize((96, 64), 1))
  expected = metrics.depth.resize_bilinear(
    predictor(resized).inverse_depth, (48, 80)
  )
  np.testing.assert_allclose(prediction.inverse_depth, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['baseline', 'full'])
def test_published_weights_start_a_run(folder, tmp_path, caplog, name):
  config = ablation.get_config(name)
  config.init_from = str(folder)
  config.data.height, config.data.width = 64, 96
  model, state = initial.load_trained(
    config, tmp_path / 'new', parallel.create_mesh()
  )
  expected = published.load_torch_weights(
    golden.published_parts(18, 0), state.variables
  )
  jax.tree.map(np.testing.assert_array_equal, state.variables, expected)
  assert int(state.step) == 0
  assert not (tmp_path / 'new').exists()
  warned = (
    'semantic_levels_0' in caplog.text
    and 'initialized at random' in caplog.text
  )
  assert warned == (name == 'full')


@pytest.mark.parametrize(
  ('name', 'size', 'lacking'),
  [
    ('baseline', (192, 640), []),
    (
      'baseline',
      (320, 1024),
      ['trained at 640x192, and the images are resized to 1024x320'],
    ),
    ('full', (192, 640), ['attentions_2, ', 'which are initialized at random']),
  ],
)
def test_warns_about_missing_published_weights(caplog, name, size, lacking):
  config = ablation.get_config(name)
  config.data.height, config.data.width = size
  initial._warn_of_differences(
    config,
    'mono_640x192',
    golden.published_parts(18, 0),
    _zeros(models.create_model(config.model)),
  )
  assert len(caplog.records) == (1 if lacking else 0)
  for part in lacking:
    assert part in caplog.text


def test_incomplete_published_weights_raise(folder, tmp_path):
  config = baseline.get_config()
  config.init_from = str(folder)
  pose = np.load(folder / 'pose.npz')
  (folder / 'pose.npz').unlink()
  with pytest.raises(FileNotFoundError, match='but no pose '):
    _read_weights(config)
  np.savez(folder / 'pose.npz', **{k: pose[k] for k in list(pose)[1:]})
  with pytest.raises(ValueError, match='no tensor for'):
    _read_weights(config)
  (folder / 'pose.npz').unlink()
  (folder / 'pose_encoder.npz').unlink()  # As weights that learnt from stereo.
  _read_weights(config)
  (folder / 'depth.npz').unlink()
  with pytest.raises(FileNotFoundError, match='but no depth '):
    _read_weights(config)


def test_every_mismatch_is_named(golden_network):
  layers, _, parts = golden_network
  variables = _zeros(models.create_model(_config(layers)))
  pose = dict(parts['pose'])
  pose['net.9.weight'] = pose.pop('net.0.weight')
  pose['net.3.bias'] = np.zeros(6, np.float32)
  with pytest.raises(ValueError, match='do not fit') as error:
    published.load_torch_weights({'pose': pose}, variables)
  message = str(error.value)
  assert 'unexpected tensor net.9.weight' in message
  assert 'no tensor for params/pose/conv_0/conv/kernel' in message
  assert 'net.3.bias has shape (6,)' in message
  encoder = dict(parts['encoder'])
  for name in (
    'layer2.0.downsample.weight',
    'layer1.0.downsample.0.1.weight',
    'layer1.0.conv1.bias',
  ):
    odd = {f'encoder.{name}': np.zeros(6, np.float32)}
    with pytest.raises(ValueError, match=f'unexpected tensor encoder.{name}'):
      published.load_torch_weights({'encoder': encoder | odd}, variables)


@pytest.mark.parametrize('part', ['encoder', 'pose'])
def test_missing_imagenet_weights_name_the_file_to_get(part, tmp_path):
  config = default.get_config()
  layers = {'encoder': 50, 'pose': 18}[part]
  config.model.encoder_layers = 50
  path = tmp_path / 'weights.pth'
  config.model[f'{part}_weights'] = str(path)
  with pytest.raises(FileNotFoundError, match=f'resnet{layers}') as error:
    _read_weights(config)
  assert str(path) in str(error.value)


@pytest.fixture(name='imagenet')
def fixture_imagenet(tmp_path):
  """Random weights with torchvision's names for a ResNet-18, and their file."""
  state = {
    name.removeprefix('encoder.'): golden.weights('imagenet', name, shape, 0)
    for name, shape in golden.encoder_shapes(18, 3).items()
  }
  path = tmp_path / 'resnet18.npz'
  np.savez(path, **state)
  config = default.get_config()
  config.model.encoder_weights = config.model.pose_weights = str(path)
  return state, path, config


def test_imagenet_weights_start_both_encoders(imagenet):
  state, _, config = imagenet
  variables = _zeros(models.create_model(config.model))
  loaded = traverse_util.unflatten_dict(
    published.read_imagenet_weights(config.model, variables), sep='/'
  )['params']
  stem = state['conv1.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(loaded['encoder']['conv1']['kernel'], stem)
  # Two frames, tiled and halved: alike, they give what one gave.
  pair = loaded['pose']['encoder']['conv1']['kernel']
  np.testing.assert_array_equal(pair, np.concatenate([stem, stem], 2) / 2)
  for encoder in (loaded['encoder'], loaded['pose']['encoder']):
    scale = encoder['layer4_1']['bn2']['scale']
    np.testing.assert_array_equal(scale, state['layer4.1.bn2.weight'])


def test_imagenet_weights_that_do_not_fit_raise(imagenet, tmp_path):
  state, path, config = imagenet
  _read_weights(config)
  del state['layer1.0.conv1.weight']
  np.savez(path, **state)
  with pytest.raises(ValueError, match='no tensor for .*layer1_0'):
    _read_weights(config)
  path.write_bytes(b'')
  with pytest.raises(ValueError, match=f'weights {path} cannot be read'):
    _read_weights(config)
