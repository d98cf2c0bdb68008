"""Trains, evaluates, reports, predicts, exports or publishes.

python main.py --config=demo --workdir=runs/demo

python main.py --mode=predict --workdir=runs/demo --input=FILE --output=FOLDER

Every field of configs/default.py is a flag, --config.FIELD=VALUE.
"""

import errno
import logging
import os
import re
import signal
import sys
import time
import traceback

from absl import app, flags
from ml_collections import config_flags

import input_pipeline
from input_pipeline import command_line
from sgde_jax import configuration

_OPTIONAL = ('scale', 'intrinsics', 'fov', 'baseline')
# Mode -> the effect of repeating it, and the flags that not all modes take.
_MODES = {
  'train': ('training continues from its checkpoint, if any', 'distributed'),
  'evaluate': ('evaluation starts over', 'distributed'),
  'predict': (
    'complete results are kept',
    *('input', 'output', 'write', 'scale', 'intrinsics', 'fov'),
  ),
  'report': ('the report is written again', 'baseline'),
  'export': ('the export starts over', 'output', 'format', 'batch'),
  'publish': ('publishing starts over', 'output'),
}
_KINDS = (
  'inverse_depth, png16, benchmark, ply, labels, overlay, video, trajectory'
)
_CONFIG = 'Name or file: default, demo, ablation:seem, configs/demo.py.'
FORMATS = ['stablehlo', 'savedmodel', 'tflite', 'onnx']
_JOB = ('coordinator_address', 'num_processes', 'process_id')
_FLAGS = (
  (flags.DEFINE_string, 'workdir', None, 'Folder of the run.'),
  (flags.DEFINE_string, 'input', None, 'predict: image, video or folder.'),
  (flags.DEFINE_string, 'output', None, 'Folder; for export: file.'),
  (flags.DEFINE_enum, 'mode', 'train', list(_MODES), 'The mode.'),
  (flags.DEFINE_list, 'write', 'inverse_depth', f'predict: {_KINDS}.'),
  (flags.DEFINE_string, 'scale', None, 'predict: metres, or evaluation.'),
  (flags.DEFINE_list, 'intrinsics', None, 'predict: fx,fy,cx,cy in pixels.'),
  (flags.DEFINE_float, 'fov', None, 'predict: horizontal, in degrees.'),
  (flags.DEFINE_string, 'baseline', None, 'report: a second workdir.'),
  (flags.DEFINE_enum, 'format', 'stablehlo', FORMATS, 'For export.'),
  (flags.DEFINE_integer, 'batch', 0, 'export: images; 0: any.', 0),
  (flags.DEFINE_bool, 'distributed', False, 'Join the processes of a job.'),
  # TPU pods and Slurm set these three.
  (flags.DEFINE_string, 'coordinator_address', None, 'HOST:PORT of process 0.'),
  (flags.DEFINE_integer, 'num_processes', None, 'Processes of the job.'),
  (flags.DEFINE_integer, 'process_id', None, 'This process, from 0.'),
  (flags.DEFINE_bool, 'trace', False, 'Show the traceback of every error.'),
)


def run() -> None:
  """Runs the command of `sys.argv`."""
  command_line.protect_output()
  sys.modules['__main__'].__doc__ = __doc__  # Shown by --help.
  app.run(main, flags_parser=parse)


def parse(argv: list[str], args: flags.FlagValues = flags.FLAGS) -> list[str]:
  """Reads the flags of `argv` into `args`; exits if one is wrong."""
  pattern = re.compile(r'^--?(?:no)?config\.([^=\s]+)', re.MULTILINE)
  for field in configuration.unknown_fields(pattern.findall('\n'.join(argv))):
    sys.exit(f'sgde-jax: error: no config field {field}; see --help')
  try:
    _define(argv, args)
    rest = args(argv)[1:]
  except flags.Error as error:
    sys.exit(f'sgde-jax: error: {error}; see --help')
  for problem in _find_problems(args, rest):
    sys.exit(f'sgde-jax: error: {problem}; see --help')
  # No shell expands `--input=~`.
  for name in ('workdir', 'input', 'output', 'baseline'):
    if args[name].value:
      args[name].value = os.path.expanduser(args[name].value)
  return argv


class _ConfigParser(config_flags.config_flags.ConfigFileFlagParser):
  """Reads a config by name or by path."""

  def parse(self, name):
    return super().parse(configuration.find(name))


def _define(argv, args):
  config_flags.DEFINE_config_file(
    'config', configuration.find('default'), _CONFIG, args, sys_argv=argv
  )
  args['config'].parser = _ConfigParser('config')
  for define, *flag in _FLAGS:
    define(*flag, flag_values=args)
  for flag in args.get_key_flags_for_module(__name__):  # For --help.
    args.register_key_flag_for_module(sys.argv[0], flag)


