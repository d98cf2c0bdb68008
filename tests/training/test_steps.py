"""One step: its randomness, its optimizer, its results, and learning."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import input_pipeline
from input_pipeline import street
from sgde_jax import models, parallel
from sgde_jax.configs import default
from sgde_jax.models import attention
from sgde_jax.ops import augmentation
from sgde_jax.training import loop, steps
from sgde_jax.weights import optimizer, train_state
from tests.support import runs

_AUGMENTATION = default.get_config().augmentation


class TinyModel(nn.Module):
  """The network's interface with a handful of parameters."""

  frame_offsets: tuple[int, ...] = (0, 1)
  attention_levels: tuple[int, ...] = ()
  min_depth: float = 0.1
  max_depth: float = 100.0

  @nn.compact
  def __call__(self, frames, *, train):
    x = nn.Conv(3, (3, 3))(frames[:, 0])
    x = nn.BatchNorm(use_running_average=not train)(x)
    logits = tuple(nn.Conv(1, (3, 3), strides=2**s)(x) for s in range(4))
    motion = 0.01 * nn.Dense(6)(frames.mean(axis=(1, 2, 3)))
    motion = motion[:, None]
    return models.DepthOutputs(logits, motion[..., :3], motion[..., 3:])


def _options(**augmentation_options):
  """The keyword arguments of `train_step` for the tiny network."""
  augment = functools.partial(
    augmentation.augment, **{**_AUGMENTATION, **augmentation_options}
  )
  model = TinyModel()
  loss = loop.bind_loss(default.get_config().loss, model)
  return {'model': model, 'augment': augment, 'loss': loss}


def _make_batch(size=(32, 64), count=4):
  rng = np.random.default_rng(0)
  intrinsics = [[40, 0, 31.5], [0, 40, 15.5], [0, 0, 1]]
  return {
    'frames': rng.integers(0, 256, (count, 2, *size, 3), np.uint8),
    'intrinsics': np.tile(np.array(intrinsics, np.float32), (count, 1, 1)),
    'labels': np.full((count, *size), 255, np.uint8),
  }


def _make_state(transformation):
  variables = TinyModel().init(
    jax.random.key(0), jnp.zeros((1, 2, 32, 64, 3)), train=False
  )
  return train_state.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=transformation.init(variables['params']),
  )


@pytest.fixture(name='tiny', scope='module')
def fixture_tiny():
  """A state and its training step, a function of state, batch and seed."""
  sgd = optax.with_extra_args_support(optax.sgd(0.1))

  @jax.jit
  def step(state, batch, seed):
    return steps.train_step(
      {'seed': seed, 'decay_steps': ()},
      state,
      batch,
      optimizer=sgd,
      **_options(),
    )

  return _make_state(sgd), step


@pytest.mark.slow
def test_step_changes_the_state_and_reports_its_terms(tiny):
  state, step = tiny
  new, scalars = step(state, _make_batch(), 0)
  assert int(new.step) == 1
  for part in ('params', 'batch_stats'):
    for old, updated in zip(
      jax.tree.leaves(getattr(state, part)),
      jax.tree.leaves(getattr(new, part)),
      strict=True,
    ):
      assert old.dtype == updated.dtype == jnp.float32
      assert old.shape == updated.shape
  changed = jax.tree.map(
    lambda old, updated: bool((old != updated).any()), state, new
  )
  assert all(jax.tree.leaves(changed.batch_stats))
  assert changed.params['Conv_0']['kernel']
  terms = {
    name: float(value)
    for name, value in scalars.items()
    if name not in ('loss', 'gradient_norm', 'disparity_spread')
  }
  assert len(terms) > 1
  np.testing.assert_allclose(sum(terms.values()), scalars['loss'], rtol=1e-5)
  assert 1e-3 < scalars['disparity_spread'] < 1
  gradients = jax.tree.map(
    lambda old, updated: (old - updated) / 0.1, state.params, new.params
  )
  np.testing.assert_allclose(
    optax.tree.norm(gradients), scalars['gradient_norm'], rtol=1e-3
  )


class _Recorder:
  """`TinyModel` with stills, and losses, that record their inputs."""

  frame_offsets = (0, 1)
  attention_levels = ()
  min_depth, max_depth = 0.1, 100.0

  def apply(self, variables, frames, *, train, mutable, rngs=None, method=''):
    if method == 'segment':
      self.stills = frames
      return jnp.zeros((*frames.shape[:3], 19)), {}
    self.frames = frames
    return TinyModel().apply(variables, frames, train=train, mutable=mutable)

  def weighted_terms(self, outputs, labelled, frames, *_, **options):
    self.labelled, self.clean = labelled, frames
    return {'photometric': jnp.mean(outputs.disparity_logits[0] ** 2)}, {}


