"""Entry point: trains, evaluates or predicts. See the README."""

import logging
import os
import sys

from absl import app, flags
from ml_collections import config_flags

FLAGS = flags.FLAGS


def define_flags():
  """Defines the flags; config fields on the command line are read here."""
  config_flags.DEFINE_config_file('config', 'configs/default.py')
  flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
  flags.DEFINE_enum(
    'mode', 'train', ['train', 'evaluate', 'predict'], 'What to do.'
  )
  flags.DEFINE_string('input', None, 'predict: an image or a folder of images.')
  flags.DEFINE_string('output', None, 'predict: folder for the results.')
  flags.DEFINE_enum(
    'write', 'depth', ['depth', 'labels'], 'predict: what to write.'
  )
  flags.DEFINE_bool('distributed', False, 'Join the other processes of a job.')
  # On TPU pods and under Slurm these are found out.
  flags.DEFINE_string('coordinator_address', None, 'HOST:PORT of process 0.')
  flags.DEFINE_integer('num_processes', None, 'distributed: processes in all.')
  flags.DEFINE_integer('process_id', None, 'distributed: this process.')


def parse_flags(argv):
  """Defines and parses the flags; whatever is wrong is one message."""
  try:
    define_flags()
    rest = app.parse_flags_with_usage(argv)[1:]
  except (OSError, SyntaxError) as error:
    sys.exit(f'--config cannot be read: {error}')
  except (AttributeError, KeyError) as error:  # ml_collections nests them.
    reason = error.args[0]
    if isinstance(reason, KeyError):
      reason = reason.args[0]
    reason = reason.replace("'", '').replace('\n', '. ')
    sys.exit(f'no such config field: {reason} (see configs/default.py)')
  job = ('coordinator_address', 'num_processes', 'process_id')
  if not FLAGS.distributed and any(FLAGS[name].present for name in job):
    sys.exit(f'--{", --".join(job)} need --distributed')
  if rest:
    sys.exit(f'{" ".join(rest)}: not a flag; write --NAME=VALUE, see --help')
  path = config_flags.get_config_filename(FLAGS['config']).split(':')[0]
  if not os.path.isfile(path):
    sys.exit(f'--config={path}: there is no such file; see configs/')
  return argv


def main(_):
  """Starts the job's processes, reads the config and makes one call."""
  logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s %(message)s',
    datefmt='%H:%M:%S',
    force=True,
  )
  for library in ('absl', 'jax', 'orbax'):
    logging.getLogger(library).setLevel(logging.WARNING)
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # And its two notices.
  import jax  # After the flags, so that a wrong one is refused at once.

  if FLAGS.distributed:
    jax.distributed.initialize(
      FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id
    )
  from sgde_jax import configuration, evaluate, predict, train

  try:
    config = configuration.resolve(
      FLAGS.config,
      FLAGS.workdir,
      config_flags.get_override_values(FLAGS['config']),
    )
    configuration.check(config)
    if FLAGS.mode == 'train':
      train.train_and_evaluate(config, FLAGS.workdir)
    elif FLAGS.mode == 'evaluate':
      evaluate.evaluate(config, FLAGS.workdir)
    else:
      predict.predict(
        config, FLAGS.workdir, FLAGS.input, FLAGS.output, write=FLAGS.write
      )
  except (ValueError, OSError, FloatingPointError) as error:
    logging.debug('where it happened', exc_info=True)
    sys.exit(f'{type(error).__name__}: {error}')


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
