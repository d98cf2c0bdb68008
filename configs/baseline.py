"""Monodepth2, our baseline, at the published setting on the street.

python main.py --config=configs/baseline.py --workdir=runs/baseline
"""

from configs import default


def get_config():
  """Returns the baseline's config; today the reference setting itself."""
  return default.get_config()
