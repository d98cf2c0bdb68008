"""Weights in the published PyTorch layouts, to and from our variables.

Weights come in parts, each a PyTorch state dict. `encoder`, `depth`,
`pose_encoder` and `pose` are Monodepth2's, with its names; `semantic` has the
names of `depth`; `attention` and `seem` are named as our modules. In one file,
`model.safetensors`, every name starts with its part.

torchvision's and timm's ResNets are encoders without a prefix.
"""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping

import flax.traverse_util
import ml_collections
import numpy as np

from sgde_jax.weights import hub, weight_files

PARTS = (
  'encoder',
  'depth',
  'pose_encoder',
  'pose',
  'semantic',
  'attention',
  'seem',
)
MODEL_FILE = 'model.safetensors'
_FILES = ('config.json', MODEL_FILE) + tuple(
  f'{part}{suffix}' for part in PARTS[:4] for suffix in weight_files.SUFFIXES
)
# Start of the path of our modules -> start of the published name, from the part
# on. What follows differs in its separators alone.
_NAMES = {
  'encoder/': 'encoder.encoder.',
  'pose/encoder/': 'pose_encoder.encoder.',
  'pose/conv_': 'pose.net.',
  'attentions_': 'attention.',
  'refiner/': 'seem.',
  'semantic_head/classconv': 'semantic.decoder.10.conv',
}
_NAMES |= {
  f'disparity_heads_{scale}/dispconv': f'depth.decoder.{10 + scale}.conv'
  for scale in range(4)
}
_NAMES |= {
  f'{part}_levels_{level}/upconv_{conv}': (
    f'{part}.decoder.{2 * (4 - level) + conv}.conv.conv'
  )
  for part in ('depth', 'semantic')
  for level in range(5)
  for conv in range(2)
}
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'gain': 'gain',
  'mean': 'running_mean',
  'var': 'running_var',
}


def fetch(source: str | os.PathLike) -> pathlib.Path:
  """Returns the local path of published weights, see `hub.fetch`."""
  return hub.fetch(source, _FILES)


def read_parts(source: str | os.PathLike) -> dict[str, dict]:
  """Reads published weights: part -> state dict.

  Args:
    source: a folder with `model.safetensors`, or with `encoder.pth`,
      `depth.pth` and so on, of any type that `weight_files` reads; or a single
      file with the names of `model.safetensors`; or either as `hf://...`.

  Returns:
    Empty where the folder has none. Models trained on stereo have no pose
    network.

  Raises:
    FileNotFoundError: if only some of the parts that belong together exist.
    ValueError: if a file cannot be read, or its names belong to no part.
  """
  source = fetch(source)
  path = source / MODEL_FILE if source.is_dir() else source
  if path.is_file():
    parts = _split(path, weight_files.read_state(path))
    _check_complete(path, parts)
    return parts
  found = {
    part: source / f'{part}{suffix}'
    for part in PARTS[:4]
    for suffix in reversed(weight_files.SUFFIXES)
    if (source / f'{part}{suffix}').is_file()
  }
  _check_complete(source, found)
  return {part: weight_files.read_state(path) for part, path in found.items()}


def load_torch_weights(parts: Mapping, variables: Mapping) -> dict:
  """Replaces the variables of whole parts by published weights.

  Args:
    parts: maps parts (`encoder`, `depth`, `pose_encoder`, `pose`) to a PyTorch
      state dict (name -> array or CPU tensor) or to a file of it.
    variables: the model's variables, `params` and `batch_stats`.

  Returns:
    New variables; tensors keep the dtype they have in `variables`.

  Raises:
    ValueError: if a tensor is missing, unexpected, of another shape or not
      finite; the message names every one. `height`, `width`, `use_stereo`,
      `num_batches_tracked` and the encoder's `fc` are ignored.
  """
  flat = flax.traverse_util.flatten_dict(variables, sep='/')
  return flax.traverse_util.unflatten_dict(
    flat | match_weights(parts, variables), sep='/'
  )


def match_weights(parts: Mapping, variables: Mapping) -> dict[str, np.ndarray]:
  """Maps published weights to the model's variables by name.

  The arguments and errors are those of `load_torch_weights`; the variables may
  be `jax.ShapeDtypeStruct`. Returns the variables of these parts by their
  slash-separated names.
  """
  flat = flax.traverse_util.flatten_dict(variables, sep='/')
  keys = {_published_name(key): key for key in flat}
  problems, values, loaded = [], {}, {}
  for part, source in parts.items():
    wanted = {n: key for n, key in keys.items() if n.startswith(f'{part}.')}
    if not wanted:
      problems.append(f'{part}: the model has no such part')
      continue
    for name, tensor in _read(part, source).items():
      if _is_ignored(name):
        continue
      key = wanted.pop(f'{part}.{name}', None)
      if key is None:
        problems.append(f'{part}: unexpected tensor {name}')
        continue
      value = _to_flax_layout(np.asarray(tensor)).astype(flat[key].dtype)
      if value.shape != flat[key].shape:
        problems.append(
          f'{part}: {name} has shape {np.shape(tensor)}, which gives'
          f' {value.shape} where {key} has {flat[key].shape}'
        )
      loaded[key] = values[f'{part}.{name}'] = value
    problems += [f'{part}: no tensor for {k}' for k in sorted(wanted.values())]
  if problems:
    raise ValueError(
      'weights do not fit the model:\n  ' + '\n  '.join(problems)
    )
  _check_finite(values)
  return loaded


