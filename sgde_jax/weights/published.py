"""Weights in the published PyTorch layout, loaded into our variables.

A checkpoint of Monodepth2 has the parts `encoder`, `depth`, `pose_encoder`
and `pose`; torchvision's ImageNet ResNets are encoders without a prefix.
"""

import pathlib
import re
from collections.abc import Mapping

import flax.traverse_util
import ml_collections
import numpy as np

_DECODER_BLOCKS = [
  f'depth_levels_{level}/upconv_{conv}/conv'
  for level in (4, 3, 2, 1, 0)
  for conv in (0, 1)
]
_DISPARITY_HEADS = [f'disparity_heads_{s}/dispconv/conv' for s in range(4)]
_IGNORED = ('height', 'width', 'use_stereo')
_BATCH_NORM = {
  'weight': ('params', 'scale'),
  'bias': ('params', 'bias'),
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
}
PARTS = ('encoder', 'depth', 'pose_encoder', 'pose')


def read_parts(folder: str | pathlib.Path) -> dict[str, dict]:
  """Reads published weights: `encoder.pth`, `depth.pth` and so on, or `.npz`.

  Returns part -> state dict, empty where the folder has none. Models trained on
  stereo have no pose network.

  Raises:
    FileNotFoundError: if only some of the files that belong together exist.
    ValueError: if one cannot be read.
  """
  found = {}
  for part in PARTS:
    for suffix in ('.pth', '.npz'):
      path = pathlib.Path(folder) / f'{part}{suffix}'
      if path.is_file():
        found[part] = path
  wanted = PARTS if found.keys() & {'pose_encoder', 'pose'} else PARTS[:2]
  missing = [part for part in wanted if part not in found]
  if found and missing:
    raise FileNotFoundError(
      f'{folder} holds {", ".join(found)}, but no {" and no ".join(missing)}'
      ' (.pth or .npz)'
    )
  return {part: _read_state(path) for part, path in found.items()}


def load_torch_weights(parts: Mapping, variables: Mapping) -> dict:
  """Replaces the variables of whole parts by published weights.

  Args:
    parts: maps parts (`encoder`, `depth`, `pose_encoder`, `pose`) to a PyTorch
      state dict (name -> array or tensor) or its path (`.pth`, or `.npz` with
      the same names).
    variables: the model's variables, `params` and `batch_stats`.

  Returns:
    New variables; tensors keep the dtype they have in `variables`.

  Raises:
    ValueError: if a tensor is missing, unexpected or of another shape; the
      message names every one. `height`, `width`, `use_stereo`,
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
  problems = []
  loaded = {}
  for part, source in parts.items():
    wanted = {k for k in flat if _belongs(k, part)}
    state = _read_state(source)
    if part in ('encoder', 'pose_encoder'):
      state = _prefixed(state)
    for name, tensor in state.items():
      if _is_ignored(name):
        continue
      key = _variable_name(part, name)
      if key not in wanted:
        problems.append(f'{part}: unexpected tensor {name}')
        continue
      wanted.discard(key)
      value = _to_flax_layout(np.asarray(tensor))
      if value.shape != flat[key].shape:
        problems.append(
          f'{part}: {name} has shape {np.shape(tensor)}, which gives'
          f' {value.shape} where {key} has {flat[key].shape}'
        )
        continue
      loaded[key] = value.astype(flat[key].dtype)
    problems += [f'{part}: no tensor for {key}' for key in sorted(wanted)]
  if problems:
    raise ValueError(
      'weights do not fit the model:\n  ' + '\n  '.join(problems)
    )
  return loaded


def trained_size(parts: Mapping) -> tuple[int, int] | None:
  """Returns (height, width) of the training images, if the encoder has it."""
  encoder = parts['encoder']
  if not {'height', 'width'} <= encoder.keys():
    return None
  return int(encoder['height']), int(encoder['width'])


def list_others(parts: Mapping, variables: Mapping) -> list[str]:
  """Returns the names of the model's modules that the parts do not hold."""
  flat = flax.traverse_util.flatten_dict(variables, sep='/')
  others = (k for k in flat if not any(_belongs(k, part) for part in parts))
  return sorted({key.split('/')[1] for key in others})


