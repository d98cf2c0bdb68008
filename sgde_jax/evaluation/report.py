"""`--mode=report`: one page about a run, with its pictures, in one file."""

import functools
import html
import logging
import os
import pathlib
import string

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import input_pipeline
import sgde_jax
from input_pipeline import cityscapes, files
from sgde_jax import (
  configuration,
  metrics,
  models,
  parallel,
  run_files,
  visualization,
)
from sgde_jax.configs import default
from sgde_jax.evaluation import charts, depth, panels, run
from sgde_jax.inference import steps
from sgde_jax.weights import initial

_Path = str | os.PathLike
_RUN, _BASELINE = 'this run', 'baseline'
# Of the training log: not shown, since it is about speed, and shown last.
_SPEED = ('ms_per_step', 'images_per_second', 'data_share')
_STATE = ('gradient_norm', 'disparity_spread', 'attention_gain')
_CURVES = ('abs_rel', 'rmse', 'a1', 'abs_rel/border_1', 'miou')
_SCORES = ('boundary_f1', 'boundary_recall/objects', 'boundary_recall/thin')
_HIGHER_IS_BETTER = ('a1', 'a2', 'a3', 'miou', *_SCORES)
_BANDS = {  # Text -> columns of the pixels within both distances.
  '1 px': (None, 'border_1'),
  '2-3 px': ('border_1', 'border_3'),
  '4-5 px': ('border_3', 'border_5'),
  'farther': (None, 'away'),
}


def write(
  config: ml_collections.ConfigDict,
  workdir: _Path,
  *,
  baseline: _Path | None = None,
) -> pathlib.Path:
  """Writes `report.html` into a trained run's workdir, in one process.

  Evaluates the checkpoint first, unless `evaluation/` has it already.

  Args:
    config: the whole config of the run.
    workdir: its folder.
    baseline: the workdir of a run to compare with; only its log and its stored
      evaluation are read.

  Returns:
    The file's path.

  Raises:
    FileNotFoundError: if there is no checkpoint, or the baseline has no log.
    ValueError: if they do not fit the config.
  """
  workdir = pathlib.Path(workdir)
  files.check_writable(workdir)
  runs = _open_runs(workdir, baseline)
  mesh = parallel.create_mesh(jax.local_devices()[:1])
  model, state = initial.load_trained(config, workdir, mesh)
  data = None
  if run.has_depth(config):
    data = input_pipeline.open_data(config.data, train=False)
  network = model, state.variables, mesh
  sections = {'Training': _draw_training(runs)}
  if data is None:
    text = 'This run has no ground truth, so nothing was evaluated.'
    sections['Evaluation'] = f'<p>{text}</p>'
    evaluation = None
  else:
    evaluation = _evaluate(
      config, workdir, data, *network, step=int(state.step)
    )
    evaluations = {_RUN: evaluation}
    if baseline:
      evaluations[_BASELINE] = run_files.read_evaluation(baseline)
    sections['Evaluation'] = _draw_evaluations(runs, evaluations)
    sections |= _draw_labelled(evaluations)
    sections |= _draw_examples(config, data, evaluation, *network)
  sections['Config'] = _draw_config(config)
  lines = [str(workdir), _describe_run(config, int(state.step))]
  lines += [f'{_BASELINE}: {baseline}'] if baseline else []
  page = _fill_page(workdir, lines, evaluation, sections)
  path = workdir / 'report.html'
  files.write_text(path, page)
  print(f'report: {path}')
  return path


def _open_runs(workdir, baseline):
  """Returns name -> entries of the log of one or two runs."""
  runs = {_RUN: run_files.read_entries(workdir)}
  if baseline:
    runs[_BASELINE] = run_files.read_entries(baseline)
    if not runs[_BASELINE]:
      raise FileNotFoundError(f'--baseline: no metrics.jsonl in {baseline}')
  return runs


def _evaluate(config, workdir, data, model, variables, mesh, *, step):
  """Returns the checkpoint's evaluation, made if it is not stored."""
  stored = run_files.read_evaluation(workdir)
  if stored and stored.made == {'step': step, **depth.describe(config)}:
    return stored
  logging.info('step %d: evaluating', step)
  evaluator = depth.Evaluator(config, data, model=model, mesh=mesh)
  evaluation = evaluator.run(variables, step=step)
  run_files.write_evaluation(workdir, evaluation)
  return evaluation


