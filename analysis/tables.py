"""Markdown tables for the output of the commands."""

from collections.abc import Iterable


def markdown(header: str, rows: Iterable[Iterable[str]]) -> str:
  """Returns a table with a head such as `step | loss`."""
  rule = '|---' * (1 + header.count('|'))
  lines = [header, *(' | '.join(cells) for cells in rows)]
  head, *body = (f'| {line} |' for line in lines)
  return '\n'.join([head, f'{rule}|', *body])
