"""The benchmarks' own arithmetic: paired bootstrap, ablation table."""

import contextlib
import importlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from analysis import ablation, border_oracle, compare, seeds
from benchmarks import train_step
from tests.support import kitti_folder, runs


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


@pytest.mark.parametrize(
  ('other', 'named'),
  [
    (['a 1 l', 'a 3 l'], 'index 1: a 2 l and a 3 l'),
    (['a 1 l'], 'index 1: a 2 l and None'),
  ],
)
def test_different_images_are_refused(other, named):
  compare.check_examples(['a 1 l', 'a 2 l'], ['a 1 l', 'a 2 l'])
  with pytest.raises(ValueError, match=f'different images, .*{named}'):
    compare.check_examples(['a 1 l', 'a 2 l'], other)


def test_evaluations_that_were_made_otherwise_are_refused(tmp_path):
  for name, crop in (('a', 'garg'), ('b', 'garg'), ('c', 'none')):
    folder = tmp_path / name / 'evaluation'
    folder.mkdir(parents=True)
    (folder / 'metrics.json').write_text(json.dumps({'protocol': crop}))
  compare.check_protocols(tmp_path / 'a', tmp_path / 'b')
  with pytest.raises(ValueError, match='a was .* garg, .*c with none: eval'):
    compare.check_protocols(tmp_path / 'a', tmp_path / 'c')


def test_a_figure_that_a_run_lacks_is_named():
  run = {5: {'abs_rel': 0.2, 'a1': 0.5}}
  assert seeds.format_rows([run, run], [5], 'abs_rel')
  with pytest.raises(ValueError, match='--metrics=absrel: .* abs_rel, a1'):
    seeds.format_rows([run, run], [5], 'absrel')


def test_images_are_read_in_order(tmp_path):
  with pytest.raises(FileNotFoundError, match='--mode=evaluate'):
    compare.read_images(tmp_path)
  path = tmp_path / 'evaluation/per_image.csv'
  path.parent.mkdir()
  path.write_text('index,abs_rel\n10,.1\n')
  with pytest.raises(ValueError, match='does not name .*--mode=evaluate'):
    compare.read_images(tmp_path)
  path.write_text('index,example,abs_rel\n10,a 7 l,.1\n9,a 6 l,3\n')
  examples, columns = compare.read_images(tmp_path)
  assert examples == ['a 6 l', 'a 7 l']
  np.testing.assert_array_equal(columns['abs_rel'], [3, 0.1])


@pytest.fixture(name='runs_folder')
def fixture_runs_folder(tmp_path):
  """Two parts with two finished seeds, one of them broken off in a third."""
  values = {'baseline': (0.3, 0.5), 'full': (0.2, 0.2)}
  for part, figures in values.items():
    for seed, value in enumerate(figures):
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


@contextlib.contextmanager
def _flags_of(*benchmarks):
  """Defines the flags of these benchmarks and yields their names."""
  before = set(flags.FLAGS)
  for benchmark in benchmarks:
    benchmark.define_flags()
  names = set(flags.FLAGS) - before
  try:
    yield names
  finally:
    for name in names:
      delattr(flags.FLAGS, name)


@pytest.fixture(name='parsed')
def fixture_parsed():
  """The flags of two benchmarks, the one without a default given."""
  with _flags_of(ablation, border_oracle):
    flags.FLAGS(['test', '--workdir=unused'])
    yield


@pytest.mark.parametrize(
  'name',
  [
    'ablation',
    'attention',
    'border_oracle',
    'compare',
    'edge_points',
    'input_pipeline',
    'method_figure',
    'seeds',
    'train_step',
  ],
)
def test_a_benchmark_takes_the_flags_of_its_own_example(name):
  benchmark = importlib.import_module(f'benchmarks.{name}')
  command = re.search(r'python -m benchmarks.*?\n\n', benchmark.__doc__, re.S)
  with _flags_of(benchmark) as names:
    assert names
    assert set(re.findall(r'--(\w+)', command[0])) <= names
    # Nor is a default refused.
    flags.FLAGS(['test', *re.findall(r'--\w+=\S+', command[0])])


