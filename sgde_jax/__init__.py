"""Self-supervised monocular depth with semantic guidance, in JAX/Flax."""