@pytest.mark.slow
def test_networks_see_jittered_frames_and_losses_clean_ones():
  batch = _make_batch()
  rng = np.random.default_rng(1)
  batch['labels'] = rng.integers(0, 19, batch['labels'].shape, np.uint8)
  stills = rng.integers(0, 256, (2, 32, 64, 3), np.uint8)
  masks = rng.integers(0, 19, (2, 32, 64), np.uint8)
  recorder = _Recorder()
  sgd = optax.with_extra_args_support(optax.sgd(0.1))
  steps.train_step(
    {'seed': 0, 'decay_steps': ()},
    _make_state(sgd),
    jax.tree.map(
      jnp.asarray, batch | {'semantic_images': stills, 'semantic_labels': masks}
    ),
    optimizer=sgd,
    **_options(flip_probability=1.0, jitter_probability=1.0)
    | {'model': recorder, 'loss': recorder.weighted_terms},
  )
  mirrored = batch['frames'][:, :, :, ::-1] / np.float32(255)
  np.testing.assert_allclose(recorder.clean, mirrored, atol=1e-6)
  for seen, clean in (
    (recorder.frames, mirrored),
    (recorder.stills, stills[:, :, ::-1] / np.float32(255)),
  ):
    change = np.abs(seen - clean).reshape(len(clean), -1).max(1)
    assert np.all(change > 0.01)
    others = np.abs(seen - clean[..., ::-1, :]).mean()
    assert np.abs(seen - clean).mean() < 0.5 * others
  (_, labels), (_, still_labels) = recorder.labelled
  np.testing.assert_array_equal(labels, batch['labels'][:, :, ::-1])
  np.testing.assert_array_equal(still_labels, masks[:, :, ::-1])


def test_spread_is_relative_and_zero_for_constant_depth():
  rng = np.random.default_rng(0)
  disparity = jnp.asarray(rng.uniform(0.1, 0.2, (2, 8, 16, 1)), jnp.float32)
  expected = (disparity.std((1, 2, 3)) / disparity.mean((1, 2, 3))).mean()
  for scale in (1, 5):
    spread = steps._relative_spread(scale * disparity)
    np.testing.assert_allclose(spread, expected, rtol=1e-5)
  for value in (0.0, 0.5, 1.0):  # 0 is where a saturated sigmoid ends.
    assert steps._relative_spread(jnp.full((2, 8, 16, 1), value)) == 0


def test_attention_gain_is_over_all_levels_and_branches():
  config = default.get_config().model
  config.attention.levels = (2, 3)
  model = models.create_model(config)
  maps = jnp.zeros((1, 4, 4, 8))
  module = attention.SemanticGuidedAttention(**model.attention)
  level = module.init(jax.random.key(0), maps, maps)['params']
  params = {'attentions_2': level, 'attentions_3': dict(level)}
  assert steps._attention_gain(params, model) == {'attention_gain': 0}
  opened = level['depth_update'] | {'gain': jnp.full((8,), 0.03)}
  params['attentions_3']['depth_update'] = opened
  # A quarter of all gains are 0.3.
  gain = steps._attention_gain(params, model)['attention_gain']
  np.testing.assert_allclose(gain, 0.15, rtol=1e-6)
  assert steps._attention_gain(params, model.clone(attention_levels=())) == {}


@pytest.mark.slow
def test_scale_prior_recovers_a_saturated_disparity(tiny):
  state, step = tiny
  heads = [f'Conv_{1 + scale}' for scale in range(4)]
  params = state.params | {
    name: state.params[name] | {'bias': jnp.full((1,), 12.0)} for name in heads
  }
  new, scalars = step(state.replace(params=params), _make_batch(), 0)
  assert scalars['disparity_spread'] < 1e-3
  for name in heads:  # SGD of 0.1 times 0.01 (12**2 / 4)', and nothing else.
    change = float(new.params[name]['bias'][0]) - 12
    np.testing.assert_allclose(change, -0.1 * 0.01 * 2 * 12 / 4, rtol=0.3)