def _draw_training(runs):
  logged = dict.fromkeys(n for log in runs.values() for e in log for n in e)
  terms = [
    name.removeprefix('train/') for name in logged if name.startswith('train/')
  ]
  order = {'loss': -1} | {name: 1 for name in _STATE}
  figures = [
    charts.lines(name, _find_series(runs, f'train/{name}'))
    for name in sorted(terms, key=lambda name: order.get(name, 0))
    if name not in _SPEED
  ]
  if not figures:
    return '<p>There is no log of the training.</p>'
  return (
    '<p class="muted">Means over the steps since the last report. Loss terms'
    ' are weighted; <code>loss</code> is their sum.</p>'
    f'{_draw_legend(runs)}<div class="grid">{"".join(figures)}</div>'
  )


def _find_series(runs, name):
  return {
    run_name: [
      (e['step'], e[name]) for e in log if np.isfinite(e.get(name, np.nan))
    ]
    for run_name, log in runs.items()
  }


def _draw_legend(runs):
  if len(runs) < 2:
    return ''
  return (
    f'<p class="legend"><span><i></i>{_RUN}</span>'
    f'<span class="baseline"><i></i>{_BASELINE}</span></p>'
  )


def _draw_evaluations(runs, evaluations):
  """Draws the curves of the evaluations while training, and the errors."""
  parts = []
  if _BASELINE in evaluations:
    parts.append(_note_differences(*evaluations.values()))
  parts.append(_draw_legend(runs))
  curves = []
  for name in _CURVES:
    series = _find_series(runs, f'eval/{name}')
    if any(len(points) > 1 for points in series.values()):
      curves.append(charts.lines(f'{name} over steps', series))
  parts.append(f'<div class="grid">{"".join(curves)}</div>')
  names = [*metrics.depth.DEPTH_ERRORS, *_SCORES, 'miou', 'ratio', 'ratio_std']
  parts.append('<h3>Errors</h3>' + _tabulate(names, evaluations))
  return ''.join(parts)


def _note_differences(evaluation, other):
  """Explains why the baseline's figures are absent or not comparable."""
  if other is None:
    text = 'The baseline has no stored evaluation: run --mode=evaluate there'
  else:
    differing = [
      f'another {key}, {html.escape(str(other.made[key]))}'
      for key in ('protocol', 'list')
      if other.made[key] != evaluation.made[key]
    ]
    if not differing:
      return ''
    text = f'The baseline was evaluated by {"; ".join(differing)}'
  return f'<p class="note">{text}.</p>'


def _tabulate(names, evaluations):
  """Returns a table of figures, with the change from the baseline."""
  summaries = [e.summary for e in evaluations.values() if e]
  heads = ['', *(name for name, e in evaluations.items() if e)]
  rows = []
  for name in names:
    values = [summary.get(name) for summary in summaries]
    if all(value is None for value in values):
      continue
    row = [f'<code>{name}</code>', *map(charts.number, values)]
    if len(values) == 2:
      row.append(_format_change(name, *values))
    rows.append(row)
  heads += ['change'] if len(summaries) == 2 else []
  return charts.table(heads, rows)


def _format_change(name, value, other):
  if value is None or not other or name.startswith('ratio'):
    return ''
  change = value / other - 1
  is_better = (change > 0) == (name in _HIGHER_IS_BETTER)
  kind = 'good' if is_better else 'bad'
  return f'<span class="{kind}">{100 * change:+.1f} %</span>'


def _draw_labelled(evaluations):
  """Returns the sections that need labels."""
  evaluation = next(iter(evaluations.values()))
  if not evaluation.summary.get('labelled'):
    text = 'No evaluated image has labels (config.data.labels).'
    return {'Borders and classes': f'<p>{text}</p>'}
  labelled = {
    name: e for name, e in evaluations.items() if e and 'labelled' in e.summary
  }
  heads, known = list(labelled), list(labelled.values())
  bands = [_pool_bands(e.images) for e in known]
  borders = {
    text: [band.get(text, (None, 0))[0] for band in bands] for text in bands[0]
  }
  shares = {
    text: f'{100 * share:.1f} %' for text, (_, share) in bands[0].items()
  }
  sections = {
    'Borders': '<p class="muted">abs_rel by the distance to the nearest border'
    ' between classes, in pixels of the truth.</p>'
    + charts.bars(borders, heads, notes=shares, note_head='of the pixels')
  }
  parts = []
  for figure, text in (
    ('abs_rel', 'abs_rel by true class'),
    ('iou', 'IoU, intersection over union'),
  ):
    rows = {
      name: [e.summary.get(f'{figure}/{name}') for e in known]
      for name in (*cityscapes.NAMES, 'thin')
    }
    rows = {name: row for name, row in rows.items() if row[0] is not None}
    if rows:
      parts.append(
        f'<figure><h3>{text}</h3>{charts.bars(rows, heads)}</figure>'
      )
  sections['Classes'] = f'<div class="grid wide">{"".join(parts)}</div>'
  if evaluation.confusion is not None:
    sections['Confusion'] = (
      '<p class="muted">Rows: true classes; columns: predicted; in % of the'
      ' row.</p>' + charts.confusion(evaluation.confusion)
    )
  return sections


