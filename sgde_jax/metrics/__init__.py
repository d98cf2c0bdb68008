"""Metrics in NumPy: depth, borders, segmentation, trajectories."""

from sgde_jax.metrics.boundaries import (
  boundary_f1,
  boundary_recall,
  boundary_totals,
)
from sgde_jax.metrics.depth import (
  CROPS,
  DEPTH_ERRORS,
  AlignedDepth,
  align_depth,
  aligned_errors,
  depth_errors,
  flip_post_process,
  native_depth,
  resize_bilinear,
  summarize,
)
from sgde_jax.metrics.segmentation import (
  Totals,
  border_distance,
  border_errors,
  class_errors,
  confusion_matrix,
  iou_totals,
)
from sgde_jax.metrics.trajectories import odometry_error
