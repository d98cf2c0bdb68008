"""The command `sgde-jax`, from a source tree; see sgde_jax/cli.py."""

from sgde_jax import cli

if __name__ == '__main__':
  cli.run()
