"""The networks: shapes, dtypes, frame order and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sgde_jax import models
from sgde_jax.configs import baseline
from sgde_jax.models import decoders, pose, resnet


def _model(frame_offsets=(0, -1, 1), **overrides):
  config = baseline.get_config().model
  config.update(overrides)
  return models.create_model(config, frame_offsets=frame_offsets)


def _frames(height=64, width=96, count=3, batch=2):
  return jax.ShapeDtypeStruct((batch, count, height, width, 3), jnp.float32)


def _variables(model, frames):
  """Shapes and dtypes of the variables; nothing is computed."""
  return jax.eval_shape(
    lambda frames: model.init(jax.random.key(0), frames, train=False), frames
  )


def _apply(model, variables, frames, **options):
  options = {'train': False} | options
  return jax.eval_shape(
    lambda variables, frames: model.apply(variables, frames, **options),
    variables,
    frames,
  )


@pytest.fixture(scope='module')
def shapes():
  """Variables of the ResNet-18 baseline, shapes only."""
  return _variables(_model(), _frames())


@pytest.mark.parametrize('size', [(32, 32), (64, 96), (192, 640)])
@pytest.mark.parametrize('train', [False, True])
def test_output_shapes(shapes, size, train):
  height, width = size
  outputs, updates = _apply(
    _model(),
    shapes,
    _frames(height, width),
    train=train,
    mutable=['batch_stats'],
  )
  assert [d.shape for d in outputs.disparity_logits] == [
    (2, height // 2**scale, width // 2**scale, 1) for scale in range(4)
  ]
  assert outputs.axis_angle.shape == outputs.translation.shape == (2, 2, 3)
  assert outputs.enhanced_disparity is None and outputs.logits is None
  assert jax.tree.map(jnp.shape, updates['batch_stats']) == jax.tree.map(
    jnp.shape, shapes['batch_stats']
  )


@pytest.mark.parametrize(
  ('num_layers', 'channels'),
  [
    (18, (64, 64, 128, 256, 512)),
    (34, (64, 64, 128, 256, 512)),
    (50, (64, 256, 512, 1024, 2048)),
    (101, (64, 256, 512, 1024, 2048)),
  ],
)
def test_encoder_features(num_layers, channels):
  network = resnet.ResNetEncoder(num_layers)
  features, _ = jax.eval_shape(
    lambda image: network.init_with_output(
      jax.random.key(0), image, train=False
    ),
    jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32),
  )
  assert [feature.shape for feature in features] == [
    (2, 64 // 2**i, 96 // 2**i, width) for i, width in enumerate(channels, 1)
  ]


def test_parameter_counts_match_the_published_ones(shapes):
  # ResNet-18 has 11,689,512 with its classifier of 513,000; 9,408 are the
  # filters of a second frame. Decoders: Monodepth2's published networks.
  encoder = 11_689_512 - 513_000
  expected = {
    'encoder': encoder,
    'depth': 3_152_724,
    'pose/encoder': encoder + 9_408,
    'pose/conv': 1_314_572,
  }
  counts = dict.fromkeys(expected, 0)
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes['params']):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    part = name.replace('depth_levels', 'depth').replace('disparity', 'depth')
    counts[next(p for p in expected if part.startswith(p))] += leaf.size
  assert counts == expected


def test_resnet_50_has_its_published_size():
  network = resnet.ResNetEncoder(50)
  shapes = jax.eval_shape(
    lambda image: network.init(jax.random.key(0), image, train=False),
    jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
  assert count == 25_557_032 - 2_049_000  # Less the classifier.


def test_bfloat16_computes_but_keeps_float32_at_both_ends():
  model, frames = _model(dtype='bfloat16'), _frames()
  variables = _variables(model, frames)
  (outputs, features), updates = _apply(
    model,
    variables,
    frames,
    train=True,
    mutable=['batch_stats'],
    method=lambda m, f, train: (
      m(f, train=train),
      m.encoder(f[:, 0], train=train),
    ),
  )
  assert {leaf.dtype for leaf in features} == {jnp.dtype('bfloat16')}
  for tree in (variables, outputs, updates):
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {
      jnp.dtype('float32')
    }


def test_one_frame_predicts_no_motion_but_initializes_everything(shapes):
  model, frame = _model(), _frames(count=1)
  outputs = _apply(model, shapes, frame)
  assert len(outputs.disparity_logits) == 4
  assert outputs.axis_angle is None and outputs.translation is None
  assert _variables(model, frame) == shapes


@pytest.mark.slow
def test_disparities_lie_between_0_and_1():
  model = _model()
  frames = jax.random.uniform(jax.random.key(0), (2, 1, 32, 64, 3))
  variables = jax.jit(
    lambda frames: model.init(jax.random.key(1), frames, train=False)
  )(frames)
  params = dict(variables['params'])
  for scale in range(4):
    head = params[f'disparity_heads_{scale}']
    params[f'disparity_heads_{scale}'] = jax.tree.map(lambda x: 10 * x, head)
  disparities = jax.jit(
    lambda variables: model.apply(variables, frames, train=False)
  )({**variables, 'params': params}).disparities
  for scale, disparity in enumerate(disparities):
    assert disparity.shape == (2, 32 // 2**scale, 64 // 2**scale, 1)
    assert np.all((disparity >= 0) & (disparity <= 1))
    assert np.std(disparity) > 0.01


@pytest.mark.parametrize('offsets', [(0, -1, 1), (0, 2, -3, 1), (0, 1)])
def test_pairs_reach_the_pose_network_in_temporal_order(offsets):
  # Every frame encodes its time; a fake network reads it.
  frames = jnp.broadcast_to(
    jnp.array(offsets, jnp.float32)[None, :, None, None, None],
    (2, len(offsets), 32, 32, 3),
  )
  calls = []

  def read(next_fun, args, kwargs, context):
    if isinstance(context.module, pose.PoseNetwork):
      calls.append(args[0].shape)
      return args[0][:, 0, 0, :3], args[0][:, 0, 0, 3:]
    return next_fun(*args, **kwargs)

  with nn.intercept_methods(read):
    first, second = _model(offsets).apply(
      {}, frames, train=True, method='estimate_motion'
    )
  assert calls == [(2, 32, 32, 6)] * (len(offsets) - 1)  # A call per pair.
  for i, offset in enumerate(offsets[1:]):
    np.testing.assert_array_equal(first[:, i], min(offset, 0))
    np.testing.assert_array_equal(second[:, i], max(offset, 0))


@pytest.mark.parametrize(
  'shape',
  [
    (2, 3, 64, 90, 3),
    (2, 3, 48, 96, 3),
    (2, 2, 64, 96, 3),
  ],
)
def test_frames_that_do_not_fit_raise(shape):
  frames = jax.ShapeDtypeStruct(shape, jnp.float32)
  with pytest.raises(ValueError, match='multiples of 32') as error:
    _apply(_model(), {}, frames)
  assert str(shape) in str(error.value)


def test_decoder_level_joins_the_skip_at_twice_the_size():
  level = decoders.DecoderLevel(8)
  x, skip = jnp.ones((1, 3, 5, 4)), jnp.ones((1, 6, 10, 2))
  output, variables = jax.eval_shape(
    lambda: level.init_with_output(jax.random.key(0), x, skip)
  )
  assert output.shape == (1, 6, 10, 8)
  kernel = variables['params']['upconv_1']['conv']['kernel']
  assert kernel.shape == (3, 3, 8 + 2, 8)
