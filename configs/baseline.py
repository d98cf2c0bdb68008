"""Monodepth2, our baseline, at the published setting on the street.

python main.py --config=configs/baseline.py --workdir=runs/baseline
"""

from configs import default


def get_config():
  """Returns the reference setting without any of the paper's parts."""
  config = default.get_config()
  config.model.semantics = False
  config.model.attention.levels = ()
  config.model.seem.enabled = False
  return config
