"""What `split_making` says of its lists: a summary, and the same as text."""

import collections

from input_pipeline import files

_FRAMES_PER_HOUR = 36000  # KITTI's 10 Hz


def summarize(drives, excluded, train, validation, arguments):
  """Counts what was kept and what was dropped.

  Args:
    drives: the `split_making.Drive`s that were looked at.
    excluded: name of a drive -> why none of its frames is listed.
    train: list of `splits.Example`.
    validation: likewise.
    arguments: what was asked for.

  Returns:
    A dict, as summary.json holds it.
  """
  parts = {'train': train, 'validation': validation}
  frames = {
    part: collections.Counter(line.drive for line in lines)
    for part, lines in parts.items()
  }
  moments = {
    part: {(line.drive, line.frame) for line in lines}
    for part, lines in parts.items()
  }
  return {
    'arguments': arguments,
    'split_by': 'time'
    if set(frames['train']) & set(frames['validation'])
    else 'drive',
    **{
      part: {
        'drives': len(frames[part]),
        'frames': len(lines),
        'hours': round(len(moments[part]) / _FRAMES_PER_HOUR, 4),
      }
      for part, lines in parts.items()
    },
    'dropped': dict(
      sum((drive.dropped for drive in drives), collections.Counter())
    ),
    'excluded': excluded,
    'lacks_cameras': dict(
      collections.Counter(side for drive in drives for side in drive.lacking)
    ),
    'drives': {
      drive.name: {
        **{part: frames[part][drive.name] for part in parts},
        'dropped': dict(+drive.dropped),
        'judged_by': dict(drive.judged_by),
        'lacks_cameras': drive.lacking,
      }
      for drive in drives
    },
  }


def describe(summary):
  """Makes a summary readable.

  Args:
    summary: what `summarize` returned.

  Returns:
    List of lines: the drives, what was excluded, the totals.
  """
  lines = [
    _describe_drive(name, drive) for name, drive in summary['drives'].items()
  ]
  lines += [
    f'{name}: excluded, {reason}'
    for name, reason in summary['excluded'].items()
  ]
  if summary['split_by'] == 'time':
    lines.append(
      'a single drive is left, so it is split by time: its last '
      'part validates, after a gap'
    )
  for part in ('train', 'validation'):
    total = summary[part]
    frames, drives = (
      files.count_of(total[f'{what}s'], what) for what in ('frame', 'drive')
    )
    lines.append(f'{part}: {frames} from {drives}, {total["hours"]} hours')
  lines.append(f'dropped frames: {list_counts(summary["dropped"]) or "none"}')
  lines += [
    f'{files.count_of(count, "drive")} without camera {side}'
    for side, count in summary['lacks_cameras'].items()
  ]
  return lines


def _describe_drive(name, drive):
  parts = {part: drive[part] for part in ('train', 'validation') if drive[part]}
  text = f'{name}: {list_counts(parts) or "nothing kept"}'
  if drive['dropped']:
    text += f'; dropped {list_counts(drive["dropped"])}'
  methods = list_counts(
    {f'by {method}': count for method, count in drive['judged_by'].items()}
  )
  return f'{text}; standing judged: {methods or "no"}'


def list_counts(counts):
  """Says `3 standing, 2 no neighbour` of {standing: 3, no neighbour: 2}."""
  return ', '.join(f'{count} {what}' for what, count in counts.items())