def _find_problems(args, rest):
  """Yields problems of flags that absl accepts."""
  if rest:
    yield f'{" ".join(rest)}: not a flag, write --NAME=VALUE'
  if not args.workdir:
    yield '--workdir=FOLDER is missing'
  if not args.distributed and any(args[name].present for name in _JOB):
    yield f'--{", --".join(_JOB)} need --distributed'
  names = ('distributed', 'input', 'output', 'write', 'format', 'batch')
  for name in (*names, *_OPTIONAL):
    is_taken = name in _MODES[args.mode]
    if args[name].present and not is_taken:
      yield f'--mode={args.mode} takes no --{name}'
    is_needed = is_taken and name not in _OPTIONAL
    if args[name].value in (None, '', []) and is_needed:
      yield f'--mode={args.mode} needs --{name}'
  for kind in set(args.write) - set(_KINDS.split(', ')):
    yield f'--write={kind}: choose from {_KINDS}'


def main(_: list[str]) -> None:
  """Runs the mode; reports user-fixable errors in one line."""
  args = flags.FLAGS
  log_format = {'format': '%(asctime)s %(message)s', 'datefmt': '%H:%M:%S'}
  logging.basicConfig(level=logging.INFO, force=True, **log_format)
  for library in ('absl', 'jax', 'orbax'):
    logging.getLogger(library).setLevel(logging.WARNING)
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  again = f'repeat the command, {_MODES[args.mode][0]}'
  if not args.distributed:  # Clean up at a time limit as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
  try:
    execute(args)
  except KeyboardInterrupt:
    _exit_at_once(f'interrupted: {again}', 128 + signal.SIGINT)
  except SystemExit as error:
    if args.distributed:  # All processes end and wait for each other.
      raise
    _exit_at_once(f'terminated: {again}', error.code)
  except Exception as error:
    message = explain(error, again)
    if args.trace or not message:
      traceback.print_exc()
    if args.distributed:
      _leave_job(message or str(error))
    sys.exit(message or 1)


def execute(args: flags.FlagValues) -> None:
  """Runs the selected mode."""
  config = _join_job(args) if args.distributed else _read_config(args)
  from sgde_jax import parallel

  parallel.cache_programs()
  if args.mode == 'train':
    from sgde_jax.training import loop

    loop.train_and_evaluate(config, args.workdir)
  elif args.mode == 'evaluate':
    from sgde_jax.evaluation import run

    run.evaluate(config, args.workdir)
  elif args.mode == 'report':
    from sgde_jax.evaluation import report

    report.write(config, args.workdir, baseline=args.baseline)
  elif args.mode == 'export':
    from sgde_jax.inference import export

    export.export(
      config, args.workdir, args.output, format=args.format, batch=args.batch
    )
  elif args.mode == 'publish':
    from sgde_jax.inference import publish

    publish.publish(config, args.workdir, args.output)
  else:
    from sgde_jax.inference import images

    paths = args.workdir, args.input, args.output
    images.predict(
      config,
      *paths,
      write=args.write,
      scale=args.scale,
      intrinsics=args.intrinsics,
      fov=args.fov,
    )


def _read_config(args):
  flag = args['config']
  overrides = config_flags.get_override_values(flag)
  config = configuration.resolve(
    args.config, args.workdir, overrides, given=flag.present
  )
  configuration.check(config)
  if args.mode in ('train', 'evaluate'):  # Evaluation may need no lists.
    train = args.mode == 'train'
    input_pipeline.check_paths(config.data, train=train, evaluation=train)
  return config


def _join_job(args):
  """Joins the job's processes; returns the config, equal on all of them."""
  import jax

  jax.distributed.initialize(*(args[name].value for name in _JOB))
  if args.mode != 'train':  # Training stops through JAX, the others at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
  from sgde_jax import parallel
  from sgde_jax.weights import checkpoints

  with parallel.failing_together():
    config = _read_config(args)
    step = checkpoints.latest_step(args.workdir)
  parallel.check_same({'configs': config.to_json(), 'checkpoints': str(step)})
  return config


def explain(error: Exception, again: str) -> str:
  """Formats a user-fixable error as one line; '' for others."""
  if os.strerror(errno.ENOSPC) in str(error):  # Its class varies.
    return f'sgde-jax: error: {error}: make room on the disk and {again}'
  fixable = isinstance(error, ValueError | OSError | FloatingPointError)
  return f'sgde-jax: error: {error}' if fixable else ''


def _leave_job(message):
  """Ends a failed process of a job; the other processes notice later."""
  import jax

  if jax.distributed.is_initialized():
    number = jax.process_index()
    if number == 0:  # The others need it to report their own errors.
      time.sleep(2)
    _exit_at_once(f'process {number}: {message}', 1)


def _exit_at_once(message, status):
  """Ends the process without Python's clean-up.

  If a signal arrives while XLA compiles, the usual exit can crash or hang. In
  a job of several processes, it waits five minutes for the others.
  """
  print(message, file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(status)
