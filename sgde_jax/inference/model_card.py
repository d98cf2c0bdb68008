"""The model card of published weights: `README.md` as the hub shows it."""

import os
import pathlib

import ml_collections

import sgde_jax
from sgde_jax import metrics, run_files

_TAGS = ('monocular-depth-estimation', 'self-supervised', 'jax', 'flax')
_CARD = """\
---
{head}
---

# {name}

Depth of single images{classes}, learnt from driving video{labels},
without depth labels, in JAX/Flax. {method}

| | |
|---|---|
| input | RGB image of any size; resized to {width}x{height} |
| output | inverse depth in 1/metres, up to one unknown scale{more_output} |
| network | {network} |
| parameters | {parameters:.1f} million, float32 |
| checkpoint | step {step} |

## Use

```python
import sgde_jax

predictor = sgde_jax.load({name!r})  # The folder, or 'hf://OWNER/{name}'.
prediction = predictor('image.png')
depth = prediction.depth({scale})
```

```
sgde-jax --mode=predict --workdir={name} --input=IMAGE --output=OUT
```

`--config.init_from={name}` starts a new training from these weights, in a
`--workdir` of its own.

`model.safetensors` holds PyTorch's layout. Names start with their part;
`encoder`, `depth`, `pose_encoder` and `pose` are Monodepth2's state dicts.
`config.json` is the config of the training.

## Training

{training}

## Evaluation

{evaluation}

## Limits

- Video leaves the scale of depth free: without a scale, depth is relative.
- The network saw one kind of scene and camera. On others expect larger errors,
  and another scale.
- Training assumes a static scene: objects that move with the camera can appear
  far too deep, and glass, mirrors and the sky have no reliable depth.
- It is a research model and not made for decisions about safety.

## Licence

{licence}

## Citation

{citation}
"""
_METHOD = """\
A reconstruction of Li et al., arXiv 2012.08048, on top of
Monodepth2; the paper's authors have published no code, and its figures are not
those of this model."""
_BASELINE = 'The method is that of Monodepth2, arXiv 1806.01260.'
_FREE = """\
The code, sgde_jax, is under Apache-2.0, and so are these weights: their
training data is rendered."""
_BOUND = """\
The code, sgde_jax, is under Apache-2.0. The weights are bound by the licences
of their training data and of the weights that the training started from. KITTI
is CC BY-NC-SA 3.0: no commercial use, and share alike."""
_MONODEPTH2 = """\
Monodepth2: Godard et al., *Digging Into Self-Supervised Monocular Depth
Estimation*, arXiv 1806.01260."""
_PAPER = """\
Li et al., *Semantic-Guided Representation Enhancement for Self-supervised
Monocular Trained Depth Estimation*, arXiv 2012.08048.

"""


def format_card(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  *,
  name: str,
  step: int,
  parameters: int,
) -> str:
  """Formats a card in Markdown, with the metadata that the hub reads.

  Args:
    config: the run's config.
    workdir: its folder, for its evaluation and the code's version.
    name: of the published folder.
    step: of the weights.
    parameters: their number.
  """
  semantics = config.model.semantics
  others = _list_initial_weights(config)
  if step == 0 and not others:
    others = [pathlib.PurePath(workdir).name]
  is_free = config.data.source == 'street' and not others
  figures = _find_figures(workdir, step)
  is_measured = figures is not None and figures['step'] == step
  scale = f'scale={figures["ratio"]:.4g}' if is_measured else ''
  return _CARD.format(
    head=_format_head(semantics, is_free),
    name=name,
    classes=" and Cityscapes' 19 classes" if semantics else '',
    labels=' and semantic labels' if semantics else '',
    method=_METHOD if semantics else _BASELINE,
    width=config.data.width,
    height=config.data.height,
    more_output='; a class per pixel' if semantics else '',
    network=_describe_network(config.model),
    parameters=parameters / 1e6,
    step=step,
    scale=scale,
    training=_describe_training(config, workdir, step, others),
    evaluation=_format_evaluation(figures, step),
    licence=_FREE if is_free else _BOUND,
    citation=(_PAPER if semantics else '') + _MONODEPTH2,
  )


