"""Flags of commands that define them when they run."""

import contextlib
import re

from absl import flags


@contextlib.contextmanager
def flags_of(*commands):
  """Defines the flags of command modules; yields their names."""
  before = set(flags.FLAGS)
  for command in commands:
    command.define_flags()
  names = set(flags.FLAGS) - before
  try:
    yield names
  finally:
    for name in names:
      delattr(flags.FLAGS, name)


def check_docstring(command):
  """Asserts that a command accepts the flags of its docstring's examples."""
  example = re.search(r'  python -m .*?\n\n', command.__doc__, re.S)[0]
  assert f'python -m {command.__name__}' in example
  with flags_of(command) as names:
    assert set(re.findall(r'--(\w+)', example)) <= names
    flags.FLAGS(['test', *re.findall(r'--\w+=\S+', example)])
