"""Runs main.py with cameras that are not finite in the third step's batch.

python -m tests.support.spoilt FLAGS

Prints the numbers of that batch's examples.
"""

import runpy

import numpy as np

from tests.support import batches


def _spoil(step, batch):
  if step == 3:
    batch['intrinsics'] = np.full_like(batch['intrinsics'], np.nan)
    print(batch['index'].tolist())


if __name__ == '__main__':
  batches.on_each(_spoil)
  runpy.run_path('main.py', run_name='__main__')
