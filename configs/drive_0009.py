"""One real drive: KITTI's 2011_09_26_drive_0009, frames 0 to 50.

  python main.py --config=drive_0009 --workdir=W \
    --config.data.root=KITTI

ResNet-18 from scratch at 320x96, 1000 steps of 4 examples, evaluated on the
LiDAR of the 26 even frames of the same road: a test of training, not of
generalization. docs/results.md has its figures.
"""

import pathlib

from sgde_jax.configs import baseline

_SPLITS = pathlib.Path(__file__).parent / 'splits' / 'drive_0009'


def get_config():
  """Returns the config."""
  config = baseline.get_config()
  config.batch_size = 4
  config.num_steps = 1000
  config.data.source = 'kitti'
  config.data.root = ''
  config.data.height = 96
  config.data.width = 320
  config.data.labels = 'none'
  config.data.ground_truth = 'lidar'
  config.data.train_split = str(_SPLITS / 'train.txt')
  config.data.eval_split = str(_SPLITS / 'test.txt')
  config.augmentation.hue = 0.0
  config.augmentation.whole_batch = True  # As in docs/results.md.
  config.optimizer.decay_epochs = ()
  config.eval.crop = 'garg'
  config.log_every = 25
  config.picture_every = 500
  config.eval_every = 250
  config.checkpoint_every = 250
  return config
