"""The benchmarks' own arithmetic: paired bootstrap, ablation table."""

import csv
import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import ablation, compare


def _columns(shift=0.0, images=40):
  rng = np.random.default_rng(0)
  count = rng.integers(0, 50, images).astype(float)
  return {
    'index': np.arange(images, dtype=float),
    'abs_rel': rng.uniform(0.1, 0.3, images) + shift,
    'abs_rel/thin:sum': count * (0.4 + shift),
    'abs_rel/thin:count': count,
  }


def test_a_constant_change_is_found_for_certain():
  for name, figure in (('abs_rel', None), ('abs_rel/thin', 0.4)):
    one, other, low, high, share = compare.compare(
      _columns(), _columns(-0.05), name, resamples=200, seed=0
    )
    assert one - other == pytest.approx(0.05)
    assert low == pytest.approx(-0.05) and high == pytest.approx(-0.05)
    assert share == 1
    assert figure is None or one == pytest.approx(figure)


def test_noise_is_not_mistaken_for_a_change():
  rng = np.random.default_rng(1)
  noisy = _columns()
  noisy['abs_rel'] = noisy['abs_rel'] + rng.normal(0, 0.02, 40)
  *_, low, high, share = compare.compare(
    _columns(), noisy, 'abs_rel', resamples=500, seed=0
  )
  assert low < 0 < high
  assert 0.02 < share < 0.98


def test_different_images_are_refused():
  with pytest.raises(ValueError, match='different images'):
    compare.compare(
      _columns(images=40), _columns(images=39), 'abs_rel', resamples=9, seed=0
    )


def test_columns_are_read_in_order(tmp_path):
  with pytest.raises(FileNotFoundError, match='--mode=evaluate'):
    compare.read_columns(tmp_path)
  (tmp_path / 'evaluation').mkdir()
  with open(tmp_path / 'evaluation/per_image.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, ['index', 'abs_rel'])
    writer.writeheader()
    writer.writerow({'index': 10, 'abs_rel': 0.1})
    writer.writerow({'index': 9, 'abs_rel': 3})
  np.testing.assert_array_equal(
    compare.read_columns(tmp_path)['abs_rel'], [3, 0.1]
  )


@pytest.fixture(name='runs_folder')
def fixture_runs_folder(tmp_path):
  """Two parts with two finished seeds, one of them broken off in a third."""
  values = {'baseline': (0.3, 0.5), 'full': (0.2, 0.2)}
  for part, seeds in values.items():
    for seed, value in enumerate(seeds):
      folder = tmp_path / f'{part}_{seed}'
      folder.mkdir()
      entries = [
        {'step': 0, 'eval/abs_rel': 9.0},
        {'step': 5, 'train/loss': 1.0},
        {'step': 5, 'eval/abs_rel': value, 'eval/abs_rel/thin': 2 * value},
      ]
      lines = [json.dumps(entry) for entry in entries]
      (folder / 'metrics.jsonl').write_text('\n'.join(lines))
  (tmp_path / 'full_2').mkdir()
  (tmp_path / 'full_2' / 'metrics.jsonl').write_text(lines[0])
  return tmp_path


def test_ablation_reports_finished_runs(runs_folder):
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['test', '--first=unused', '--second=unused'])
  with flagsaver.as_parsed(
    output=str(runs_folder), steps='5', parts='baseline,full', seeds='0,1,2'
  ):
    assert ablation.read_final('full', 2) is None
    results = ablation.collect()
    table = ablation.format_table(results)
    ablation.draw(results, runs_folder / 'plot.png')
  assert '| abs_rel | 0.4000 +- 0.1414 | 0.2000 +- 0.0000 |' in table
  assert '| thin classes | 0.8000 +- 0.2828 | 0.4000 +- 0.0000 |' in table
  assert '| mIoU | - | - |' in table
  assert (runs_folder / 'plot.png').stat().st_size > 1000


def test_results_are_written_between_the_marks(tmp_path):
  path = tmp_path / 'RESULTS.md'
  path.write_text('before\n<!-- ablation -->\nold\n<!-- /ablation -->\nafter\n')
  ablation.write_results(path, 'new')
  assert path.read_text() == (
    'before\n<!-- ablation -->\nnew\n<!-- /ablation -->\nafter\n'
  )
  path.write_text('no marks')
  with pytest.raises(SystemExit, match='lacks'):
    ablation.write_results(path, 'new')
