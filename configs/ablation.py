"""The reference setting with some of the paper's parts.

python main.py --config=ablation:PART --workdir=runs/PART

PART is baseline, semantics (the second decoder alone), attention (semantics
and attention), seem (semantics and SEEM) or full (all, the reference setting).
"""

import sys

from sgde_jax.configs import default

PARTS = ('baseline', 'semantics', 'attention', 'seem', 'full')


def get_config(part='full'):
  """Returns the config with the parts up to `part`; exits if it is unknown."""
  if part not in PARTS:
    # For other exceptions ml_collections prints the traceback, too.
    sys.exit(
      f'sgde-jax: error: no ablation {part!r}: use one of {", ".join(PARTS)}'
    )
  return switch(default.get_config(), part)


def switch(config, part):
  """Turns the parts of any config on and off; returns it."""
  reference = default.get_config().model
  config.model.semantics = part != 'baseline'
  config.model.seem.enabled = part in ('seem', 'full')
  config.model.attention.levels = (
    reference.attention.levels if part in ('attention', 'full') else ()
  )
  return config
