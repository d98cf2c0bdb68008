"""Times the attention between the decoders; prints one table.

  python -m benchmarks.attention
  python -m benchmarks.attention --quick
  python -m benchmarks.attention --dtype=bfloat16 --batch=12  # accelerator

Measures one `SemanticGuidedAttention` on the maps of strides 16, 8 and 4 of an
image. Milliseconds are medians; `backward ms` includes the forward pass.
`temp MiB` is the working memory of the compiled forward and backward pass,
without arguments and results. If it exceeds --memory_limit, nothing is run and
the times are `-`.
"""

import itertools

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import measuring
from sgde_jax import parallel
from sgde_jax.models import attention, decoders

FLAGS = flags.FLAGS


def _measure(module, shape, steps, memory_limit):
  """Returns a row's times and MiB, on features of a shape `(B, H, W, C)`."""
  keys = jax.random.split(jax.random.key(0), 3)
  depth = jax.random.normal(keys[0], shape, module.dtype)
  semantic = jax.random.normal(keys[1], shape, module.dtype)
  # Parameters do not depend on the map's size.
  small = jnp.zeros((1, 8, 8, shape[-1]), module.dtype)
  variables = module.init(keys[2], small, small)

  def loss(*arguments):
    return sum(jnp.sum(jnp.square(x)) for x in module.apply(*arguments))

  arguments = variables, depth, semantic
  forward = parallel.jit(module.apply).lower(*arguments).compile()
  gradient = parallel.jit(jax.grad(loss, argnums=(0, 1, 2)))
  backward = gradient.lower(*arguments).compile()
  memory = backward.memory_analysis().temp_size_in_bytes / 2**20
  if memory > memory_limit:
    return '-', '-', memory

  def milliseconds(compiled):
    def run():
      jax.block_until_ready(compiled(*arguments))

    return f'{measuring.median_ms(run, steps):.1f}'

  return milliseconds(forward), milliseconds(backward), memory


def define_flags() -> None:
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


def main(_) -> None:
  height, width = map(int, FLAGS.size)
  levels, strides = map(int, FLAGS.levels), map(int, FLAGS.key_strides)
  batch, steps = FLAGS.batch, FLAGS.steps
  if FLAGS.quick:
    batch, steps, levels = 1, 1, [level for level in levels if level > 2]
  fused = ['fused'] if jax.default_backend() == 'gpu' else []
  names = FLAGS.implementations or ['plain', 'blockwise', *fused]
  print(
    f'{batch} images, {FLAGS.heads} heads, width {FLAGS.width}, {FLAGS.dtype},'
    f' {jax.devices()[0].device_kind}'
  )
  columns = 'map|implementation|key_stride|forward ms|backward ms|temp MiB:.1f'
  table = measuring.Table(columns, width=14)
  for level, stride, name in itertools.product(levels, strides, names):
    size = height >> level, width >> level
    module = attention.SemanticGuidedAttention(
      heads=FLAGS.heads,
      width=FLAGS.width,
      key_stride=stride,
      gain_rate=1.0,  # Times do not depend on it.
      implementation=name,
      dtype=jnp.dtype(FLAGS.dtype),
    )
    shape = batch, *size, decoders.WIDTHS[level]
    figures = _measure(module, shape, steps, FLAGS.memory_limit)
    table.add(f'{size[0]} x {size[1]}', name, stride, *figures)


if __name__ == '__main__':
  define_flags()
  app.run(main)
