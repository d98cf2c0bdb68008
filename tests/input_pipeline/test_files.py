"""Files that appear whole or not at all, and checks of paths."""

import os

import pytest

from input_pipeline import files


def _write(path, text, error=None):
  with files.whole_file(path) as partial:
    partial.write_text(text)
    if error:
      raise error


def test_file_is_written_whole(tmp_path):
  path = tmp_path / 'new' / 'a.txt'
  with files.whole_file(path) as partial:
    partial.write_text('whole')
    assert partial.suffix == '.txt' and partial.parent == path.parent
    assert not path.exists()
  assert [file.name for file in path.parent.iterdir()] == ['a.txt']
  assert path.read_text() == 'whole'


@pytest.mark.parametrize('there', [False, True])
def test_folder_is_written_where_a_link_points(tmp_path, there):
  target, link = tmp_path / 'disk' / 'target', tmp_path / 'link'
  if there:
    target.mkdir(parents=True)
  link.symlink_to(target)
  with files.whole_folder(link) as made:
    assert made.parent == target.parent  # The disk that the link names.
    (made / 'a.txt').write_text('whole')
  assert link.is_symlink()
  assert [path.name for path in target.parent.iterdir()] == ['target']
  assert (link / 'a.txt').read_text() == 'whole'


def test_mount_point_raises_before_work(tmp_path, monkeypatch):
  monkeypatch.setattr(os.path, 'ismount', lambda path: path == tmp_path)
  raises = pytest.raises(ValueError, match=f'{tmp_path} is a mount point: ')
  with raises, files.whole_folder(tmp_path):
    pytest.fail('work began')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('error', [OSError('disk full'), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_file_unchanged(tmp_path, error):
  path = tmp_path / 'a.txt'
  with pytest.raises(type(error)):
    _write(path, 'half', error)
  assert not list(tmp_path.iterdir())
  _write(path, 'before')
  with pytest.raises(type(error)):
    _write(path, 'half', error)
  assert [file.name for file in tmp_path.iterdir()] == ['a.txt']
  assert path.read_text() == 'before'


def test_files_move_into_a_folder_once_all_are_complete(tmp_path):
  folder = tmp_path / 'new' / 'files'
  for text in ('first', 'second'):
    old = list(folder.glob('*.txt'))
    with files.whole_files(folder, replaced=old) as partial:
      (partial / f'{text}.txt').write_text(text)
      assert old == list(folder.glob('*.txt'))
    if text == 'first':
      (folder / 'mine').touch()
  assert {path.name for path in folder.iterdir()} == {'mine', 'second.txt'}
  broken_off = pytest.raises(KeyboardInterrupt)
  with broken_off, files.whole_files(folder) as partial:
    (partial / 'third.txt').write_text('half')
    raise KeyboardInterrupt
  assert (folder / 'second.txt').read_text() == 'second'
  assert list(tmp_path.rglob('third.txt')) == []
  assert [path.name for path in folder.parent.iterdir()] == ['files']


def test_unwritable_folder_raises_before_work(tmp_path):
  files.check_writable(tmp_path / 'new' / 'folder')
  assert not list(tmp_path.iterdir())
  with pytest.raises(ValueError, match='/proc/x cannot be written to: /proc: '):
    files.check_writable('/proc/x')
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='file/run cannot be written to: .*file'):
    files.check_writable(tmp_path / 'file' / 'run')
  with pytest.raises(ValueError, match='gs://bucket is a URL: .* mounted'):
    files.check_writable('gs://bucket')


def test_counts_and_lists():
  assert files.count_of(1, 'mask') == '1 mask'
  assert files.count_of(2, 'mask') == '2 masks'
  assert files.list_first(['a', 'b', 'c'], 2) == '\n  a\n  b\n  (+1 more)'
