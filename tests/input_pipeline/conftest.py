"""The folder that most tests of the input pipeline read."""

import pytest

from tests.support import kitti_folder


@pytest.fixture(name='root')
def fixture_root(tmp_path):
  """A KITTI raw folder of random frames, made for each test."""
  root = tmp_path / 'kitti'
  kitti_folder.write_drive(root)
  kitti_folder.write_splits(root)
  return root
