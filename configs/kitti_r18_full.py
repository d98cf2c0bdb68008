"""The whole method on KITTI raw, ResNet-18, 640x192, ImageNet weights.

  python main.py --config=kitti_r18_full --workdir=W \
    --config.data.root=KITTI

Needs KITTI as in kitti_r18.py, and masks of train ids (8 bits) in
DRIVE/semantic_02/data/0000000000.png; frames without one train depth alone.
Not trained here yet.
"""

from sgde_jax.configs import ablation, default, kitti_r18


def get_config():
  """Returns the config."""
  config = ablation.switch(kitti_r18.get_config(), 'full')
  config.data.labels = 'train_ids'
  config.loss.scale_weight = default.get_config().loss.scale_weight
  return config
