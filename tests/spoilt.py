"""Runs main.py with cameras that are not finite in the third step's batch.

python -m tests.spoilt FLAGS
"""

import runpy

import numpy as np

import input_pipeline

if __name__ == '__main__':
  create_batches = input_pipeline.create_train_batches

  def create_spoilt_batches(*args, start_step, **kwargs):
    batches = create_batches(*args, start_step=start_step, **kwargs)
    for number, batch in enumerate(batches, start=start_step + 1):
      if number == 3:
        batch['intrinsics'] = np.full_like(batch['intrinsics'], np.nan)
      yield batch

  input_pipeline.create_train_batches = create_spoilt_batches
  runpy.run_path('main.py', run_name='__main__')
