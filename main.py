"""Entry point: trains, evaluates, predicts or exports. See the README."""

import logging
import os

from absl import app, flags

from sgde_jax import cli

FLAGS = flags.FLAGS


def main(_):
  """Starts the job's processes and runs the mode; one message if it fails."""
  logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s %(message)s',
    datefmt='%H:%M:%S',
    force=True,
  )
  logging.getLogger('jax').setLevel(logging.WARNING)
  # Orbax warns of what we ask it for, and traces errors that it also raises.
  for library in ('absl', 'orbax', 'asyncio'):
    logging.getLogger(library).setLevel(logging.CRITICAL)
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # And its two notices.
  import jax  # After the flags, so that a wrong one is refused at once.

  try:
    if FLAGS.distributed:
      cli.join_job(jax.distributed.initialize)
    cli.require_device(jax.devices)
    with cli.unwinding():
      _run()
  except BaseException as error:
    if isinstance(error, SystemExit) and FLAGS.distributed:
      raise  # The processes agreed on it and wait for each other.
    in_job = jax.distributed.is_initialized()
    cli.leave(error, process=jax.process_index() if in_job else None)


def _run():
  """Reads the config and does what the mode says."""
  from sgde_jax import configuration, parallel
  from sgde_jax.configs import default
  from sgde_jax.weights import checkpoints

  with parallel.failing_together():
    configuration.check_fields(FLAGS.config, default.get_config())
    config = configuration.resolve(
      FLAGS.config,
      FLAGS.workdir,
      cli.overrides(),
      given=FLAGS['config'].present,
    )
    configuration.check(config)
    latest = checkpoints.latest_step(FLAGS.workdir)
  parallel.check_same({'configs': config.to_json(), 'checkpoints': str(latest)})
  from sgde_jax import folders
  from sgde_jax.evaluation import depth
  from sgde_jax.inference import export, images
  from sgde_jax.training import loop

  if FLAGS.mode == 'train':
    with folders.claimed(FLAGS.workdir):
      loop.train_and_evaluate(config, FLAGS.workdir)
  elif FLAGS.mode == 'evaluate':
    depth.evaluate(config, FLAGS.workdir)
  elif FLAGS.mode == 'export':
    export.export(config, FLAGS.workdir, FLAGS.output)
  else:
    images.predict(
      config, FLAGS.workdir, FLAGS.input, FLAGS.output, write=FLAGS.write
    )


if __name__ == '__main__':
  app.run(main, flags_parser=cli.parse)
