"""Frames in, batches out: the entry point to the data.

  data = input_pipeline.open_data(config.data)
  for batch in data.train_batches(seed=0, start_step=0, batch_size=12):
    ...

`open_data` checks everything once; `batch.Batch` documents a batch's fields.
"""

from input_pipeline import data
from input_pipeline.sources import odometry

Data = data.Data
open_data = data.open_data
check_paths = data.check_paths
is_odometry_root = odometry.is_odometry_root
open_sequences = odometry.open_sequences
pair_batches = odometry.pair_batches
