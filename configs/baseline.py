"""Monodepth2, our baseline, at the published setting on the street.

python main.py --config=configs/baseline.py --workdir=runs/baseline
"""

from configs import ablation


def get_config():
  """Returns the reference setting without any of the paper's parts."""
  return ablation.get_config('baseline')
