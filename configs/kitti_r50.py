"""Monodepth2 on KITTI raw with a ResNet-50 encoder; see kitti_r18.py.

python main.py --config=kitti_r50 --workdir=W \
    --config.data.root=KITTI
"""

from sgde_jax.configs import kitti_r18


def get_config():
  """Returns the config."""
  config = kitti_r18.get_config()
  config.model.encoder_layers = 50
  config.model.encoder_weights = 'resnet50.pth'
  return config
