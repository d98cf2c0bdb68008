"""The mesh and what lies where on it: data parallel over one axis."""

import contextlib
import hashlib
import logging

import jax
import numpy as np
from jax.experimental import multihost_utils

from sgde_jax import compiling

_AXIS = 'data'


def create_mesh(devices=None):
  """Returns a mesh of all (or the given) devices with one axis, `data`.

  Its rows lie in the order of the processes, which read them. `jax.make_mesh`
  may order them otherwise, and refuses several GPU nodes.
  """
  devices = jax.devices() if devices is None else devices
  logging.info('devices: %d %s', len(devices), devices[0].device_kind)
  devices = sorted(devices, key=lambda d: (d.process_index, d.id))
  return jax.sharding.Mesh(
    np.array(devices), (_AXIS,), axis_types=(jax.sharding.AxisType.Auto,)
  )


def replicated(mesh):
  """The sharding of parameters: a copy on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def batch_sharded(mesh):
  """The sharding of a batch: its rows split over the devices."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_AXIS))


def check_batch_size(batch_size, mesh, name):
  """Raises ValueError if the global batch does not split over the devices."""
  if batch_size % mesh.size:
    raise ValueError(
      f'{name} = {batch_size} does not split over {mesh.size} devices:'
      f' use a multiple of {mesh.size}'
    )


def to_devices(batch, mesh):
  """Puts each process' rows of a batch on its devices, as global arrays.

  Args:
    batch: pytree of NumPy arrays `[B / P, ...]`, this process' rows.
    mesh: the mesh.

  Returns:
    The same pytree of global `jax.Array`s `[B, ...]`.
  """
  sharding = batch_sharded(mesh)
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch
  )


def jit_by_rows(step, mesh):
  """Compiles a step that each process feeds its rows and gets them back from.

  Args:
    step: maps replicated variables and `[B, ...]` frames to a pytree of arrays
      with a row per frame.
    mesh: the mesh.

  Returns:
    A function of the variables and this process' frames, `[B / P, ...]`
    NumPy, to NumPy arrays.
  """
  compiled = compiling.jit(
    step,
    in_shardings=(replicated(mesh), batch_sharded(mesh)),
    out_shardings=batch_sharded(mesh),
  )

  def run(variables, frames):
    rows = compiled(variables, to_devices(frames, mesh))
    return jax.tree.map(local_rows, rows)

  return run


def device_batches(batches, mesh):
  """Yields an iterator's batches as global arrays, see `to_devices`."""
  return (to_devices(batch, mesh) for batch in batches)


def replicate(tree, mesh):
  """Copies a host's pytree (equal on every process) to every device."""
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(
      replicated(mesh), np.asarray(leaf), np.shape(leaf)
    ),
    tree,
  )


def local_rows(array, most=None):
  """Returns this process' (first) rows of a batch-sharded array, as NumPy."""
  shards = sorted(
    array.addressable_shards, key=lambda shard: shard.index[0].start or 0
  )
  rows = [np.asarray(shard.data[:most]) for shard in shards[:most]]
  return np.concatenate(rows)[:most]


def gather_rows(rows):
  """Concatenates every process' NumPy rows, in process order, on each."""
  if jax.process_count() == 1:
    return rows
  # As bytes: JAX would shorten numbers of 64 bits to 32.
  parts = np.ascontiguousarray(rows)[..., None].view(np.uint8)
  gathered = multihost_utils.process_allgather(parts, tiled=True)
  return np.ascontiguousarray(gathered).view(rows.dtype)[..., 0]


@contextlib.contextmanager
def failing_together():
  """Ends its body on every process where it fails on one.

  Raises:
    ConnectionError: the body failed on another process alone, which says why.
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
      f'process {failed.argmax()} of this job was refused: see its message'
    )


def refuse_differences(values):
  """Refuses processes that were not given the same.

  Args:
    values: dict of what it is -> text.

  Raises:
    ValueError: they differ; the message names what does.
  """
  digests = [hashlib.sha256(text.encode()).digest() for text in values.values()]
  own = np.array([list(digest) for digest in digests], np.uint8)
  everyone = gather_rows(own[None])
  differing = (everyone != own).any(axis=(0, 2))
  if differing.any():
    names = [
      name for name, is_other in zip(values, differing, strict=True) if is_other
    ]
    raise ValueError(
      f'the processes of this job have different {", ".join(names)}: give each'
      ' the same command, files and --workdir, on a disk that all share'
    )
