"""The benchmarks' command line: wrong flags and absent files, one message."""

import re

from absl import app, flags

from input_pipeline import command_line as input_command_line


def run(main, define_flags):
  """Runs a benchmark; what a person can put right ends it without a trace.

  Args:
    main: what `app.run` calls.
    define_flags: defines main's flags, here and not at import: two benchmarks
      that both have a --workdir can then be imported by one program.
  """
  define_flags()

  def guarded(argv):
    with input_command_line.ending_in_one_message():
      main(argv)

  app.run(guarded)


def require_choices(flag, choices):
  """Refuses a list flag that names anything but these."""
  flags.register_validator(
    flag,
    lambda values: bool(values) and set(values) <= set(choices),
    f'use one or more of {", ".join(choices)}',
  )


def require_sizes(flag):
  """Refuses a flag, or an entry of a list flag, that is not WIDTHxHEIGHT."""
  flags.register_validator(
    flag,
    lambda value: bool(value) and all(map(_is_size, _as_list(value))),
    'use WIDTHxHEIGHT, multiples of 32, as 640x192',
  )


def require_integers(flag, least):
  """Refuses a list flag with an entry that is not an integer or too small."""
  flags.register_validator(
    flag,
    lambda values: (
      bool(values)
      and all(value.isdigit() and int(value) >= least for value in values)
    ),
    f'use whole numbers of {least} or more',
  )


def _as_list(value):
  return [value] if isinstance(value, str) else value


def _is_size(text):
  match = re.fullmatch(r'(\d+)x(\d+)', text)
  return bool(match) and all(
    int(number) and int(number) % 32 == 0 for number in match.groups()
  )
