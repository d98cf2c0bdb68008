"""Self-supervised monocular depth with semantic guidance, in JAX/Flax.

`load` opens trained weights for prediction, `create_model` builds the network.
Importing this package does not import JAX; its functions do when called.
"""

import importlib

__version__ = '0.2.0'
__all__ = ['create_model', 'load']
_MODULES = {
  'create_model': 'sgde_jax.models',
  'load': 'sgde_jax.inference.predictor',
}


def __getattr__(name: str):
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *_MODULES])
