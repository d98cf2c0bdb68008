"""First state, optimizer, checkpoints, published weights."""

from sgde_jax.weights import published

load_torch_weights = published.load_torch_weights
