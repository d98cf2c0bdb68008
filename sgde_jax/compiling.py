"""`jax.jit` with XLA's options for the platform at hand."""

import jax

# Convolutions by Eigen. YNNPACK's, XLA's default on CPUs, take three times as
# long for the gradient of weights; see docs/EXPERIMENTS.md, "Speed".
_CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type': ''}


def jit(function, *, cpu_options=None, **options):
  """Returns `jax.jit` of a function that is not called by another such one.

  Args:
    function: what to compile.
    cpu_options: more of XLA's options where the default backend is the CPU.
    **options: as for `jax.jit`.

  Returns:
    The jitted function.
  """
  compiler_options = None
  if jax.default_backend() == 'cpu':
    compiler_options = _CPU_OPTIONS | (cpu_options or {})
  return jax.jit(function, compiler_options=compiler_options, **options)