def export_state(
  variables: Mapping, size: tuple[int, int]
) -> dict[str, np.ndarray]:
  """Returns all variables as the state dict of `model.safetensors`.

  `read_parts` and `match_weights` invert this, bit for bit. `size` is the
  (height, width) of the training images, stored as Monodepth2 does.

  Raises:
    ValueError: if a variable is not finite.
  """
  flat = flax.traverse_util.flatten_dict(variables, sep='/')
  state = {
    _published_name(key): _to_torch_layout(np.asarray(value))
    for key, value in flat.items()
  }
  _check_finite(state)
  entries = {'height': size[0], 'width': size[1], 'use_stereo': False}
  return state | {f'encoder.{n}': np.asarray(v) for n, v in entries.items()}


def trained_size(parts: Mapping) -> tuple[int, int] | None:
  """Returns (height, width) of the training images, if the encoder has it."""
  encoder = parts['encoder']
  if not {'height', 'width'} <= encoder.keys():
    return None
  return int(encoder['height']), int(encoder['width'])


def list_others(parts: Iterable[str], variables: Mapping) -> list[str]:
  """Returns the names of the model's modules that the parts do not hold."""
  flat = flax.traverse_util.flatten_dict(variables, sep='/')
  found = tuple(f'{part}.' for part in parts)
  others = (k for k in flat if not _published_name(k).startswith(found))
  return sorted({key.split('/')[1] for key in others})


def read_imagenet_weights(
  model_config: ml_collections.ConfigDict, variables: Mapping
) -> dict[str, np.ndarray]:
  """Reads ImageNet ResNets of torchvision or timm for the encoders.

  Args:
    model_config: has `encoder_weights` and `pose_weights`: files of state
      dicts, `hf://OWNER/REPO` for its `model.safetensors`, or '' for none.
    variables: as for `match_weights`, whose result is returned.

  Raises:
    FileNotFoundError: if a file is absent; the message names its source.
    OSError: if one cannot be downloaded.
    ValueError: if a file cannot be read or does not fit the model.
  """
  parts = {}
  for part, field, layers in (
    ('encoder', 'encoder_weights', model_config.encoder_layers),
    ('pose_encoder', 'pose_weights', model_config.pose_layers),
  ):
    if not model_config[field]:
      continue
    path = hub.fetch(model_config[field], [MODEL_FILE])
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
      raise FileNotFoundError(
        f'config.model.{field}: {path} not found: use hf://timm/resnet{layers}'
        f'.tv_in1k, get the resnet{layers} state dict (resnet{layers}-*.pth,'
        ' IMAGENET1K_V1) from torchvision, or set config.model.encoder_weights'
        " and pose_weights to '' to train from scratch"
      )
    parts[part] = _read(part, path)
  # Two RGB frames in: tile the filters and keep the activations' scale.
  name = 'encoder.conv1.weight'
  if name in parts.get('pose_encoder', {}):
    stem = np.asarray(parts['pose_encoder'][name])
    parts['pose_encoder'][name] = np.concatenate([stem, stem], 1) / 2
  return match_weights(parts, variables)


def _split(path, state):
  """Splits a state dict into parts by the start of its names."""
  parts = {}
  for name, tensor in state.items():
    part, _, rest = name.partition('.')
    parts.setdefault(part, {})[rest] = tensor
  unknown = sorted(parts.keys() - set(PARTS))
  if unknown:
    raise ValueError(
      f'{path}: its names start with {", ".join(unknown)}, and those of a whole'
      f' model with {", ".join(PARTS)}'
    )
  return parts


def _check_complete(source, parts):
  """Raises FileNotFoundError if parts are missing that others need."""
  wanted = PARTS[:4] if parts.keys() & {'pose_encoder', 'pose'} else PARTS[:2]
  missing = [part for part in wanted if part not in parts]
  if parts and missing:
    raise FileNotFoundError(
      f'{source} holds {", ".join(parts)}, but no {" and no ".join(missing)}'
      f' ({", ".join(weight_files.SUFFIXES)})'
    )


def _check_finite(state):
  names = [
    name for name, value in state.items() if not np.isfinite(value).all()
  ]
  if names:
    raise ValueError('weights are not finite:\n  ' + '\n  '.join(names))


def _read(part, source):
  """Returns a part's state dict with Monodepth2's names."""
  state = source
  if isinstance(source, str | os.PathLike):
    state = weight_files.read_state(source)
  is_encoder = part in ('encoder', 'pose_encoder')
  if not is_encoder or any(name.startswith('encoder.') for name in state):
    return dict(state)
  return {f'encoder.{name}': tensor for name, tensor in state.items()}


def _is_ignored(name):
  return (
    name in ('height', 'width', 'use_stereo')
    or name.endswith('num_batches_tracked')
    or name.startswith('encoder.fc.')
  )


def _published_name(key):
  """Returns the published name, from the part on, of a variable of ours."""
  _, _, path = key.partition('/')
  path, _, leaf = path.rpartition('/')
  path = path.removesuffix('/conv')
  start = next(start for start in _NAMES if path.startswith(start))
  rest = re.sub(r'_(?=\d)|/', '.', path.removeprefix(start))
  return f'{_NAMES[start]}{rest}.{_LEAVES[leaf]}'


def _to_flax_layout(tensor):
  """Turns OIHW kernels into HWIO and OI into IO; leaves vectors unchanged."""
  return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _to_torch_layout(tensor):
  """Inverts `_to_flax_layout`."""
  return tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T
