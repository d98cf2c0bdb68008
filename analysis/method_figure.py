"""Draws the README's figure: what each part makes of a real example.

  python -m analysis.method_figure --workdir=runs/demo

Takes the first example of the first batch of a trained run and writes
WORKDIR/method.png.
"""

import functools
import itertools
import logging
import pathlib

import jax
from absl import flags

from benchmarks import command_line
from sgde_jax import configuration, parallel, visualization
from sgde_jax.configs import default
from sgde_jax.evaluation import panels
from sgde_jax.training import steps
from sgde_jax.weights import initial

FLAGS = flags.FLAGS


def define_flags():
  """Defines what the command line takes."""
  flags.DEFINE_string('workdir', None, 'A trained run.', required=True)
  flags.DEFINE_string('output', '', 'A PNG; WORKDIR/method.png if empty.')


def main(_):
  """Restores the run, predicts a batch and draws it."""
  logging.basicConfig(level=logging.WARNING)
  logging.getLogger('absl').setLevel(logging.WARNING)  # Orbax tells much.
  config = configuration.resolve(default.get_config(), FLAGS.workdir, {})
  mesh = parallel.create_mesh(jax.devices()[:1])
  model, state = initial.load_trained(config, FLAGS.workdir, mesh)
  (batch,) = itertools.islice(initial.open_batches(config, mesh, 0), 1)
  preview = parallel.jit(
    functools.partial(
      steps.preview_step, model=model, loss_options=config.loss.to_dict()
    )
  )
  pictures = jax.device_get(preview(state.variables, batch))
  example = {name: array[0] for name, array in pictures.items()}
  output = pathlib.Path(FLAGS.output or f'{FLAGS.workdir}/method.png')
  visualization.write_png(output, panels.training_panel(example))
  print(f'wrote {output}')


if __name__ == '__main__':
  command_line.run(main, define_flags)
