"""Tests of `analysis.ablation`."""

import json

import pytest
from absl import flags
from absl.testing import flagsaver

from analysis import ablation
from tests.support import commands


@pytest.fixture(name='runs_folder')
def fixture_runs_folder(tmp_path):
  """Two parts with two finished seeds, one with an unfinished third."""
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


@pytest.fixture(name='parsed')
def fixture_parsed():
  """The flags at their defaults."""
  with commands.flags_of(ablation):
    flags.FLAGS(['test'])
    yield


@pytest.mark.parametrize(
  ('flag', 'value', 'advice'),
  [
    ('parts', 'baseline,foo', 'parts'),
    ('seeds', '0,one', 'seeds'),
    ('frames', '2', 'integer >= 3'),
  ],
)
@pytest.mark.usefixtures('parsed')
def test_wrong_flag_raises(flag, value, advice):
  changed = flagsaver.as_parsed(**{flag: value})
  with pytest.raises(flags.IllegalFlagValueError, match=advice), changed:
    pass


@pytest.mark.usefixtures('parsed')
def test_finished_runs_are_reported(runs_folder):
  with flagsaver.as_parsed(steps='5', parts='baseline,full', seeds='0,1,2'):
    assert ablation.read_final(runs_folder / 'full_2') is None
    results = ablation.collect(runs_folder)
    table = ablation.format_table(results)
    ablation.draw(results, runs_folder / 'plot.png')
  assert '| abs_rel | 0.4000 +- 0.1414 | 0.2000 +- 0.0000 |' in table
  assert '| thin classes | 0.8000 +- 0.2828 | 0.4000 +- 0.0000 |' in table
  assert '| mIoU | - | - |' in table
  assert (runs_folder / 'plot.png').stat().st_size > 1000


@pytest.mark.usefixtures('parsed')
def test_settings_follow_from_the_flags(tmp_path):
  chosen = ['eval_every=5', 'loss.scale_weight=0']
  with flagsaver.as_parsed(steps='9', set=chosen):
    settings = ablation.make_settings(tmp_path)
  assert (settings['num_steps'], settings['eval_every']) == ('9', '5')
  assert settings['loss.scale_weight'] == '0'
  for field in ('num_steps', 'seed', 'data.street.frames'):
    changed = flagsaver.as_parsed(set=[f'{field}=1'])
    with changed, pytest.raises(ValueError, match=f'--set={field}: use its'):
      ablation.make_settings(tmp_path)


def test_settings_are_fixed_by_the_first_run(tmp_path):
  ablation.check_settings(tmp_path, {'model.encoder_layer': '10'})
  ablation.check_settings(tmp_path, {'model.encoder_layers': '10'})
  (tmp_path / 'full_0').mkdir()
  (tmp_path / 'full_0' / 'config.json').write_text('{}')
  ablation.check_settings(tmp_path, {'model.encoder_layers': '10'})
  with pytest.raises(ValueError, match='another model.encoder_layers: use'):
    ablation.check_settings(tmp_path, {'model.encoder_layers': '18'})


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
