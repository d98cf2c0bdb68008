"""The whole method on one real drive; see drive_0009.py.

  python main.py --config=drive_0009_full --workdir=W \
    --config.data.root=KITTI

Needs masks of train ids in DRIVE/semantic_02/data, which KITTI does not have.
"""

from sgde_jax.configs import ablation, default, drive_0009


def get_config():
  """Returns the config."""
  config = ablation.switch(drive_0009.get_config(), 'full')
  config.data.labels = 'train_ids'
  config.loss.scale_weight = default.get_config().loss.scale_weight
  config.loss.cross_entropy_weight = 0.1  # Not 0.3: experiment 09.
  return config
