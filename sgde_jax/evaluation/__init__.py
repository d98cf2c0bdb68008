"""Evaluation: depth, segmentation, odometry; tables and panels."""
