"""Where arrays live: a mesh of (data, fsdp, tensor), one table of rules for parameters, batches over data and fsdp.

Under `jit` the step's sums are over the whole batch, wherever its rows lie: the same program on one device and on many.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Logical axis of a parameter -> mesh axis; None: on every device whole. A name that is not here is an error.
RULES: dict[str, str | None] = {
    "vocab": "tensor",
    "heads": "tensor",  # outputs of q, k and v, inputs of o
    "mlp": "tensor",
    "embed": "fsdp",  # the residual stream's side of a matrix
    "rank": None,  # of an adapter
    "norm": None,  # vectors along the residual stream: small, and needed whole
    "patch": None,
    "position": None,
}


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """All devices, or those given, as (data, fsdp, tensor); one of the sizes may be -1 and takes what the others leave.

    The axes are Auto ones: Linen's Embed refuses the Explicit ones that are jax's default.

    Raises:
      InbolError: when the sizes do not fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes, count = [data, fsdp, tensor], len(devices)
    if sizes.count(-1) == 1 and 0 not in sizes:
        sizes[sizes.index(-1)] = count // -math.prod(sizes)
    if min(sizes) < 1 or math.prod(sizes) != count:
        raise InbolError(
            f"a mesh of data {data}, fsdp {fsdp} and tensor {tensor} does not fit {count} devices"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh that a tree of parameters was loaded onto; None where they are on one device, or on the host."""
    sharding = getattr(jax.tree.leaves(tree)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) else None


def parameter_sharding(mesh: Mesh, axes: Sequence[str], shape: Sequence[int]) -> NamedSharding:
    """The sharding of a parameter by its logical axes. A side that its mesh axis does not divide stays whole.

    Raises:
      KeyError: for a logical axis without a rule.
    """
    names = [RULES[axis] for axis in axes]
    sizes = dict(mesh.shape)
    return NamedSharding(
        mesh,
        PartitionSpec(
            *(
                n if n and size % sizes[n] == 0 else None
                for n, size in zip(names, shape, strict=True)
            )
        ),
    )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of every leaf on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def local_rows(mesh: Mesh, size: int) -> np.ndarray:
    """i64[k]: which rows of a batch of `size` this process's devices hold, in order; all of them where it is the only process."""
    places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[index] for index in places.values()]))


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Rows over the devices. The batch size must be a multiple of `round_batch(1, mesh)`.

    Args:
      batch: this process's rows of it (`local_rows`).
    """
    sharding = NamedSharding(mesh, BATCH)
    if not mesh.is_multi_process:
        return jax.device_put(dict(batch), sharding)
    parts = round_batch(1, mesh)
    mine = len(local_rows(mesh, parts))

    def place(x: np.ndarray) -> jax.Array:
        size = len(x) // mine * parts
        rows = local_rows(mesh, size)
        shape = (size, *x.shape[1:])
        return jax.make_array_from_callback(
            shape, sharding, lambda index: x[np.searchsorted(rows, np.arange(size)[index[0]])]
        )

    return {name: place(x) for name, x in batch.items()}


def round_batch(size: int, mesh: Mesh) -> int:
    """The next multiple of the number of devices that rows are split over: left-over rows are padding."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-size // parts) * parts
