"""Small runs for tests: their data, config, processes and results."""

import json
import os
import socket
import subprocess
import sys

import jax

from sgde_jax import models, parallel
from sgde_jax.configs import default
from sgde_jax.training import loop
from sgde_jax.weights import checkpoints, initial, optimizer
from tests.support import kitti_folder

# Compiling the training step takes most of the tests' time. So all runs on one
# device share one program, by the cache that conftest.py sets up.
_SETTINGS = {
  'batch_size': 2,
  'num_steps': 20,
  'model.encoder_layers': 10,
  'model.pose_layers': 10,
  'optimizer.decay_epochs': (),
  'data.source': 'kitti',
  'data.height': 32,
  'data.width': 64,
  'data.frame_offsets': (0, 1),
  'data.ground_truth': 'lidar',
  'eval.batch_size': 2,
  'eval.panels': 2,
  'log_every': 5,
  'picture_every': 10,
  'eval_every': 10,
  'checkpoint_every': 10,
}


def write_root(root):
  """Writes a KITTI raw folder with 4 training and 3 test examples."""
  kitti_folder.write_drive(root, height=40, width=80)
  kitti_folder.write_splits(root)
  return root


def make_config(root, **overrides):
  """The small runs' config; `data__root` overrides `data.root`."""
  config = default.get_config()
  config.update_from_flattened_dict(_settings(root, overrides))
  return config.lock()


def make_flags(root, **overrides):
  """The same config as flags for main.py."""
  settings = _settings(root, overrides).items()
  return [f'--config.{name}={value}' for name, value in settings]


def start(*arguments, script=('main.py',), environment=None):
  """Starts main.py as a process of its own, with one device by default."""
  return subprocess.Popen(
    [sys.executable, *script, *map(str, arguments)],
    cwd=kitti_folder.REPOSITORY,
    env=os.environ | {'JAX_NUM_CPU_DEVICES': '1'} | (environment or {}),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def free_address():
  """A HOST:PORT at which the processes of a job can find each other."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return f'localhost:{free.getsockname()[1]}'


def finish(process, *, fails=False):
  """Waits for a process; returns its stdout and stderr."""
  try:
    output, errors = process.communicate(timeout=900)
  finally:
    process.kill()
  assert (process.returncode != 0) == fails, f'{output}\n{errors}'
  return output, errors


def run_main(*arguments, fails=False, **options):
  """Runs main.py as a process of its own; returns its two outputs."""
  return finish(start(*arguments, **options), fails=fails)


def one_device_mesh(devices=None):
  """Replaces `parallel.create_mesh`: a mesh of one of the eight devices."""
  del devices
  return jax.make_mesh(
    (1,),
    ('data',),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:1],
  )


def create_model(config):
  """Builds the network of a config."""
  return models.create_model(
    config.model, frame_offsets=config.data.frame_offsets
  )


def compile_step(config, mesh, batches):
  """Compiles the training step as training does.

  Args:
    config: the whole config.
    mesh: the mesh.
    batches: iterator of global batches of NumPy arrays.

  Returns:
    The compiled step, the state to start from, and the batches on the mesh.
  """
  model = create_model(config)
  adam = optimizer.create_optimizer(config.optimizer)
  state = initial.new_state(config, model, adam, mesh, weights={})
  batches = (parallel.to_devices(batch, mesh) for batch in batches)
  step, _, batches = loop.compile_steps(
    config, model, adam, mesh, state, batches, steps_per_epoch=1
  )
  return step, state, batches


def restore(config, workdir, *, step=None):
  """The training state in a run's checkpoint, on one device."""
  template = initial.template(config, create_model(config), one_device_mesh())
  with checkpoints.Checkpoints(workdir, read_only=True) as saved:
    return saved.restore(template, step=step)


def list_files(workdir):
  """Every file of a workdir outside its checkpoints, relative, sorted."""
  files = (path.relative_to(workdir) for path in workdir.rglob('*'))
  return sorted(
    str(path)
    for path in files
    if (workdir / path).is_file() and path.parts[0] != 'checkpoints'
  )


def list_checkpoints(workdir):
  """The steps of a workdir's checkpoints; anything else fails."""
  folders = (workdir / 'checkpoints').iterdir()
  return sorted(int(folder.name) for folder in folders)


def read_scalars(workdir, name):
  """step -> value of one scalar in a run's metrics.jsonl."""
  text = (workdir / 'metrics.jsonl').read_text()
  entries = map(json.loads, text.splitlines())
  return {entry['step']: entry[name] for entry in entries if name in entry}


def _settings(root, overrides):
  named = {name.replace('__', '.'): v for name, v in overrides.items()}
  return _SETTINGS | {'data.root': str(root)} | named