def _pool_bands(images):
  """Returns band -> abs_rel and share of the labelled pixels."""

  def pool(name):
    if name is None:
      return np.zeros(2)
    columns = (f'abs_rel/{name}:sum', f'abs_rel/{name}:count')
    return np.sum([[image[c] for c in columns] for image in images], axis=0)

  bands = {
    text: pool(outer) - pool(inner) for text, (inner, outer) in _BANDS.items()
  }
  pixels = sum(count for _, count in bands.values())
  return {
    text: (total / count, count / pixels)
    for text, (total, count) in bands.items()
    if count
  }


def _draw_examples(config, data, evaluation, model, variables, mesh):
  """Returns the sections of single images: the best, the median, the worst."""
  order = sorted(evaluation.images, key=lambda image: image['abs_rel'])
  last = len(order) - 1
  ranks = sorted({0, len(order) // 2, last})  # Fewer where there are fewer.
  titles = {last: 'Worst', 0: 'Best'}
  networks = {'enhanced' if model.seem else 'depth': model}
  if model.seem:
    networks['coarse'] = model.clone(seem=None)
  examples, measured = [], {}
  for name, network in networks.items():
    evaluator = depth.Evaluator(
      config,
      data,
      model=network,
      mesh=mesh,
      indices=[order[rank]['index'] for rank in ranks],
    )
    pairs = list(evaluator.examples(variables))
    examples = [example for example, _ in pairs]
    measured[name] = [evaluator.measure(*pair) for pair in pairs]
  sections = {}
  for i, rank in enumerate(ranks):
    line, error = html.escape(order[rank]['example']), order[rank]['abs_rel']
    sections[titles.get(rank, 'Median')] = (
      f'<p class="muted"><code>{line}</code>, abs_rel {error:.4f}</p>'
      + _draw_example(examples[i], {n: row[i] for n, row in measured.items()})
    )
  if model.attention_levels:
    frame = examples[len(examples) // 2]['frames'][0]
    sections['Attention'] = _draw_attention(frame, model, variables)
  return sections


def _draw_example(example, measured):
  """Draws an image, its predictions, errors, truth and classes.

  `measured` has the whole network first; then, with SEEM, the one without.
  """
  height, width = example['native_size']
  frame = panels.resize(example['frames'][0], (height, width))
  truth = example['depth'][:height, :width]
  inverse = {kind: 1 / m['aligned'].prediction for kind, m in measured.items()}
  best, *others = inverse
  scale = visualization.inverse_depth_scale(inverse[best], metric=True)
  bar, error_scale = charts.colour_bar(scale), visualization.error_scale()
  depths = [(scale.colorize(inverse[kind]), kind) for kind in (*others, best)]
  errors = [_draw_error(truth, measured[k], k) for k in (*others, best)]
  true = visualization.colorize_depth(truth, scale=scale)
  cells = [
    _draw_pair([(frame, 'input')], 'input of the network', '', photo=True),
    _draw_pair(
      depths if others else [(frame, 'image'), *depths], 'inverse depth', bar
    ),
    _draw_pair([(true, 'truth')], 'true inverse depth (grey: none)', bar),
    _draw_pair(errors, 'relative error', charts.colour_bar(error_scale)),
  ]
  if others:
    change = inverse[best] - inverse[others[0]]
    changes = panels.change_scale(change, scale)
    text = 'enhanced - coarse inverse depth, 1/m (red: nearer)'
    picture = changes.colorize(change), 'change'
    cells.append(_draw_pair([picture], text, charts.colour_bar(changes)))
  cells += _draw_classes(example, measured[best]['labels'], frame)
  return f'<div class="grid wide">{"".join(cells)}</div>'


def _draw_error(truth, measured, kind):
  """Returns the picture of a prediction's error, and its name."""
  aligned, name = measured['aligned'], f'{kind} {measured["abs_rel"]:.4f}'
  options = aligned.prediction, aligned.valid
  return visualization.colorize_error(truth, *options), name


def _draw_classes(example, predicted, frame):
  """Returns figures of the predicted and true classes, as far as there are."""
  labels = {}
  height, width = example['native_size']
  if predicted is not None:
    labels['predicted'] = input_pipeline.images.resize_nearest(
      predicted, height=height, width=width
    )
  if 'native_labels' in example:
    labels['true'] = example['native_labels'][:height, :width]
  if not labels:
    return []
  drawn = [(panels.draw_classes(frame, x), text) for text, x in labels.items()]
  shown = np.unique(np.concatenate([x.ravel() for x in labels.values()]))
  legend = charts.class_legend(shown.tolist())
  return [_draw_pair(drawn, 'classes', legend, photo=True)]


def _draw_attention(frame, model, variables):
  """Draws where three pixels look at each level of the decoders."""
  look = parallel.jit(functools.partial(steps.attention_maps, model=model))
  images = models.to_float(jnp.asarray(frame[None]))
  found = {k: np.asarray(v[0]) for k, v in look(variables, images).items()}
  queries = found.pop('queries')
  parts = []
  for name in sorted(found, reverse=True):
    level = int(name.removeprefix('attention_'))
    cells = panels.attention_cells(frame, queries, found[name], level=level)
    figures = (
      _draw_pair(
        [(cell.image, cell.caption)],
        '',
        charts.colour_bar(cell.scale),
        photo=True,
      )
      for cell in cells
    )
    parts.append(
      f'<h3>Level {level}, stride {2**level}</h3>'
      f'<div class="grid">{"".join(figures)}</div>'
    )
  return (
    '<p class="muted">Of the median image: the weights with which the marked'
    ' pixel (cyan) looks at the others, as multiples of the mean.</p>'
    + ''.join(parts)
  )


def _draw_pair(pictures, caption, below, *, photo=False):
  """Draws one named picture, or two with a slider between them."""
  names = ', '.join(name for _, name in pictures)
  if len(pictures) == 2:
    caption = f'{caption}: {names}'
    options = {'caption': caption, 'photo': photo, 'below': below}
    return charts.compare(*pictures, **options)
  ((image, name),) = pictures
  return charts.figure(charts.picture(image, name, photo=photo), caption, below)


def _draw_config(config):
  """Lists the fields that differ from the default, and all of them."""
  values = configuration.flatten(config)
  usual = configuration.flatten(default.get_config())
  changed = {name: v for name, v in values.items() if v != usual[name]}

  def tabulate(fields):
    rows = [
      [f'<code>{name}</code>', f'<code>{html.escape(repr(value))}</code>']
      for name, value in fields.items()
    ]
    return charts.table(['field', 'value'], rows, kind='text')

  return (
    '<p class="muted">Fields that differ from configs/default.py.</p>'
    f'{tabulate(changed)}<details><summary>All {len(values)} fields</summary>'
    f'{tabulate(values)}</details>'
  )


def _fill_page(workdir, lines, evaluation, sections):
  """Fills the template."""
  tiles = ''
  if evaluation:
    lines.append('{list}: {protocol}'.format_map(evaluation.made))
    figures = {n: evaluation.summary.get(n) for n in ('abs_rel', 'rmse', 'a1')}
    figures |= {n: evaluation.summary.get(n) for n in ('boundary_f1', 'miou')}
    figures['images'] = evaluation.summary['images']
    tiles = ''.join(
      f'<div><b>{value:.4g}</b><small>{name}</small></div>'
      for name, value in figures.items()
      if value is not None
    )
    tiles = f'<div class="tiles">{tiles}</div>'
  header = ''.join(f'<p class="muted">{html.escape(x)}</p>' for x in lines)
  keys = {title: title.lower().replace(' ', '-') for title in sections}
  links = (f'<a href="#{key}">{title}</a>' for title, key in keys.items())
  bodies = (
    f'<section id="{keys[title]}"><h2>{title}</h2>{body}</section>'
    for title, body in sections.items()
  )
  template = pathlib.Path(__file__).with_suffix('.html').read_text()
  return string.Template(template).substitute(
    title=html.escape(workdir.absolute().name),
    header=header + tiles,
    navigation=''.join(links),
    sections='\n'.join(bodies),
    footer=f'sgde_jax {sgde_jax.__version__}',
  )


def _describe_run(config, step):
  """Names the network and the training in one line."""
  model, data = config.model, config.data
  parts = [f'ResNet-{model.encoder_layers}, {data.width}x{data.height}']
  if model.semantics:
    parts.append('semantics')
  if model.attention.levels:
    parts.append(
      f'attention at levels {", ".join(map(str, model.attention.levels))}'
    )
  if model.seem.enabled:
    parts.append('SEEM')
  parts.append(f'step {step}, batches of {config.batch_size}')
  return '; '.join(parts)
