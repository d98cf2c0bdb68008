"""Tables: a row per step in the field's order."""

from sgde_jax import metrics
from sgde_jax.evaluation import tables


def _summary(value):
  errors = dict.fromkeys(metrics.depth.DEPTH_ERRORS, value)
  return errors | {'images': 3, 'ratio': 2.0, 'ratio_std': 0.5}


def test_depth_has_a_row_per_step():
  text = tables.format_depth({20: _summary(0.3), 5: _summary(0.1)}, 'PROTOCOL')
  head, *rows, made = text.splitlines()
  assert head.split() == list(metrics.depth.DEPTH_ERRORS)
  assert rows[0].split() == ['step', '5', *['0.1000'] * 7]
  assert rows[1].split() == ['step', '20', *['0.3000'] * 7]
  assert len({len(line) for line in (head, *rows)}) == 1
  assert made == (
    '3 images; PROTOCOL; scale ratio median 2.000, deviation 0.500'
  )