def _format_head(semantics, is_free):
  """Formats the metadata as YAML."""
  head = ['license: apache-2.0']
  if not is_free:
    head = ['license: other', 'license_name: see-licence-below']
  head += ['library_name: sgde_jax', 'pipeline_tag: depth-estimation', 'tags:']
  tags = [*_TAGS, 'semantic-segmentation'] if semantics else _TAGS
  return '\n'.join(head + [f'- {tag}' for tag in tags])


def _list_initial_weights(config):
  """Returns the names of the weights that the training started from."""
  model = config.model
  sources = [config.init_from]
  if not config.init_from:
    sources = [model.encoder_weights, model.pose_weights]
  return [
    source if '://' in source else pathlib.PurePath(source).name
    for source in dict.fromkeys(filter(None, sources))
  ]


def _describe_network(model):
  parts = [f'ResNet-{model.encoder_layers} encoder, depth decoder']
  if model.semantics:
    parts.append('semantic decoder')
  if model.attention.levels:
    levels = ', '.join(map(str, model.attention.levels))
    parts.append(f'attention between the two at levels {levels}')
  if model.seem.enabled:
    parts.append('SEEM, which refines depth at semantic edges')
  parts.append(f'pose network with a ResNet-{model.pose_layers}')
  return '; '.join(parts)


def _describe_training(config, workdir, step, others):
  data, others = config.data, ', '.join(others)
  if step == 0:
    return f'None here: these are the weights of {others}.'
  source = f'{data.source}, {pathlib.PurePath(data.root).name}'
  if data.source == 'street':
    source = 'the rendered street of sgde_jax'
  rows = {
    'data': f'{source}, list {pathlib.PurePath(data.train_split).name}',
    'frames': ', '.join(map(str, data.frame_offsets)),
    'batch size': config.batch_size,
    'initial weights': others or 'random',
    'seed': config.seed,
  }
  if config.model.semantics:
    rows['labels'] = data.labels
    if data.semantic_root:
      rows['labelled stills'] = pathlib.PurePath(data.semantic_root).name
  code = run_files.read_starts(workdir)[-1:]
  version = code[0]['version'] if code else sgde_jax.__version__
  rows['code'] = f'sgde_jax {version}'
  if code and code[0].get('commit'):
    rows['code'] += f', commit {code[0]["commit"]}'
  return _format_table(rows)


def _find_figures(workdir, step):
  """Returns an evaluation's figures, `step` and `protocol`; None without one.

  That of the weights of `step` is preferred, then that of `--mode=evaluate`,
  then the newest one of the training.
  """
  found = []
  stored = run_files.read_evaluation(workdir)
  if stored:
    made = dict(stored.made)
    made['protocol'] += f', list {made.pop("list")}'
    found.append(made | stored.summary)
  entries = run_files.read_entries(workdir)
  protocols = {e['step']: e['protocol'] for e in entries if 'protocol' in e}
  trained = run_files.find_evaluations(entries)
  for done in sorted(trained, reverse=True):
    found.append(trained[done] | {'step': done, 'protocol': protocols[done]})
  same = [figures for figures in found if figures['step'] == step]
  return next(iter(same + found), None)


def _format_evaluation(figures, step):
  if figures is None:
    return 'This run was never evaluated: nothing is known of its errors.'
  names = metrics.depth.DEPTH_ERRORS
  lines = [
    '| ' + ' | '.join(names) + ' |',
    '|---' * len(names) + '|',
    '| ' + ' | '.join(f'{figures[name]:.4f}' for name in names) + ' |',
    '',
    f'{figures["images"]:.0f} images; {figures["protocol"]}. Scale, the median'
    f' ratio of truth to prediction: {figures["ratio"]:.4g}, deviation'
    f' {figures["ratio_std"]:.4g}.',
  ]
  if figures['step'] != step:
    lines.append(f'Measured at step {figures["step"]}, not on these weights.')
  return '\n'.join(lines)


def _format_table(rows):
  lines = [f'| {name} | {value} |' for name, value in rows.items()]
  return '\n'.join(['| | |', '|---|---|', *lines])
