"""Workdirs that one job alone can train in."""

import pytest

from sgde_jax import folders


def test_a_claimed_folder_is_refused_to_others(tmp_path):
  workdir = tmp_path / 'runs' / 'a'
  with folders.claimed(workdir):
    with (
      pytest.raises(ValueError, match=f'{workdir}: another process trains'),
      folders.claimed(workdir),
    ):
      pytest.fail('claimed twice')
    with folders.claimed(tmp_path / 'runs' / 'b'):
      pass
    (workdir / 'config.json').touch()
  assert list((tmp_path / 'runs').iterdir()) == [workdir]  # `b` was empty.
  with folders.claimed(workdir):
    pass


def test_what_ends_the_claim_is_raised(tmp_path):
  with pytest.raises(OSError, match='disk'), folders.claimed(tmp_path / 'a'):
    raise OSError('disk')
  assert not (tmp_path / 'a').exists()
