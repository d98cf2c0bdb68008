"""The plain self-supervised baseline, Monodepth2, on the street.

python main.py --config=baseline --workdir=runs/baseline
"""

from sgde_jax.configs import ablation


def get_config():
  """Returns the reference setting without the paper's parts and ours."""
  config = ablation.get_config('baseline')
  config.loss.scale_weight = 0.0
  return config
