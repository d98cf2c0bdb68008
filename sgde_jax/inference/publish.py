"""Publishing: `--mode=publish`, a trained run as a folder to share."""

import os
import pathlib

import jax
import ml_collections

from input_pipeline import files
from sgde_jax import configuration, parallel
from sgde_jax.inference import model_card
from sgde_jax.weights import initial, published, weight_files


def publish(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  output: str | os.PathLike,
) -> None:
  """Writes a run's weights, config and model card to a new folder.

  The folder appears whole or not at all. `sgde_jax.load`, `config.init_from`
  and `--workdir` take it, and the Hugging Face hub shows its card.

    model.safetensors: all variables, named as `weights.published` describes;
    config.json: the run's config, without what belongs to this machine;
    README.md: the card, with the figures of the run's evaluation.

  Raises:
    ValueError: if `output` exists, or the weights are not finite.
    FileNotFoundError: if the run has no weights.
  """
  output = pathlib.Path(output)
  if output.exists():
    raise ValueError(f'--output={output} exists; name a new folder')
  files.check_writable(output.parent)
  mesh = parallel.create_mesh(jax.local_devices()[:1])
  _, state = initial.load_trained(config, workdir, mesh)
  variables = jax.device_get(state.variables)
  size = config.data.height, config.data.width
  tensors = published.export_state(variables, size)
  card = model_card.format_card(
    config,
    workdir,
    name=output.resolve().name,
    step=int(state.step),
    parameters=sum(leaf.size for leaf in jax.tree.leaves(variables['params'])),
  )
  with files.whole_folder(output) as folder:
    weight_files.write_safetensors(folder / published.MODEL_FILE, tensors)
    configuration.save(_shared(config), folder)
    files.write_text(folder / 'README.md', card)
  print(f'{output}: {published.MODEL_FILE}, config.json, README.md')


def _shared(config):
  """Returns the config without paths of this machine, and ready to load."""
  config = config.copy_and_resolve_references().unlock()
  config.init_from = ''
  config.model.encoder_weights = config.model.pose_weights = ''
  config.model.attention.implementation = 'auto'  # Others run not everywhere.
  for part in (config.data, config.eval):
    for field, value in part.items():
      if isinstance(value, str) and os.path.isabs(value):
        part[field] = pathlib.PurePath(value).name
  return config
