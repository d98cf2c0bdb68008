"""The flags of main.py; whatever is wrong with them is one message."""

import contextlib
import errno
import os
import pathlib
import re
import signal
import sys
import time
import traceback

from absl import flags
from ml_collections import config_flags

FLAGS = flags.FLAGS
_TAKEN_BY = {
  'input': ('predict',),
  'output': ('predict', 'export'),
  'write': ('predict',),
  'distributed': ('train', 'evaluate'),
}  # Flag -> modes.
_NEEDED_BY = {'predict': ('input', 'output'), 'export': ('output',)}
_JOB = ('coordinator_address', 'num_processes', 'process_id')
_WHAT_STAYS = {
  'train': 'training goes on from its latest checkpoint, if there is one',
  'predict': 'masks that are written already stay, all else begins anew',
  'evaluate': 'it begins anew',
  'export': 'it begins anew',
}  # Mode -> what the same command does when it is given again.
_NO_CONFIG = (
  '--config: this file has no get_config() that returns a config; see'
  ' configs/demo.py'
)


def parse(argv):
  """Defines and parses the flags.

  Config fields on the command line are read here, too.

  Args:
    argv: the program's name and its arguments.

  Returns:
    `argv`, as `app.run` wants it.

  Raises:
    SystemExit: a flag is wrong.
  """
  try:
    _define()
    rest = FLAGS(argv)[1:]
  except flags.Error as error:
    reason = str(error)
    if 'get_config() takes' in reason:
      reason = '--config: this file has no parts, nothing may follow its .py'
    elif '\n' in reason:  # A trace of the file.
      sys.exit(_explain_config(error))
    sys.exit(f'{reason}; see --help')
  except (OSError, SyntaxError, ImportError) as error:
    sys.exit(f'--config cannot be read: {error}')
  except (AttributeError, KeyError) as error:  # ml_collections nests them.
    if _places(error):
      sys.exit(_explain_config(error))
    reason = error.args[0]
    if isinstance(reason, KeyError):
      reason = reason.args[0]
    reason = reason.replace("'", '').replace('\n', '. ')
    if 'get_config' in reason or 'NoneType' in reason:
      sys.exit(_NO_CONFIG)
    sys.exit(f'no such config field: {reason} (see configs/default.py)')
  except Exception as error:  # The file may run anything.
    sys.exit(_explain_config(error))
  if not FLAGS.distributed and any(FLAGS[name].present for name in _JOB):
    sys.exit(f'--{", --".join(_JOB)} need --distributed')
  if not FLAGS.workdir:
    sys.exit('--workdir is empty: name the folder of the run')
  for name, modes in _TAKEN_BY.items():
    if FLAGS[name].present and FLAGS.mode not in modes:
      sys.exit(f'--{name} needs --mode={" or --mode=".join(modes)}')
  for name in _NEEDED_BY.get(FLAGS.mode, ()):
    if not FLAGS[name].value:
      sys.exit(f'--mode={FLAGS.mode} needs --{name}; see --help')
  for name in ('workdir', 'input', 'output'):  # No shell does after a `=`.
    if FLAGS[name].value:
      FLAGS[name].value = os.path.expanduser(FLAGS[name].value)
  if rest:
    sys.exit(f'{" ".join(rest)}: not a flag; write --NAME=VALUE, see --help')
  path = config_flags.get_config_filename(FLAGS['config']).split(':')[0]
  if not os.path.isfile(path):
    sys.exit(f'--config={path}: there is no such file; see configs/')
  if FLAGS.config is None:
    sys.exit(_NO_CONFIG)
  return argv


def overrides():
  """Config fields given on the command line: dotted name -> value."""
  return config_flags.get_override_values(FLAGS['config'])


def join_job(initialize):
  """Joins the other processes of the job.

  Args:
    initialize: `jax.distributed.initialize`.

  Raises:
    ConnectionError: the job cannot be joined.
  """
  try:
    initialize(*(FLAGS[name].value for name in _JOB))
  except (ValueError, RuntimeError) as error:
    raise ConnectionError(
      f'--distributed: {error} Outside of TPU pods and Slurm give all of'
      f' --{", --".join(_JOB)}, the same address to every process.'
    ) from error


def require_device(find):
  """Refuses to start where JAX finds no device of the platform asked for.

  Args:
    find: `jax.devices`.

  Raises:
    ConnectionError: there is none.
  """
  try:
    find()
  except (RuntimeError, AssertionError) as error:  # The latter for cuda.
    platform = os.environ.get('JAX_PLATFORMS', 'any')
    raise ConnectionError(
      f'JAX_PLATFORMS={platform}: JAX finds no such device ({error}); install'
      ' its wheels (README, Accelerators), or unset JAX_PLATFORMS'
    ) from error


