"""Records in a run's folder."""

import numpy as np

from sgde_jax import run_files


def test_lines_that_are_not_entries_are_skipped(tmp_path):
  lines = [b'{"step": 1, "loss": 2.0}', b'\xc3\x28', b'5', b'null', b'{"st']
  (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join(lines))
  assert run_files.read_entries(tmp_path) == [{'step': 1, 'loss': 2.0}]


def test_starts_are_read(tmp_path):
  assert run_files.read_starts(tmp_path) == []
  lines = '{"step": 0, "version": "0.2.0"}\n{"step": 5, "version": "0.3.0"}\n'
  (tmp_path / 'configs.jsonl').write_text(lines)
  assert run_files.read_starts(tmp_path)[-1]['version'] == '0.3.0'


def _evaluation(confusion=None):
  images = [
    {'index': 0, 'example': 'a 1 l', 'abs_rel': 0.1, 'ratio': 31.5},
    {'index': 1, 'example': 'a 2, r', 'abs_rel': 1 / 3, 'ratio': 32.0},
  ]
  made = {'step': 20, 'protocol': 'crop garg', 'list': 'test.txt'}
  return run_files.Evaluation(made, {'abs_rel': 0.2}, images, confusion)


def test_evaluation_is_read_back(tmp_path):
  assert run_files.read_evaluation(tmp_path) is None
  confusion = np.arange(361).reshape(19, 19)
  run_files.write_evaluation(tmp_path, _evaluation(confusion))
  found = run_files.read_evaluation(tmp_path)
  np.testing.assert_array_equal(found.confusion, confusion)
  run_files.write_evaluation(tmp_path, _evaluation())
  assert run_files.read_evaluation(tmp_path) == _evaluation()
