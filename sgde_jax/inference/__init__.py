"""Prediction of images and videos; export."""
