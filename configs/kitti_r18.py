"""Monodepth2 on KITTI raw, ResNet-18, 640x192, ImageNet weights.

  python main.py --config=kitti_r18 --workdir=W \
    --config.data.root=KITTI \
    --config.data.train_split=eigen_zhou/train_files.txt \
    --config.data.eval_split=eigen/test_files.txt \
    --config.model.encoder_weights=hf://timm/resnet18.tv_in1k \
    --config.model.pose_weights=hf://timm/resnet18.tv_in1k

KITTI holds 2011_09_26 and the other dates. The lists are the published ones:
Eigen-Zhou's 39,810 training lines and Eigen's 697 test lines. Published for
this setting: abs_rel 0.115 (Monodepth2); not measured here.
"""

from sgde_jax.configs import baseline


def get_config():
  """Returns the config."""
  config = baseline.get_config()
  config.data.source = 'kitti'
  config.data.root = ''
  config.data.reader = 'tf'
  config.data.labels = 'none'
  config.data.ground_truth = 'lidar'
  config.data.train_split = 'splits/eigen_zhou/train_files.txt'
  config.data.eval_split = 'splits/eigen/test_files.txt'
  config.eval.crop = 'garg'
  config.model.encoder_weights = 'resnet18.pth'
  config.model.pose_weights = 'resnet18.pth'
  config.eval_every = 3000
  config.checkpoint_every = 1000
  return config