def unwinding():
  """A context in which SIGTERM lets the command clean up, as Ctrl-C does.

  In a job of several processes JAX notes it, and training asks for it. Other
  modes end at once there: at a usual end a process waits for the others.
  """
  from input_pipeline import command_line  # After the flags, as all of it.

  if not FLAGS.distributed:
    return command_line.exit_on_sigterm()
  if FLAGS.mode != 'train':
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
  return contextlib.nullcontext()


def explain(error, *, mode):
  """Says in one message what a person can put right.

  Args:
    error: what ended the command.
    mode: what it did, the value of `--mode`.

  Returns:
    The message; '' for an error of the program.
  """
  again = f'give the same command again, {_WHAT_STAYS[mode]}'
  if isinstance(error, KeyboardInterrupt):
    return f'interrupted; {again}'
  text = f'{type(error).__name__}: {error}'
  if isinstance(error, ImportError):
    return f'{text}: install what requirements.txt names anew'
  if isinstance(error, OSError):
    is_full = error.errno == errno.ENOSPC
  else:  # TensorFlow has errors of its own.
    is_full = os.strerror(errno.ENOSPC) in text
  if is_full:
    return (
      f'{text}: the disk of --workdir or --output is full; make room and'
      f' {again}'
    )
  if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in text:
    return (
      f'out of memory: {text.splitlines()[0][:200]}. Use a smaller'
      ' config.batch_size, config.eval.batch_size or config.data.height and'
      ' width; for the host, config.data.reader=tf'
    )
  known = isinstance(error, (ValueError, OSError, FloatingPointError))
  return text if known else ''


def leave(error, *, process=None):
  """Ends the process after an error or a signal, with one message.

  At once: at its usual end Python waits for what XLA compiles and Orbax saves
  still, and may crash; and a process of a job waits for the others, and they
  for it, five minutes. So they notice within two.

  Args:
    error: what ended the command; SystemExit is SIGTERM, which has been told.
    process: the number of this process of a job.
  """
  status = 1
  if isinstance(error, SystemExit):
    status = error.code
  else:
    message = explain(error, mode=FLAGS.mode)
    if FLAGS.trace or not message:
      traceback.print_exception(error)
    if process is not None:
      message = f'process {process}: {message or error}'
    if message:
      print(message, file=sys.stderr)
  if process == 0:  # The others need it to end as tidily, if they end, too.
    time.sleep(2)
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):  # Such as a pipe that was closed.
      stream.flush()
  os._exit(status)


def _explain_config(error):
  """Where the file of --config fails, and why."""
  text = ''.join(traceback.format_exception(error)).strip()
  reason = text.splitlines()[-1]
  # ml_collections lists every field there is.
  reason = re.sub(r'Other fields present: ".*}"', '', reason)
  return f'--config: {"".join(_places(error)[-1:])}{reason}'


def _places(error):
  """Where an error passed through config files, the innermost place last."""
  text = ''.join(traceback.format_exception(error))
  others = (
    os.path.dirname(__file__),
    os.path.dirname(os.__file__),  # Python's own, and site-packages below.
    'site-packages',
    '<frozen',
  )
  program = os.path.abspath(sys.argv[0])
  return [
    f'{path}, line {line}: '
    for path, line in re.findall(r'File "(.+)", line (\d+), in', text)
    if os.path.abspath(path) != program
    and not any(part in path for part in others)
  ]


def _define():
  reference = pathlib.Path(__file__).parents[1] / 'configs' / 'default.py'
  config_flags.DEFINE_config_file('config', str(reference))
  flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
  flags.DEFINE_enum(
    'mode', 'train', ['train', 'evaluate', 'predict', 'export'], 'What to do.'
  )
  flags.DEFINE_string(
    'input', None, 'predict: an image, a video or a folder of images.'
  )
  flags.DEFINE_string(
    'output', None, 'predict: folder for the results; export: the file.'
  )
  flags.DEFINE_enum(
    'write', 'depth', ['depth', 'labels'], 'predict: what to write.'
  )
  flags.DEFINE_bool('distributed', False, 'Join the other processes of a job.')
  # On TPU pods and under Slurm these are found out.
  flags.DEFINE_string('coordinator_address', None, 'HOST:PORT of process 0.')
  flags.DEFINE_integer('num_processes', None, 'distributed: processes in all.')
  flags.DEFINE_integer('process_id', None, 'distributed: this process.')
  flags.DEFINE_bool('trace', False, 'Show where in the code an error arose.')
  for flag in FLAGS.get_key_flags_for_module(__name__):  # For --help.
    FLAGS.register_key_flag_for_module(sys.argv[0], flag)
