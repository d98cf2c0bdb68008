"""Tests of `analysis.compare` and `analysis.seeds`."""

import json

import numpy as np
import pytest
from absl import flags

from analysis import compare, seeds
from tests.support import commands


def _columns(shift=0.0, images=40):
  rng = np.random.default_rng(0)
  count = rng.integers(0, 50, images).astype(float)
  return {
    'index': np.arange(images, dtype=float),
    'abs_rel': rng.uniform(0.1, 0.3, images) + shift,
    'abs_rel/thin:sum': count * (0.4 + shift),
    'abs_rel/thin:count': count,
  }


def test_constant_change_has_a_narrow_interval():
  for name, figure in (('abs_rel', None), ('abs_rel/thin', 0.4)):
    one, other, low, high, share = compare.compare(
      _columns(), _columns(-0.05), name, resamples=200, seed=0
    )
    assert one - other == pytest.approx(0.05)
    assert low == pytest.approx(-0.05) and high == pytest.approx(-0.05)
    assert share == 1
    assert figure is None or one == pytest.approx(figure)


def test_interval_of_noise_is_around_zero():
  rng = np.random.default_rng(1)
  noisy = _columns()
  noisy['abs_rel'] = noisy['abs_rel'] + rng.normal(0, 0.02, 40)
  *_, low, high, share = compare.compare(
    _columns(), noisy, 'abs_rel', resamples=500, seed=0
  )
  assert low < 0 < high
  assert 0.02 < share < 0.98


@pytest.mark.parametrize(
  ('other', 'named'),
  [
    (['a 1 l', 'a 3 l'], 'a 2 l and a 3 l'),
    (['a 1 l'], 'a 2 l and None'),
  ],
)
def test_different_images_raise(other, named):
  compare.check_same('images', ['a 1 l', 'a 2 l'], ['a 1 l', 'a 2 l'])
  with pytest.raises(ValueError, match=f'different images, {named}: eval'):
    compare.check_same('images', ['a 1 l', 'a 2 l'], other)


@pytest.fixture(name='workdirs')
def fixture_workdirs(tmp_path):
  """Evaluations of the same images, the last by another protocol."""
  rows = 'index,example,abs_rel\n10,a 7 l,.1\n9,a 6 l,3\n'
  for name, crop in (('a', 'garg'), ('b', 'garg'), ('c', 'none')):
    folder = tmp_path / name / 'evaluation'
    folder.mkdir(parents=True)
    (folder / 'metrics.json').write_text(
      json.dumps({'step': 1, 'protocol': crop, 'list': 'test.txt'})
    )
    (folder / 'per_image.csv').write_text(rows)
  return tmp_path


def _run(workdirs, *names):
  first, second = (workdirs / name for name in names)
  with commands.flags_of(compare):
    flags.FLAGS(['test', f'--first={first}', f'--second={second}'])
    compare.main([])


def test_different_protocols_raise(workdirs, capsys):
  _run(workdirs, 'a', 'b')
  row = '| abs_rel | 1.5500 | 1.5500 | +0.0000 | +0.0000 to +0.0000 | 0 % |'
  assert capsys.readouterr().out.splitlines()[2:] == [row]
  with pytest.raises(ValueError, match='protocols, garg and none: evaluate'):
    _run(workdirs, 'a', 'c')


def test_images_are_read_in_order(workdirs):
  with pytest.raises(FileNotFoundError, match='--mode=evaluate'):
    compare.read_images(workdirs)
  protocol, examples, columns = compare.read_images(workdirs / 'a')
  assert (protocol, examples) == ('garg', ['a 6 l', 'a 7 l'])
  np.testing.assert_array_equal(columns['abs_rel'], [3, 0.1])


def test_seeds_row_contains_every_value_and_their_deviation():
  runs = [{5: {'abs_rel': 0.2}}, {5: {'abs_rel': 0.4}}]
  assert seeds.format_row(runs, 'abs_rel', 5) == [
    'abs_rel',
    '5',
    '0.2000 0.4000',
    '0.3000 +- 0.1414',
  ]
