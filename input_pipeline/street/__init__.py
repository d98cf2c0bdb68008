"""The rendered scene: a KITTI raw folder without downloads."""