def test_randomness_depends_only_on_seed_and_step(tiny):
  state, step = tiny
  batch = _make_batch()

  def loss(*, at_step, seed):
    moved = state.replace(step=jnp.asarray(at_step, jnp.int32))
    return float(step(moved, batch, seed)[1]['loss'])

  draws = {(n, s): loss(at_step=n, seed=s) for n in (0, 1, 7) for s in (0, 1)}
  assert len(set(draws.values())) == len(draws)
  assert draws[7, 1] == loss(at_step=7, seed=1)


def test_preview_rebuilds_unaugmented_frames():
  state = _make_state(optax.identity())
  batch = _make_batch()
  preview = jax.jit(
    functools.partial(
      steps.preview_step, model=TinyModel(), loss=_options()['loss']
    )
  )
  pictures = preview(state.variables, batch)
  assert {name: array.shape for name, array in pictures.items()} == {
    'frame': (4, 32, 64, 3),
    'disparity': (4, 32, 64, 1),
    'rebuilt': (4, 1, 32, 64, 3),
    'automask': (4, 32, 64),
  }
  np.testing.assert_array_equal(
    np.round(255 * pictures['frame']), batch['frames'][:, 0]
  )


@pytest.mark.slow
def test_one_program_serves_every_seed_and_size_of_the_data():
  config = default.get_config()
  config.optimizer.decay_epochs = (0.5, 2.0)
  adam = optimizer.create_optimizer(config.optimizer)
  mesh = runs.one_device_mesh()
  batch = parallel.to_devices(_make_batch(), mesh)

  def start():
    return parallel.replicate(_make_state(adam), mesh)

  def compile_step(seed, steps_per_epoch):
    config.seed = seed
    step, *_ = loop.compile_steps(
      config,
      TinyModel(),
      adam,
      mesh,
      start(),
      iter([batch]),
      steps_per_epoch=steps_per_epoch,
    )
    return step

  def run(step):
    state, scalars = step(start(), batch)
    return float(scalars['loss']), float(optax.tree.norm(state.params))

  first, *others = (compile_step(*run) for run in ((0, 9), (1, 9), (0, 1)))
  results = [run(step) for step in (first, *others)]
  assert results[0][0] != results[1][0]
  assert results[0][0] == results[2][0] and results[0][1] != results[2][1]
  for step, result in zip(others, results[1:], strict=True):
    assert run(functools.partial(first.func, *step.args)) == result


def test_tie_noise_is_small():
  noise = steps._tie_noise(jax.random.key(0), jnp.zeros((4, 3, 32, 64, 3)))
  assert noise.shape == (4, 2, 32, 64)
  np.testing.assert_allclose(jnp.std(noise), 1e-5, rtol=0.05)


@pytest.mark.slow
def test_overfits_one_batch_of_the_street(tmp_path):
  root = tmp_path / 'street'
  street.render_street(
    root,
    drives=1,
    frames=5,
    height=32,
    width=64,
    seed=0,
    test_drives=0,
    workers=1,
  )
  # Its own frames as labelled stills, one to a batch of four.
  drive = next(root.glob('*/*_sync'))
  stills = tmp_path / 'stills'
  stills.mkdir()
  (stills / 'image_2').symlink_to(drive / 'image_02/data')
  (stills / 'semantic').symlink_to(drive / 'semantic_02/data')
  config = runs.make_config(
    root,
    data__semantic_root=str(stills),
    data__semantic_labels='train_ids',
    data__semantic_share=0.25,
  )
  data = input_pipeline.open_data(config.data, evaluation=False)
  batches = data.train_batches(seed=0, start_step=0, batch_size=4)
  step, state, batches = runs.compile_step(
    config, runs.one_device_mesh(), batches
  )
  batch = next(batches)
  assert batch['semantic_images'].shape == (1, 32, 64, 3)
  terms = []
  for _ in range(20):
    state, scalars = step(state, batch)
    terms.append(jax.device_get(scalars))
  for name in ('photometric', 'enhanced', 'cross_entropy'):
    values = [term[name] for term in terms]
    assert np.mean(values[-4:]) < 0.9 * np.mean(values[:4]), (name, values)
  moments = state.opt_state[1][0].mu
  levels = {f'attentions_{level}' for level in (2, 3, 4)}
  assert levels | {'refiner', 'semantic_head'} <= moments.keys()
  for path, moment in jax.tree_util.tree_leaves_with_path(moments):
    assert np.isfinite(moment).all()
    # A key's bias moves all scores of a query alike: softmax does not see it.
    blind = "['key']['conv']['bias']" in jax.tree_util.keystr(path)
    assert blind or np.any(moment != 0), path
