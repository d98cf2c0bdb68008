"""Predicted motion: its direction and order, its figures and its files."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import input_pipeline
from input_pipeline import images, street
from input_pipeline.sources import odometry as odometry_files
from sgde_jax import models, parallel
from sgde_jax.configs import default
from sgde_jax.evaluation import odometry, run
from sgde_jax.inference import steps as inference
from sgde_jax.metrics import trajectories
from sgde_jax.ops import losses
from sgde_jax.weights import initial
from tests.support import runs

_SIZE = {'height': 64, 'width': 192}
_DRIVES = [f'2000_01_01/2000_01_01_drive_000{n}_sync' for n in (1, 2)]
_FRAMES = 7


@pytest.fixture(scope='module', name='street_root')
def fixture_street_root(tmp_path_factory):
  output = tmp_path_factory.mktemp('street') / 'root'
  street.render_street(
    output, drives=2, frames=_FRAMES, seed=3, test_drives=1, workers=1, **_SIZE
  )
  return output


@pytest.fixture(scope='module', name='benchmark_root')
def fixture_benchmark_root(street_root, tmp_path_factory):
  """The street's drives as sequences 09 and 10 of KITTI odometry."""
  root = tmp_path_factory.mktemp('odometry')
  (root / 'poses').mkdir()
  for name, drive in zip(('09', '10'), _DRIVES, strict=True):
    shutil.copytree(
      street_root / drive / 'image_02/data',
      root / 'sequences' / name / 'image_2',
    )
    shutil.copy(street_root / drive / 'poses.txt', root / f'poses/{name}.txt')
  return root


def _make_config(root, **overrides):
  return runs.make_config(
    root,
    eval__odometry=True,
    data__ground_truth='dense',
    model__semantics=False,
    model__attention__levels=(),
    model__seem__enabled=False,
    **overrides,
  )


def _true_vectors(poses):
  """Returns the pose network's ideal prediction: T_(t+1)_t, `[N - 1, 6]`."""
  transforms = np.linalg.inv(poses[1:]) @ poses[:-1]
  rotation = transforms[:, :3, :3]
  skew = (rotation - rotation.transpose(0, 2, 1)) / 2
  axis = np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1)
  sine = np.linalg.norm(axis, axis=1, keepdims=True)
  axis_angle = axis * np.divide(
    np.arcsin(sine), sine, out=np.ones_like(sine), where=sine > 0
  )
  return np.concatenate([axis_angle, transforms[:, :3, 3]], 1, dtype=np.float32)


def _photometric_loss(config):
  """Returns the loss of frame 1 between 0 and 2 with the true depth."""
  data_config = config.data.copy_and_resolve_references()
  path = pathlib.Path(data_config.root, 'one.txt')
  path.write_text(f'{_DRIVES[0]} 1 l\n')
  data_config.eval_split = str(path)
  data = input_pipeline.open_data(
    data_config, train=False, eval_offsets=(0, -1, 1)
  )
  batch = next(iter(data.eval_batches(batch_size=1)))
  fields = {name: value[0] for name, value in batch.items()}
  inverse = 1 / np.where(fields['depth'] > 0, fields['depth'], 100)
  disparity = (inverse - 0.01) / (10 - 0.01)
  disparity = np.clip(disparity, 1e-6, 1 - 1e-6)
  disparity = jnp.asarray(disparity[None, :, :, None], jnp.float32)
  logits = (jax.scipy.special.logit(disparity),)
  batch = {
    'frames': jnp.asarray(fields['frames'][None], jnp.float32) / 255,
    'intrinsics': jnp.asarray(fields['intrinsics'][None]),
  }

  @jax.jit
  def loss(vectors):
    outputs = models.DepthOutputs(
      logits,
      axis_angle=vectors[None, :2, :3],
      translation=vectors[None, :2, 3:],
    )
    terms, _ = losses.weighted_terms(
      outputs,
      [],
      batch['frames'],
      batch['intrinsics'],
      frame_offsets=(0, -1, 1),
      min_depth=0.1,
      max_depth=100.0,
      **default.get_config().loss.to_dict() | {'automask': False},
    )
    return terms['photometric']

  return loss


