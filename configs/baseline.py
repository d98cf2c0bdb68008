"""Monodepth2, our baseline, at the published setting on the street.

python main.py --config=configs/baseline.py --workdir=runs/baseline
"""

from sgde_jax.configs import ablation


def get_config():
  """Returns the reference setting without the paper's parts and ours."""
  config = ablation.get_config('baseline')
  config.loss.scale_weight = 0.0
  return config
