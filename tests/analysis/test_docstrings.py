"""The commands accept the flags of their docstrings' examples."""

import pytest

from analysis import (
  ablation,
  border_oracle,
  compare,
  edge_points,
  method_figure,
  panel_figure,
  seeds,
)
from tests.support import commands


@pytest.mark.parametrize(
  'command',
  [
    ablation,
    border_oracle,
    compare,
    edge_points,
    method_figure,
    panel_figure,
    seeds,
  ],
  ids=lambda command: command.__name__,
)
def test_command_accepts_the_flags_of_its_examples(command):
  commands.check_docstring(command)
