"""Checks the masks of a folder, or gives masks their colours.

The command line of `python -m input_pipeline.tools.labels`; see there.
"""

import argparse
import sys

from input_pipeline import cityscapes, command_line
from input_pipeline.tools import check_labels, colour_labels


def main(arguments=None):
  """Parses the command line and runs the command.

  Exits with 1 where a check finds something wrong or nothing could be done.
  """
  parser = argparse.ArgumentParser(
    prog='python -m input_pipeline.tools.labels', description='Label masks.'
  )
  commands = parser.add_subparsers(dest='command', required=True)
  for name, text, paths in (
    (
      'check',
      'coverage, classes, and what is wrong with the masks of a '
      'folder in the layout of KITTI raw, KITTI semantic or Cityscapes',
      ('root',),
    ),
    (
      'colour',
      'write masks as palette pictures: their values are train ids, '
      "and viewers show Cityscapes' colours",
      ('input', 'output'),
    ),
  ):
    command = commands.add_parser(name, help=text, description=text)
    for path in paths:
      command.add_argument(path, type=command_line.local_path)
    command.add_argument(
      '--coding',
      choices=cityscapes.CODINGS,
      help='what the values of the masks mean; guessed if not given',
    )
  options = parser.parse_args(arguments)
  with command_line.report_errors():
    if options.command == 'check':
      report = check_labels.check(options.root, coding=options.coding)
      print(report)
      sys.exit(1 if report.problems else 0)
    print(
      colour_labels.colour(options.input, options.output, coding=options.coding)
    )


if __name__ == '__main__':
  main()
