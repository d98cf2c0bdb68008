"""Files that are whole or, if the writing is broken off, as they were."""

import pytest

from input_pipeline import appearing


def _write(path, text, error=None):
  with appearing.whole_file(path) as partial:
    partial.write_text(text)
    if error:
      raise error


def test_a_file_appears_whole(tmp_path):
  path = tmp_path / 'new' / 'a.txt'
  with appearing.whole_file(path) as partial:
    partial.write_text('whole')
    assert partial.suffix == '.txt' and partial.parent == path.parent
    assert not path.exists()
  assert [file.name for file in path.parent.iterdir()] == ['a.txt']
  assert path.read_text() == 'whole'


@pytest.mark.parametrize('error', [OSError('disk full'), KeyboardInterrupt()])
def test_a_file_that_is_broken_off_stays_as_it_was(tmp_path, error):
  path = tmp_path / 'a.txt'
  with pytest.raises(type(error)):
    _write(path, 'half', error)
  assert not list(tmp_path.iterdir())
  _write(path, 'before')
  with pytest.raises(type(error)):
    _write(path, 'half', error)
  assert [file.name for file in tmp_path.iterdir()] == ['a.txt']
  assert path.read_text() == 'before'
