"""The rendered street: a KITTI raw folder without downloads."""

from input_pipeline.street.folder import render_street
