"""Runs main.py with NaN intrinsics in the batch of the third step.

python -m tests.support.nan_intrinsics FLAGS

Prints the numbers of that batch's examples.
"""

import runpy

import numpy as np

from tests.support import batches


def _set_nan(step, batch):
  if step == 3:
    batch['intrinsics'] = np.full_like(batch['intrinsics'], np.nan)
    print(batch['index'].tolist())


if __name__ == '__main__':
  batches.on_each(_set_nan)
  runpy.run_path('main.py', run_name='__main__')
