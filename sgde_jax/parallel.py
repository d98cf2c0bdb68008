"""Data parallelism: mesh, placement of arrays, jit options, cache, hosts."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_AXIS = 'data'

# Convolutions by Eigen. YNNPACK's, XLA's default on CPUs, take three times as
# long for the gradient of weights; see docs/experiments/10-cpu-speed.md.
_CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type': ''}


def create_mesh(devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
  """Returns a mesh of all (or the given) devices with one axis, `data`.

  Its rows are in the order of the processes that read them. `jax.make_mesh`
  may order them differently, and fails on several GPU nodes.
  """
  devices = jax.devices() if devices is None else devices
  logging.info('devices: %d %s', len(devices), devices[0].device_kind)
  devices = sorted(devices, key=lambda d: (d.process_index, d.id))
  return jax.sharding.Mesh(
    np.array(devices), (_AXIS,), axis_types=(jax.sharding.AxisType.Auto,)
  )


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Returns the sharding of parameters: a copy on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def batch_sharded(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Returns the sharding of a batch: its rows split over the devices."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_AXIS))


def check_batch_size(
  batch_size: int, mesh: jax.sharding.Mesh, name: str
) -> None:
  """Raises ValueError if the global batch does not split over the devices."""
  if batch_size % mesh.size:
    raise ValueError(
      f'{name} = {batch_size} does not split over {mesh.size} devices:'
      f' use a multiple of {mesh.size}'
    )


def cache_programs() -> None:
  """Keeps compiled programs for later processes, unless JAX already does.

  The folder is `~/.cache/sgde_jax/compiled`, or the same below
  `$XDG_CACHE_HOME`. JAX's own settings go first, such as
  `JAX_COMPILATION_CACHE_DIR=FOLDER` and `JAX_ENABLE_COMPILATION_CACHE=false`.
  JAX warns if it cannot read or write there.
  """
  if jax.config.jax_compilation_cache_dir is not None:
    return
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  if jax.config.jax_enable_compilation_cache and os.path.isabs(cache):
    folder = os.path.join(cache, 'sgde_jax', 'compiled')
    jax.config.update('jax_compilation_cache_dir', folder)
    logging.info('compiled programs: %s', folder)


def jit(
  function: Callable,
  *,
  cpu_options: Mapping | None = None,
  platform: str | None = None,
  **options: Any,
) -> Callable:
  """Returns `jax.jit(function, **options)` with XLA's options for the platform.

  Args:
    function: an outermost function; JAX ignores the options of inner ones.
    cpu_options: further XLA options if the platform is `cpu`.
    platform: of the devices that run it, by default JAX's default backend.
    **options: options of `jax.jit`.
  """
  compiler_options = None
  if (platform or jax.default_backend()) == 'cpu':
    compiler_options = _CPU_OPTIONS | dict(cpu_options or {})
  return jax.jit(function, compiler_options=compiler_options, **options)


def jit_by_rows(step: Callable, mesh: jax.sharding.Mesh) -> Callable:
  """Compiles a step that maps each process' rows to its rows of the result.

  Args:
    step: maps replicated variables and `[B, ...]` frames to a pytree of arrays
      with a row per frame.
    mesh: the mesh.

  Returns:
    A function of the variables and this process' frames, `[B / P, ...]`
    NumPy, to NumPy arrays.
  """
  start = start_by_rows(step, mesh)

  def run(variables, frames):
    return jax.tree.map(local_rows, start(variables, frames))

  return run


def start_by_rows(step: Callable, mesh: jax.sharding.Mesh) -> Callable:
  """Like `jit_by_rows`, but returns at once, with `jax.Array`s."""
  compiled = jit(
    step,
    platform=mesh.devices.flat[0].platform,
    in_shardings=(replicated(mesh), batch_sharded(mesh)),
    out_shardings=batch_sharded(mesh),
  )

  def start(variables, frames):
    return compiled(variables, to_devices(frames, mesh))

  return start


def to_devices(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """Puts each process' rows of a batch on its devices, as global arrays.

  Maps a pytree of NumPy arrays `[B / P, ...]`, with P processes, to global
  `jax.Array`s `[B, ...]`.
  """
  sharding = batch_sharded(mesh)
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch
  )


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Copies a host's pytree (equal on every process) to every device."""
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(
      replicated(mesh), np.asarray(leaf), np.shape(leaf)
    ),
    tree,
  )


def local_rows(array: jax.Array, most: int | None = None) -> np.ndarray:
  """Returns this process' (first) rows of a batch-sharded array."""
  shards = sorted(
    array.addressable_shards, key=lambda shard: shard.index[0].start or 0
  )
  rows = [np.asarray(shard.data[:most]) for shard in shards[:most]]
  return np.concatenate(rows)[:most]


def gather_rows(rows: np.ndarray) -> np.ndarray:
  """Concatenates the rows of all processes, in process order, on each."""
  if jax.process_count() == 1:
    return rows
  # As bytes: JAX would shorten numbers of 64 bits to 32.
  parts = np.ascontiguousarray(rows)[..., None].view(np.uint8)
  gathered = multihost_utils.process_allgather(parts, tiled=True)
  return np.ascontiguousarray(gathered).view(rows.dtype)[..., 0]


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
  """Raises on every process if its body fails on one.

  Raises:
    ConnectionError: if it failed on another process, which has the message.
  """
  error = None
  try:
    yield
  except Exception as problem:
    error = problem
  failed = gather_rows(np.array([error is not None]))
  if error is not None:
    raise error
  if failed.any():
    raise ConnectionError(
      f'process {failed.argmax()} of this job failed: see its message'
    )


def check_same(values: Mapping[str, str]) -> None:
  """Raises ValueError if the processes of a job have different values.

  Args:
    values: name -> text; the message lists the names that differ.
  """
  digests = [hashlib.sha256(text.encode()).digest() for text in values.values()]
  own = np.array([list(digest) for digest in digests], np.uint8)
  differs = (gather_rows(own[None]) != own).any(axis=(0, 2))
  if differs.any():
    names = [name for name, other in zip(values, differs, strict=True) if other]
    raise ValueError(
      f'the processes of this job have different {", ".join(names)}: give each'
      ' the same command, files and --workdir, on a disk that all share'
    )
