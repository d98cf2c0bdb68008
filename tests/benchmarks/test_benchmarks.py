"""Tests of the benchmarks' tables and flags; their times mean nothing here."""

import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import (
  attention,
  input_pipeline,
  measuring,
  predict,
  train_step,
)
from tests.support import commands


@pytest.mark.parametrize(
  'command',
  [attention, input_pipeline, predict, train_step],
  ids=lambda command: command.__name__,
)
def test_command_accepts_the_flags_of_its_examples(command):
  commands.check_docstring(command)


def test_unknown_work_raises():
  with commands.flags_of(train_step):
    flags.FLAGS(['test'])
    changed = flagsaver.as_parsed(works='train,predic')
    with pytest.raises(flags.IllegalFlagValueError, match='works'), changed:
      pass


def test_row_contains_medians_over_the_rounds(capsys):
  def rounds(*milliseconds):
    return [
      train_step.Times(ms, ms / 100, 2**30, '2 cpu') for ms in milliseconds
    ]

  case = measuring.Case('predict', 'full', 640, 192, 4, 'float32')
  first, full = rounds(900, 200, 100), rounds(100, 600, 500)
  table = measuring.Table(train_step.COLUMNS, width=9)
  table.add(*train_step.summarize(case, full, first))
  header, rule, row = capsys.readouterr().out.splitlines()
  assert len(header) == len(rule) == len(row)
  assert [cell.strip() for cell in row.strip('|').split('|')] == (
    'predict full 640x192 4 float32,2 cpu,500.0,2.50,8.00,5.0,1.00'.replace(
      ' ', ',', 4
    ).split(',')
  )


@pytest.mark.slow
def test_attention_is_timed_if_memory_allows(capsys):
  with commands.flags_of(attention), flagsaver.flagsaver():
    small = ['test', '--quick', '--size=32,64', '--key_strides=1', '--levels=3']
    flags.FLAGS(small)
    attention.main([])
    flags.FLAGS([*small, '--memory_limit=0'])
    attention.main([])
  timed, limited = capsys.readouterr().out.splitlines()[3::5]
  assert timed.split('|')[1:4] == limited.split('|')[1:4]
  assert timed.count(' - ') == 0 and limited.count(' - ') == 2


def test_ratios_are_of_the_same_rounds():
  assert predict.compare([2, 6, 6], [1, 2, 4]) == (2, 1.5, 3)
