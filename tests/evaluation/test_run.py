"""The mode `evaluate`: its table, its files and its early messages."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from sgde_jax import metrics
from sgde_jax.evaluation import run
from tests.support import kitti_folder, runs


@pytest.mark.slow
def test_mode_evaluate_writes_the_table(trained, tmp_path):
  for name in ('checkpoints', 'config.json'):
    os.symlink(trained / name, tmp_path / name)
  output, _ = runs.run_main('--mode=evaluate', f'--workdir={tmp_path}')
  head, row, last = output.splitlines()[:3]
  assert head.split() == list(metrics.depth.DEPTH_ERRORS)
  assert row.split()[:2] == ['step', '20']
  assert last.startswith('3 images; truth lidar')
  results = json.loads((tmp_path / 'evaluation/metrics.json').read_text())
  assert results['step'] == 20
  assert results['images'] == 3
  for name, printed in zip(
    metrics.depth.DEPTH_ERRORS, row.split()[2:], strict=True
  ):
    assert float(printed) == pytest.approx(results[name], abs=5e-5)
    # As when training ended.
    during = runs.read_scalars(trained, f'eval/{name}')[20]
    assert results[name] == pytest.approx(during, rel=1e-6)
  with open(tmp_path / 'evaluation/per_image.csv') as file:
    rows = list(csv.DictReader(file))
  assert [row['index'] for row in rows] == ['0', '1', '2']
  names = [f'{kitti_folder.DRIVE} {frame} l' for frame in (0, 3, 5)]
  assert [row['example'] for row in rows] == names
  mean = np.mean([float(row['abs_rel']) for row in rows])
  assert mean == pytest.approx(results['abs_rel'])
  for index in (0, 1):
    panel = Image.open(tmp_path / f'pictures/eval_{index:06d}.png')
    assert np.array(panel).std() > 0


@pytest.mark.parametrize('name', ['absent', 'empty'])
def test_missing_run_raises(root, tmp_path, one_device, name):
  (tmp_path / 'empty').mkdir()
  workdir = tmp_path / name
  with pytest.raises(FileNotFoundError, match='no checkpoint .*train first'):
    run.evaluate(runs.make_config(root), workdir)
  assert not list(tmp_path.glob('absent'))


def test_no_street_is_rendered_for_a_missing_run(tmp_path, one_device):
  street = tmp_path / 'street'
  config = runs.make_config(street, data__source='street', eval__odometry=True)
  with pytest.raises(FileNotFoundError, match='no checkpoint'):
    run.evaluate(config, tmp_path / 'run')
  assert not street.exists()


def test_indivisible_batch_size_raises(root, tmp_path):
  config = runs.make_config(root, eval__batch_size=12)
  with pytest.raises(ValueError, match='config.eval.batch_size = 12'):
    run.evaluate(config, tmp_path)
