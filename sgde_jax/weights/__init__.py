"""First state, optimizer, checkpoints, published weights."""
