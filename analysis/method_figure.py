"""Draws the outputs of each part of the method for a training example.

  python -m analysis.method_figure --workdir=runs/demo

Takes the first example of the first batch of a trained run and writes
WORKDIR/method.png, the figure in docs/method.md.
"""

import functools
import pathlib

import jax
from absl import app, flags, logging

import input_pipeline
from sgde_jax import configuration, parallel, visualization
from sgde_jax.configs import default
from sgde_jax.evaluation import panels
from sgde_jax.training import loop, steps
from sgde_jax.weights import initial

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('workdir', None, 'A trained run.', required=True)
  flags.DEFINE_string('output', '', 'A PNG; WORKDIR/method.png if empty.')


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)
  config = configuration.resolve(default.get_config(), FLAGS.workdir, {})
  mesh = parallel.create_mesh(jax.devices()[:1])
  model, state = initial.load_trained(config, FLAGS.workdir, mesh)
  data = input_pipeline.open_data(config.data, evaluation=False)
  batches = data.train_batches(
    seed=config.seed, start_step=0, batch_size=config.batch_size
  )
  batch = parallel.to_devices(next(batches), mesh)
  loss = loop.bind_loss(config.loss, model)
  preview = functools.partial(steps.preview_step, model=model, loss=loss)
  pictures = jax.device_get(parallel.jit(preview)(state.variables, batch))
  example = {name: array[0] for name, array in pictures.items()}
  output = pathlib.Path(FLAGS.output or f'{FLAGS.workdir}/method.png')
  visualization.write_png(output, panels.training_panel(example))
  print(f'wrote {output}')


if __name__ == '__main__':
  define_flags()
  app.run(main)
