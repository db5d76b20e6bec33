"""Devices: one mesh, where every array of a training run lies on it, and how a step is split over it.

The mesh has two axes. `data` holds copies of the parameters; over `model` parameters, optimizer state and averages are
cut up, each device keeping a part (fully sharded data parallelism). A batch is cut over both, because devices that
share a set of parameters would otherwise all do the same work. Nothing else in the project names an axis.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"
_BATCH = PartitionSpec((DATA, MODEL))
SMALLEST_SHARDED = 4096  # elements; a message costs more than what cutting up smaller arrays saves


def make_mesh(model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices of all hosts.

    Args:
      model: devices over which one set of parameters is cut up; 1 keeps them whole.
      devices: None is all.

    Returns:
      `jax.sharding.Mesh` with axes (data, model).

    Raises:
      ValueError: `model` does not divide the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    if model < 1 or count % model:
        raise ValueError(f"`mesh.model` (={model!r}) must divide the number of devices, {count}")
    return jax.make_mesh((count // model, model), (DATA, MODEL), (AxisType.Auto,) * 2, devices=devices)


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Raises ValueError unless a global batch can be cut evenly over the devices."""
    if batch_size < 1 or batch_size % mesh.size:
        raise ValueError(
            f"`batch_size` (={batch_size!r}) must be a multiple of the number of devices, {mesh.size}, "
            "over which it is cut"
        )


def describe(mesh: Mesh) -> str:
    """A line on the mesh for people."""
    shape, kinds = dict(mesh.shape), sorted({device.device_kind for device in mesh.devices.flat})
    hosts = "1 host" if jax.process_count() == 1 else f"{jax.process_count()} hosts"
    return f"{mesh.size} x {', '.join(kinds)} on {hosts}, mesh {shape[DATA]} data x {shape[MODEL]} model"


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
    """The sharding of an array cut over its first axis, the clips."""
    return NamedSharding(mesh, _BATCH)


def state_shardings(mesh: Mesh, state: Any) -> Any:
    """Where each array of a training state lies.

    Args:
      state: a pytree of arrays or of their shapes.

    Returns:
      The same structure of `NamedSharding`: arrays of at least 4096 elements are cut over `model` along their longest
      axis that it divides, the last of equals; others are whole.
    """

    def rule(leaf):
        parts = mesh.shape[MODEL]
        fits = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or leaf.size < SMALLEST_SHARDED or not fits:
            return replicated(mesh)
        longest = max(fits, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, MODEL))

    return jax.tree.map(rule, state)


def global_batch(mesh: Mesh, local: Any) -> Any:
    """Puts this host's part of a batch on its devices.

    Args:
      local: a pytree of NumPy arrays, the host's clips on the first axis.

    Returns:
      The same structure of global arrays.
    """
    return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, batch(mesh)), local)


def local_part(array: jax.Array) -> np.ndarray:
    """This host's entries, in order, of an array that is cut over its first axis: the inverse of `global_batch`."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def gather(mesh: Mesh, arrays: Any) -> Any:
    """A pytree of arrays that may be cut up -> NumPy arrays, the same on every host; all hosts must call it."""
    whole = jax.jit(lambda arrays: arrays, out_shardings=replicated(mesh))(arrays)
    return jax.tree.map(lambda array: np.asarray(array.addressable_data(0)), whole)


def per_device(mesh: Mesh, function: Callable[..., Any], *, summed: bool) -> Callable[..., Any]:
    """Splits a function of parameters and clips over the devices, each computing with its own clips alone.

    Args:
      function: of (whole parameters, arrays with the clips on their first axis, or None); returns an array or pytree.
      summed: add the results up over all devices; otherwise they have the clips on their first axis, too.

    Returns:
      A function of the same arguments, for use inside `jax.jit`.
    """

    def local(params, *clips):
        out = function(params, *clips)
        return jax.lax.psum(out, (DATA, MODEL)) if summed else out

    def split(params, *clips):
        specs = (PartitionSpec(), *[_BATCH] * len(clips))
        out = PartitionSpec() if summed else _BATCH
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)(params, *clips)

    return split
