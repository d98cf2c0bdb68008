"""Metrics in NumPy: depth, borders, segmentation, trajectories."""

from sgde_jax.metrics import borders, depth, segmentation, totals, trajectories
from sgde_jax.metrics.depth import depth_errors
from sgde_jax.metrics.trajectories import odometry_error
