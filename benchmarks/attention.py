"""Times the attention between the decoders; prints one table.

  python -m benchmarks.attention
  python -m benchmarks.attention --quick
  python -m benchmarks.attention --dtype=bfloat16 --batch=12  # accelerator

One `SemanticGuidedAttention` on the maps of strides 16, 8 and 4 of an image.
Milliseconds are medians; `backward` includes the forward pass. `temp MiB` is
the working memory of the compiled forward and backward pass beyond arguments
and results. Where that exceeds --memory_limit the work is not run: `-`.
"""

import itertools
import statistics
import time

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import command_line
from sgde_jax import parallel
from sgde_jax.models import attention, decoders

FLAGS = flags.FLAGS

_HEADER = (
  'map',
  'implementation',
  'key_stride',
  'forward ms',
  'backward ms',
  'temp MiB',
)


def _milliseconds(compiled, arguments, steps):
  """Median time of a call."""
  times = []
  for _ in range(steps + 1):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    times.append(1e3 * (time.perf_counter() - start))
  return statistics.median(times[1:])


def measure(module, shape, dtype, *, steps, memory_limit):
  """Compiles and times the module's forward and backward pass.

  Args:
    module: a `SemanticGuidedAttention`.
    shape: `(B, H, W, C)` of the features.
    dtype: their dtype.
    steps: number of timed calls.
    memory_limit: MiB of working memory beyond which nothing is run.

  Returns:
    Forward and backward milliseconds, None if not run; and the MiB.
  """
  keys = jax.random.split(jax.random.key(0), 3)
  depth = jax.random.normal(keys[0], shape, dtype)
  semantic = jax.random.normal(keys[1], shape, dtype)
  # Initialised on a small map: parameters do not depend on its size.
  small = jnp.zeros((1, 8, 8, shape[-1]), dtype)
  variables = module.init(keys[2], small, small)

  def loss(*arguments):
    return sum(jnp.sum(jnp.square(x)) for x in module.apply(*arguments))

  arguments = variables, depth, semantic
  forward = parallel.jit(module.apply).lower(*arguments).compile()
  gradient = parallel.jit(jax.grad(loss, argnums=(0, 1, 2)))
  backward = gradient.lower(*arguments).compile()
  memory = backward.memory_analysis().temp_size_in_bytes / 2**20
  if memory > memory_limit:
    return None, None, memory
  return (
    _milliseconds(forward, arguments, steps),
    _milliseconds(backward, arguments, steps),
    memory,
  )


def _implementations():
  """Those asked for, or all that run on this machine."""
  if FLAGS.implementations:
    return FLAGS.implementations
  on_gpu = jax.default_backend() == 'gpu'
  return ['plain', 'blockwise'] + (['fused'] if on_gpu else [])


def define_flags():
  """Defines what the command line takes."""
  flags.DEFINE_list('size', ['192', '640'], 'Image height and width.')
  flags.DEFINE_integer('batch', 4, 'Images.')
  flags.DEFINE_integer('heads', 4, 'Heads.')
  flags.DEFINE_integer('width', 64, 'Channels of queries, keys and values.')
  flags.DEFINE_list('levels', ['4', '3', '2'], 'Decoder levels; stride 2^i.')
  flags.DEFINE_list('key_strides', ['1', '2', '4'], 'Pooling of the keys.')
  flags.DEFINE_list('implementations', [], 'Default: all that run here.')
  flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the maps.')
  flags.DEFINE_integer('steps', 5, 'Timed calls after the first.')
  flags.DEFINE_float('memory_limit', 4096, 'MiB.')
  flags.DEFINE_bool('quick', False, 'One image, one timed call, no stride 4.')
  command_line.require_integers('size', 16)
  command_line.require_integers('key_strides', 1)
  levels = [str(level) for level in range(len(decoders.WIDTHS))]
  command_line.require_choices('levels', levels)


def main(_):
  """Prints a Markdown table, a row per map and implementation."""
  height, width = map(int, FLAGS.size)
  batch, steps, levels = FLAGS.batch, FLAGS.steps, FLAGS.levels
  if FLAGS.quick:
    batch, steps = 1, 1
    levels = [level for level in levels if int(level) > 2]
  device = jax.devices()[0].device_kind
  print(
    f'{batch} images, {FLAGS.heads} heads, width {FLAGS.width}, {FLAGS.dtype},'
    f' {device}'
  )
  print('| ' + ' | '.join(_HEADER) + ' |')
  print('|---' * len(_HEADER) + '|')
  for level, stride, name in itertools.product(
    map(int, levels), map(int, FLAGS.key_strides), _implementations()
  ):
    size = height >> level, width >> level
    module = attention.SemanticGuidedAttention(
      heads=FLAGS.heads,
      width=FLAGS.width,
      key_stride=stride,
      implementation=name,
      dtype=jnp.dtype(FLAGS.dtype),
    )
    *times, memory = measure(
      module,
      (batch, *size, decoders.WIDTHS[level]),
      jnp.dtype(FLAGS.dtype),
      steps=steps,
      memory_limit=FLAGS.memory_limit,
    )
    cells = ['-' if t is None else f'{t:.1f}' for t in times]
    cells = [f'{size[0]} x {size[1]}', name, str(stride), *cells]
    print('| ' + ' | '.join([*cells, f'{memory:.1f}']) + ' |', flush=True)


if __name__ == '__main__':
  command_line.run(main, define_flags)