def read_imagenet_weights(
  model_config: ml_collections.ConfigDict, variables: Mapping
) -> dict[str, np.ndarray]:
  """Reads torchvision's ImageNet ResNets for the encoders.

  Args:
    model_config: has `encoder_weights` and `pose_weights`, paths of torchvision
      state dicts or '' for none.
    variables: as for `match_weights`, whose result is returned.

  Raises:
    FileNotFoundError: if a file is absent; the message names its source.
    ValueError: if a file cannot be read or does not fit the model.
  """
  parts = {}
  for part, field, layers in (
    ('encoder', 'encoder_weights', model_config.encoder_layers),
    ('pose_encoder', 'pose_weights', model_config.pose_layers),
  ):
    path = model_config[field]
    if not path:
      continue
    if not pathlib.Path(path).is_file():
      raise FileNotFoundError(
        f'config.model.{field}: {path} not found: get the resnet{layers} state'
        f' dict (resnet{layers}-*.pth, IMAGENET1K_V1) from torchvision, or set'
        " config.model.encoder_weights and pose_weights to '' to train from"
        ' scratch'
      )
    parts[part] = _prefixed(_read_state(path))
  # Two RGB frames in: tile the filters and keep the activations' scale.
  name = 'encoder.conv1.weight'
  if name in parts.get('pose_encoder', {}):
    stem = np.asarray(parts['pose_encoder'][name])
    parts['pose_encoder'][name] = np.concatenate([stem, stem], 1) / 2
  return match_weights(parts, variables)


def _read_state(source):
  """Returns a state dict, given as such or as a `.pth` or `.npz` file."""
  if not isinstance(source, str | pathlib.Path):
    return source
  path = pathlib.Path(source)
  try:
    if path.suffix == '.npz':
      with np.load(path) as data:
        return dict(data)
    import torch  # Only reading PyTorch's own file format needs it.

    state = torch.load(path, map_location='cpu', weights_only=True)
    return {  # NumPy has no bfloat16, and takes no tensor with gradients.
      k: v.detach().float().numpy() if torch.is_tensor(v) else v
      for k, v in state.items()
    }
  except ImportError as error:
    raise ValueError(
      f'{path}: reading .pth files needs PyTorch (pip install torch), or save'
      ' the state dict as .npz with the same names'
    ) from error
  except FileNotFoundError:
    raise
  except Exception as error:  # A damaged file fails in many ways.
    raise ValueError(f'weights {path} cannot be read: {error}') from error


def _prefixed(state):
  """Adds the published checkpoints' prefix to torchvision's names."""
  if any(name.startswith('encoder.') for name in state):
    return dict(state)
  return {f'encoder.{name}': tensor for name, tensor in state.items()}


def _is_ignored(name):
  return (
    name in _IGNORED
    or name.endswith('num_batches_tracked')
    or name.startswith('encoder.fc.')
  )


def _belongs(key, part):
  """Returns whether the flat variable name `key` belongs to a part."""
  path = key.split('/', 1)[1]
  return path.startswith(
    {
      'encoder': 'encoder/',
      'depth': ('depth_levels', 'disparity_heads'),
      'pose_encoder': 'pose/encoder/',
      'pose': 'pose/conv_',
    }[part]
  )


def _variable_name(part, name):
  """Maps a published tensor name to the name that our variable would have."""
  module, _, leaf = name.rpartition('.')
  kernel = 'kernel' if leaf == 'weight' else leaf
  if part == 'pose':
    return f'params/pose/conv_{module.removeprefix("net.")}/conv/{kernel}'
  if part == 'depth':
    blocks = dict(enumerate(_DECODER_BLOCKS + _DISPARITY_HEADS))
    block = re.fullmatch(r'decoder\.(\d+)(\.conv)+', module)
    return f'params/{blocks.get(block and int(block[1]))}/{kernel}'
  module = module.removeprefix('encoder.')
  module = re.sub(r'^(layer\d)\.(\d+)\.', r'\1_\2/', module)
  module = module.replace('downsample.', 'downsample_')
  collection, ours = _BATCH_NORM.get(leaf, ('params', leaf))
  if re.search(r'(conv\d|downsample_0)$', module):
    collection, ours = 'params', kernel
  prefix = 'encoder' if part == 'encoder' else 'pose/encoder'
  return f'{collection}/{prefix}/{module}/{ours}'


def _to_flax_layout(tensor):
  """Turns PyTorch's OIHW kernels into HWIO; leaves vectors unchanged."""
  return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