def test_true_vectors_minimize_the_photometric_loss(street_root):
  config = _make_config(
    street_root, data__height=_SIZE['height'], data__width=_SIZE['width']
  )
  sequence = input_pipeline.open_sequences(config.data, _DRIVES[:1])[0]
  vectors = _true_vectors(sequence.poses)
  loss = _photometric_loss(config)
  for wrong in (-vectors, np.zeros_like(vectors)):
    assert loss(wrong) > 1.5 * loss(vectors)


class _TrueMotion:
  """A fake network that knows the frames and their true motions."""

  def apply(self, variables, first, second, *, train, method):
    assert method == 'pair_motion' and not train
    known = variables['frames'][None]

    def number(frames):
      difference = jnp.abs(frames[:, None] - known).sum(axis=(2, 3, 4))
      return jnp.argmin(difference, axis=1)

    in_order = (number(second) == number(first) + 1)[:, None]
    vectors = variables['vectors'][number(first)]
    vectors = jnp.where(in_order, vectors, jnp.nan)
    return vectors[:, :3], vectors[:, 3:]


@pytest.mark.parametrize(('devices', 'batch_size'), [(1, 4), (1, 9), (8, 8)])
def test_true_motions_chain_to_the_true_trajectory(
  street_root, devices, batch_size
):
  config = _make_config(street_root, eval__batch_size=batch_size)
  mesh = parallel.create_mesh(jax.devices()[:devices])
  (sequence,) = odometry.open_sequences(config)  # Of the held-out drive.
  frames = [
    images.read_frame(path, height=32, width=64) for path in sequence.files
  ]
  variables = {
    'frames': np.stack(frames).astype(np.float32) / 255,
    'vectors': np.pad(_true_vectors(sequence.poses), ((0, 1), (0, 0))),
  }
  (predicted,) = odometry.predict_trajectories(
    config,
    parallel.replicate(variables, mesh),
    [sequence],
    model=_TrueMotion(),
    mesh=mesh,
  )
  assert trajectories.path_length(sequence.poses) > 2
  # The street's poses are relative to frame 0, as a chain's are.
  np.testing.assert_allclose(predicted, sequence.poses, atol=1e-5)
  mean, _ = trajectories.odometry_error(sequence.poses, predicted)
  assert mean == pytest.approx(0, abs=1e-5)
  aligned, scale = trajectories.align(sequence.poses, predicted)
  assert scale == pytest.approx(1, abs=1e-5)
  assert trajectories.trajectory_error(sequence.poses, aligned) < 1e-4


def test_nonfinite_motion_is_named(street_root):
  config = _make_config(street_root)
  mesh = runs.one_device_mesh()
  (sequence,) = odometry.open_sequences(config)
  variables = {
    'frames': np.zeros((_FRAMES, 32, 64, 3), np.float32),  # None is found.
    'vectors': np.zeros((_FRAMES, 6), np.float32),
  }
  variables = parallel.replicate(variables, mesh)
  with pytest.raises(FloatingPointError, match='drive_0002_sync after frame 0'):
    odometry.predict_trajectories(
      config, variables, [sequence], model=_TrueMotion(), mesh=mesh
    )


def _load_fresh(config, workdir, mesh):
  """Stands in for `initial.load_trained`: a fresh network, not compiled."""
  del workdir
  model = runs.create_model(config)
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    if leaf.ndim > 1:
      deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      return deviation * rng.standard_normal(leaf.shape, np.float32)
    is_one = jax.tree_util.keystr(path[-1:]) in ("['scale']", "['var']")
    return np.full(leaf.shape, is_one, leaf.dtype)

  template = initial.template(config, model, mesh)
  state = jax.tree_util.tree_map_with_path(fill, template.replace(opt_state=()))
  return model, parallel.replicate(state, mesh)


