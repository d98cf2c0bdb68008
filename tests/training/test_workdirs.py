"""Workdirs that only one job trains in."""

import pytest

from sgde_jax.training import workdirs


def test_claimed_workdir_cannot_be_claimed_again(tmp_path):
  path = tmp_path / 'runs' / 'a'
  with workdirs.claim(path):
    with (
      pytest.raises(ValueError, match=f'another process trains in {path}'),
      workdirs.claim(path),
    ):
      pytest.fail('claimed twice')
    with workdirs.claim(tmp_path / 'runs' / 'b'):
      pass
    (path / 'config.json').touch()
  assert list((tmp_path / 'runs').iterdir()) == [path]  # `b` was empty.
  with workdirs.claim(path):
    pass


def test_errors_inside_a_claim_are_raised(tmp_path):
  with pytest.raises(OSError, match='disk'), workdirs.claim(tmp_path / 'a'):
    raise OSError('disk')
  assert not (tmp_path / 'a').exists()
