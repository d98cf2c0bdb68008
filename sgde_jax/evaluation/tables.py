"""The figures of evaluations as aligned text tables."""

from collections.abc import Iterable, Mapping

from input_pipeline import cityscapes
from sgde_jax import metrics
from sgde_jax.metrics import trajectories

_Figures = Mapping[str, float]
_GROUPS = ('border_1', 'border_3', 'border_5', 'away', 'thin')
_SCORES = (
  'boundary_f1',
  'boundary_recall/objects',
  'boundary_recall/thin',
  'miou',
)
_MOTION_HEADS = {
  'frames': 'frames',
  'path_length': 'length',
  'snippet_error': 'snippet',
  'snippet_deviation': 'deviation',
  'monodepth2_error': 'monodepth2',
  'rmse': 'rmse',
  'scale': 'scale',
}  # Figure -> its column's head.


def format_depth(evaluations: Mapping[int, _Figures], protocol: str) -> str:
  """Formats summaries of `depth.Evaluator.run` by step, a row each.

  The protocol and the newest evaluation's scale ratios follow and, with labels,
  its errors at borders.
  """
  names, newest = metrics.depth.DEPTH_ERRORS, evaluations[max(evaluations)]
  rows = {
    f'step {step}': [evaluations[step][name] for name in names]
    for step in sorted(evaluations)
  }
  made = (
    f'{newest["images"]:.0f} images; {protocol}; scale ratio median'
    f' {newest["ratio"]:.3f}, deviation {newest["ratio_std"]:.3f}'
  )
  parts = [_align(names, rows), made, format_borders(newest)]
  return '\n'.join(filter(None, parts))


def format_borders(figures: _Figures) -> str:
  """Formats errors near borders and on thin classes; '' without labels."""
  if 'labelled' not in figures:
    return ''
  rows = {
    group: [figures[f'abs_rel/{group}'], figures[f'rmse/{group}']]
    for group in _GROUPS
    if f'abs_rel/{group}' in figures
  }
  if not rows:
    return 'no evaluated image has labels'
  scores = [f'{n} {figures[n]:.4f}' for n in _SCORES if n in figures]
  scores.append(f'labels on {100 * figures["labelled"]:.0f} % of the images')
  return '\n'.join([_align(('abs_rel', 'rmse'), rows), '  '.join(scores)])


def format_stills(figures: _Figures, folder: str) -> str:
  """Formats the IoU of every class; `-` for one that does not occur."""
  rows = {name: [figures.get(f'iou/{name}')] for name in cityscapes.NAMES}
  rows['mean'] = [figures.get('miou')]
  return f'{_align(["iou"], rows)}\n{figures["images"]} stills of {folder}'


def format_motion(sequences: Mapping[str, _Figures], total: _Figures) -> str:
  """Formats the figures of `odometry.measure`, a row per sequence and `all`."""
  figures = sequences | ({'all': total} if len(sequences) > 1 else {})
  rows = {
    label: [row.get(name) for name in _MOTION_HEADS]
    for label, row in figures.items()
  }
  return (
    f'{_align(_MOTION_HEADS.values(), rows)}\nmetres; snippets of'
    f' {trajectories.SNIPPET} frames, each scaled, mean and deviation, and the'
    " mean by Monodepth2's code; rmse of the trajectory after the best"
    ' similarity alignment, with this scale'
  )


def _align(heads: Iterable[str], rows: Mapping[str, list[float | None]]) -> str:
  """Aligns a head and rows, each with its label at the left."""
  width = max(map(len, rows))
  cells = {'': heads} | {k: map(_format_cell, row) for k, row in rows.items()}
  return '\n'.join(
    f'{label:<{width}}' + ''.join(f'{cell:>11}' for cell in row)
    for label, row in cells.items()
  )


def _format_cell(value):
  if value is None:
    return '-'
  return str(value) if isinstance(value, int) else f'{value:.4f}'
