"""Tests of input_pipeline.splits."""

import re

import hypothesis
import pytest
from hypothesis import strategies as st

from input_pipeline import splits

LINE = '2011_09_26/2011_09_26_drive_0022_sync 473 r'


def test_reads_the_published_format(tmp_path):
  path = tmp_path / 'train.txt'
  path.write_text(f'\ufeff# comment\r\n\n{LINE}\r\n  1 0000000069\tl  \n')
  examples = splits.read_split(path)
  assert examples == [
    splits.Example('2011_09_26/2011_09_26_drive_0022_sync', 473, 'r'),
    splits.Example('1', 69, 'l'),
  ]
  assert [example.camera for example in examples] == [3, 2]
  assert str(examples[0]) == LINE


@pytest.mark.parametrize(
  'line',
  [
    'drive 473',
    'drive 473 l extra',
    'drive 4_7 l',
    'drive -1 l',
    'drive 47 L',
    'drive 12345678901 l',
    '/drive 47 l',
    '../drive 47 l',
    'a/../../drive 47 l',
  ],
)
def test_bad_line_is_named(tmp_path, line):
  path = tmp_path / 'train.txt'
  path.write_text(f'# comment\n{LINE}\n{line}\n')
  with pytest.raises(ValueError, match=f'train.txt, line 3: expected .*{line}'):
    splits.read_split(path)


def test_empty_lists_raise(tmp_path):
  path = tmp_path / 'train.txt'
  path.write_text('# nothing\n\n')
  with pytest.raises(ValueError, match='train.txt has no example'):
    splits.read_split(path)
  with pytest.raises(ValueError, match='LIST has no example'):
    splits.parse_lines([], source='LIST')


def test_find_split(tmp_path, monkeypatch):
  root, here = tmp_path / 'root', tmp_path / 'here'
  for folder in (root, here):
    folder.mkdir()
    (folder / 'both.txt').touch()
  (root / 'below.txt').touch()
  monkeypatch.chdir(here)
  assert splits.find_split('both.txt', str(root)) == 'both.txt'
  assert splits.find_split('below.txt', str(root)) == str(root / 'below.txt')
  absolute = str(here / 'both.txt')
  assert splits.find_split(absolute, str(root)) == absolute
  with pytest.raises(FileNotFoundError, match='absent.txt.*train_split'):
    splits.find_split('absent.txt', str(root))


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
  drive=st.text('ab01_/.', min_size=1).filter(
    lambda drive: not re.match(r'/|\.\.', drive) and '/..' not in drive
  ),
  frame=st.integers(0, 10**10 - 1),
  side=st.sampled_from('lr'),
)
def test_round_trip(drive, frame, side):
  example = splits.Example(drive.rstrip('/'), frame, side)
  assert splits.parse_lines([str(example)], source='LIST') == [example]


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
  content=st.one_of(
    st.binary(max_size=60),
    st.text('ab/_ 0123lr#\n\t.-', max_size=60).map(str.encode),
  )
)
def test_any_content_parses_or_names_file_and_line(tmp_path_factory, content):
  path = tmp_path_factory.mktemp('splits') / 'train.txt'
  path.write_bytes(content)
  try:
    examples = splits.read_split(path)
  except ValueError as error:
    assert re.search(r'train\.txt(, line \d+: | has no example)', str(error))
  else:
    assert splits.parse_lines(map(str, examples), source='LIST') == examples