def _predict_grey(variables, frames, *, model, flip):
  """Stands in for `steps.predict_step`: the same depth everywhere."""
  del variables, model, flip
  return inference.BatchPrediction(jnp.ones(frames.shape[:3]))


def _check_files(folder, names):
  """Checks the files of an evaluation; returns its figures."""
  results = json.loads((folder / 'odometry.json').read_text())
  assert list(results['sequences']) == names
  for name in names:
    figures = results['sequences'][name]
    assert figures['frames'] == _FRAMES
    assert np.isfinite(list(figures.values())).all()
    assert 0 < figures['snippet_error'] < figures['path_length']
    poses = odometry_files.read_poses(folder / f'trajectory_{name}.txt')
    assert len(poses) == _FRAMES
    picture = np.array(Image.open(folder / f'trajectory_{name}.png'))
    assert picture.shape[2] == 3 and picture.std() > 0
  assert not [path for path in folder.iterdir() if path.name.startswith('.')]
  return results


def test_depth_and_motion_of_the_street(
  street_root, tmp_path, monkeypatch, one_device, capsys
):
  monkeypatch.setattr(initial, 'load_trained', _load_fresh)
  monkeypatch.setattr(inference, 'predict_step', _predict_grey)
  config = _make_config(street_root, eval__panels=0, data__labels='none')
  summary = run.evaluate(config, tmp_path)
  name = _DRIVES[1].split('/')[1]
  results = _check_files(tmp_path / 'evaluation', [name])
  assert summary['images'] == 4
  assert (
    summary['odometry/snippet_error']
    == (results['sequences'][name]['snippet_error'])
  )
  depth, motion = capsys.readouterr().out.split('scale ratio')
  assert 'abs_rel' in depth
  row = next(line for line in motion.splitlines() if line.startswith(name))
  assert row.split()[1] == str(_FRAMES)
  assert 'nan' not in row and ' all ' not in motion


def test_kitti_odometry_has_only_motion(
  benchmark_root, tmp_path, monkeypatch, one_device, capsys
):
  monkeypatch.setattr(initial, 'load_trained', _load_fresh)
  summary = run.evaluate(_make_config(benchmark_root), tmp_path)
  results = _check_files(tmp_path / 'evaluation', ['09', '10'])
  assert not (tmp_path / 'evaluation' / 'metrics.json').exists()
  assert 'abs_rel' not in summary
  output = capsys.readouterr().out
  assert 'abs_rel' not in output
  rows = [line.split()[:2] for line in output.splitlines()[1:4]]
  assert rows == [['09', '7'], ['10', '7'], ['all', '14']]
  each = [figures['snippet_error'] for figures in results['sequences'].values()]
  # As many snippets in each.
  assert results['all']['snippet_error'] == pytest.approx(np.mean(each))


def test_motion_is_measured_only_on_demand(street_root):
  config = _make_config(street_root)
  off = config.copy_and_resolve_references()
  off.eval.odometry = False
  assert odometry.open_sequences(off) == []


def test_short_sequence_raises_before_compilation(
  benchmark_root, tmp_path, one_device, monkeypatch
):
  root = tmp_path / 'short'
  shutil.copytree(benchmark_root, root)
  lines = (root / 'poses/09.txt').read_text().splitlines()[:4]
  (root / 'poses/09.txt').write_text('\n'.join(lines))
  for index in range(4, _FRAMES):
    (root / f'sequences/09/image_2/{index:010d}.png').unlink()
  no_model = (None, None)
  monkeypatch.setattr(initial, 'load_trained', lambda *args: no_model)
  with pytest.raises(ValueError, match='09 has 4 frames, and a snippet needs'):
    run.evaluate(_make_config(root), tmp_path / 'none')