@pytest.mark.parametrize(
  ('flag', 'value', 'advice'),
  [
    ('parts', 'baseline,foo', 'use one or more of baseline, semantics'),
    ('size', '192', 'use WIDTHxHEIGHT'),
    ('size', '200x64', 'multiples of 32'),
    ('seeds', '0,one', 'whole numbers of 0 or more'),
    ('widths', '0', 'whole numbers of 1 or more'),
    ('set', 'model.dtype', 'use FIELD=VALUE'),
    ('drives', '2', '--drives above --test_drives'),
    ('frames', '2', 'integer >= 3'),
  ],
)
@pytest.mark.usefixtures('parsed')
def test_a_wrong_flag_is_refused_with_advice(flag, value, advice):
  changed = flagsaver.as_parsed(**{flag: [value] if flag == 'set' else value})
  with pytest.raises(flags.IllegalFlagValueError, match=advice), changed:
    pass


def test_an_absent_file_ends_a_benchmark_with_one_message():
  result = subprocess.run(
    [sys.executable, '-m', 'analysis.compare', '--first=a', '--second=b'],
    cwd=kitti_folder.REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 1
  assert result.stderr.startswith('FileNotFoundError: there is no a/evaluation')
  assert len(result.stderr.splitlines()) == 1


def test_a_row_of_times_holds_medians_over_the_rounds():
  def rounds(*milliseconds):
    return [(ms, ms / 100, 2**30, '2 cpu') for ms in milliseconds]

  first, full = rounds(900, 200, 100), rounds(100, 600, 500)
  row = train_step._format_row(
    'full', full, first, 'predict', '640x192', '4', 'float32'
  )
  assert ' '.join(row.split()) == (
    'predict full 640x192 4 float32 2 cpu 500.0 2.50 8.00 5.0 1.00'
  )


@pytest.mark.usefixtures('parsed')
def test_ablation_reports_finished_runs(runs_folder):
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


@pytest.mark.usefixtures('parsed')
@pytest.mark.parametrize('given', [None, 'elsewhere'])
def test_ablations_share_compiled_programs(given, tmp_path, monkeypatch):
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  if given:
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', given)
  # In place of main.py, a program that tells where it would keep them.
  (tmp_path / 'main.py').write_text(
    'import os; print(os.environ["JAX_COMPILATION_CACHE_DIR"],'
    ' file=open("told", "w"))'
  )
  module = tmp_path / 'benchmarks' / 'ablation.py'
  monkeypatch.setattr(ablation, '__file__', str(module))
  with flagsaver.as_parsed(output=str(tmp_path / 'runs')):
    ablation.train('full', 0, {})
  told = (tmp_path / 'told').read_text().strip()
  assert told == (given or str(tmp_path / 'runs' / 'compiled'))


@pytest.mark.usefixtures('parsed')
def test_ablation_settings_follow_from_its_flags(tmp_path):
  chosen = ['eval_every=5', 'loss.scale_weight=0']
  with flagsaver.as_parsed(output=str(tmp_path), steps='9', set=chosen):
    settings = ablation.make_settings()
  assert (settings['num_steps'], settings['eval_every']) == ('9', '5')
  assert settings['loss.scale_weight'] == '0'
  for field in ('num_steps', 'seed', 'data.street.frames'):
    changed = flagsaver.as_parsed(output=str(tmp_path), set=[f'{field}=1'])
    refused = pytest.raises(ValueError, match=f'--set={field}: set by flags of')
    with changed, refused:
      ablation.make_settings()


@pytest.mark.usefixtures('parsed')
def test_settings_bind_once_a_run_has_started(tmp_path):
  with flagsaver.as_parsed(output=str(tmp_path)):
    ablation.check_settings({'model.encoder_layer': '10'})  # Refused later.
    ablation.check_settings({'model.encoder_layers': '10'})
    (tmp_path / 'full_0').mkdir()
    (tmp_path / 'full_0' / 'config.json').write_text('{}')
    ablation.check_settings({'model.encoder_layers': '10'})
    with pytest.raises(ValueError, match='another model.encoder_layers: use'):
      ablation.check_settings({'model.encoder_layers': '18'})


def test_results_are_written_between_the_marks(tmp_path):
  path = tmp_path / 'RESULTS.md'
  path.write_text('before\n<!-- ablation -->\nold\n<!-- /ablation -->\nafter\n')
  ablation.write_results(path, 'new')
  assert path.read_text() == (
    'before\n<!-- ablation -->\nnew\n<!-- /ablation -->\nafter\n'
  )
  path.write_text('no marks')
  with pytest.raises(ValueError, match='lacks'):
    ablation.write_results(path, 'new')


def test_cut_borders_are_those_of_two_planes():
  labels = np.zeros((6, 12), np.uint8)
  labels[:, 6:] = 13
  sharp = np.where(labels == 13, 0.5, 0.1)
  blurred = sharp.copy()
  blurred[:, 4:8] = (0.1, 0.2, 0.4, 0.5)
  np.testing.assert_array_equal(
    border_oracle.cut_borders(blurred, labels, 1), sharp
  )
  # Nothing but the border's pixels may change.
  slope = np.linspace(0.1, 0.6, 12) * np.ones((6, 1))
  changed = border_oracle.cut_borders(slope, labels, 2) != slope
  assert np.flatnonzero(changed[0]).tolist() == [4, 5, 6, 7]


def test_a_pole_keeps_what_it_has_farthest_inside():
  labels = np.zeros((5, 9), np.uint8)
  labels[:, 3:6] = 5
  disparity = np.full(labels.shape, 0.1)
  disparity[:, 3:6] = (0.2, 0.5, 0.3)
  cut = border_oracle.cut_borders(disparity, labels, 3)
  np.testing.assert_array_equal(cut[:, 3:6], 0.5)
  np.testing.assert_array_equal(cut[:, [0, 1, 2, 6, 7, 8]], 0.1)


def test_borders_are_cut_by_labels_and_by_predicted_classes():
  labels = np.zeros((6, 12), np.uint8)
  labels[:, 6:] = 13
  predicted = np.zeros((3, 6), np.uint8)  # At half the size, two pixels off.
  predicted[:, 4:] = 13
  slope = np.linspace(0.1, 0.6, 12) * np.ones((6, 1))
  rows = border_oracle.cut_by_all(slope, labels, predicted, [1])
  changed = {
    name: np.flatnonzero(cut[0] != slope[0]).tolist()
    for name, cut in rows.items()
  }
  assert changed == {
    'cut by labels, 1 px': [5, 6],
    'cut by predicted classes, 1 px': [7, 8],
  }
  rows = border_oracle.cut_by_all(slope, labels, None, [1])
  assert list(rows) == ['cut by labels, 1 px']


@pytest.mark.slow
def test_the_oracle_of_a_run_shows_what_seem_changed(root, trained, one_device):
  without = runs.make_config(root, data__ground_truth='none')
  with pytest.raises(ValueError, match='ground_truth is none'):
    border_oracle.apply_oracle(without, trained, [1])
  figures = border_oracle.apply_oracle(runs.make_config(root), trained, [1])
  assert set(figures) == {
    'as predicted',
    'without SEEM',
    'cut by labels, 1 px',
    'cut by predicted classes, 1 px',
  }
  errors = {row: values['abs_rel/border_3'] for row, values in figures.items()}
  assert np.isfinite(list(errors.values())).all()
  # Every pixel of random labels is a border: there is no inside to take.
  assert errors['cut by labels, 1 px'] == errors['as predicted']
  for row in ('without SEEM', 'cut by predicted classes, 1 px'):
    assert errors[row] != errors['as predicted']


def test_measures_the_image_up_to_its_scale():
  labels = np.zeros((6, 12), np.uint8)
  labels[:, 6:] = 13
  truth = np.where(labels == 13, 5.0, 20.0)
  options = {'crop': 'none', 'median_scaling': True}
  figures = border_oracle.measure(truth, 7 / truth, labels, options).finalize()
  assert figures['abs_rel/border_1'] == pytest.approx(0, abs=1e-12)
  wrong = 1 / np.where(labels == 13, 10.0, 20.0)
  options['median_scaling'] = False
  figures = border_oracle.measure(truth, wrong, labels, options).finalize()
  assert figures['abs_rel/border_1'] == pytest.approx(0.5)
  assert figures['abs_rel/car'] == pytest.approx(1)
