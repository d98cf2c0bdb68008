"""Records in a run's folder."""

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
