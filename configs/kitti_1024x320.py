"""Monodepth2 on KITTI raw at 1024x320: five more epochs at 1e-5.

  python main.py --config=kitti_1024x320 --workdir=W2 \
    --config.data.root=KITTI --config.init_from=W

W is the workdir of a run of kitti_r18.py, whose weights it starts from;
`--config.init_from=` trains from scratch.
"""

from sgde_jax.configs import kitti_r18


def get_config():
  """Returns the config."""
  config = kitti_r18.get_config()
  config.init_from = 'runs/kitti_r18'
  config.num_epochs = 5
  config.batch_size = 4
  config.data.height = 320
  config.data.width = 1024
  config.model.encoder_weights = ''
  config.model.pose_weights = ''
  config.optimizer.learning_rate = 1e-5
  config.optimizer.decay_epochs = ()
  return config
