"""Sharding: a mesh of (data, fsdp, tensor), one table of rules for parameters, and batches.

The rows of a batch are split over data and fsdp. Under `jit` sums run over the whole batch,
wherever its rows lie: the same program runs on one device and on many.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Shaped

from inbol_jax.errors import InbolError

# How XLA compiles our programs. The options are those of GPUs, and change nothing elsewhere: its
# own kernels for products, which lose to cuBLAS's at our sizes, are off, and weights are not
# concatenated to merge products, which every step of decoding would do again.
COMPILER_OPTIONS = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_dot_merger_threshold_mb": 0}

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Logical axis of a parameter -> mesh axis, or None: whole on every device. Other names are errors.
RULES: dict[str, str | None] = {
    "vocab": "tensor",
    "heads": "tensor",  # outputs of q, k and v, inputs of o
    "mlp": "tensor",
    "embed": "fsdp",  # the side of a matrix that faces the residual stream
    "rank": None,  # of an adapter
    "norm": None,  # vectors along the residual stream: small, and needed whole
    "patch": None,
    "position": None,
}


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh of all devices, or of those given.

    One of the sizes may be -1: it takes the devices that the others leave. The axes are of type
    Auto, because Linen's Embed refuses JAX's default, Explicit. Several slices of TPUs, or nodes
    of GPUs, lie along data, and along fsdp only if data is too small: their network is slow.

    Raises:
      InbolError: if the sizes do not fit the number of devices or of slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes, count = [data, fsdp, tensor], len(devices)
    if sizes.count(-1) == 1 and 0 not in sizes:
        sizes[sizes.index(-1)] = count // -math.prod(sizes)
    if min(sizes) < 1 or math.prod(sizes) != count:
        raise InbolError(
            f"a mesh of data {data}, fsdp {fsdp} and tensor {tensor} does not fit {count} devices"
        )
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    auto = (AxisType.Auto,) * 3
    if slices == 1:
        return jax.make_mesh(tuple(sizes), AXES, axis_types=auto, devices=devices)
    # [data, fsdp, tensor]: how many slices lie along each axis, and how many devices of each
    outer = (along := math.gcd(sizes[0], slices)), slices // along, 1
    if sizes[1] % outer[1]:
        raise InbolError(f"{slices} slices, or nodes: data or fsdp must be a multiple of them")
    inner = [size // n for size, n in zip(sizes, outer, strict=True)]
    split = {"allow_split_physical_axes": True}
    return Mesh(create_hybrid_device_mesh(inner, outer, devices, **split), AXES, axis_types=auto)


def parameter_sharding(mesh: Mesh, axes: Sequence[str], shape: Sequence[int]) -> NamedSharding:
    """The sharding of a parameter by its logical axes, each of which must have a rule (KeyError).

    An axis of the parameter that its mesh axis does not divide stays whole.
    """
    spec = []
    for axis, size in zip(axes, shape, strict=True):
        mesh_axis = RULES[axis]
        divides = mesh_axis is not None and size % mesh.shape[mesh_axis] == 0
        spec.append(mesh_axis if divides else None)
    return NamedSharding(mesh, PartitionSpec(*spec))


def keep_rows(x: Shaped[Array, "b ..."]) -> Shaped[Array, "b ..."]:
    """The same array, and under `jit` on a mesh of ours each row whole on the devices of its batch.

    Activations need it between products whose matrices are split over fsdp and tensor: left to
    itself, XLA's partitioner (of JAX 0.10 to 0.12) gives wrong gradients if data, fsdp and tensor
    are all larger than 1.
    """
    mesh = jax.typeof(x).sharding.mesh  # empty on one device, and another one in a pmap
    if mesh.axis_names != AXES:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, BATCH))


def keep_looked_up_rows(x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """As `keep_rows`, for rows of a table whose columns are split over fsdp.

    If data, fsdp and tensor are all larger than 1, the partitioner may find no other way from there
    than the whole batch on every device. So the rows are split over data first, then over fsdp.
    """
    mesh = jax.typeof(x).sharding.mesh
    if mesh.axis_names != AXES or min(mesh.shape.values()) == 1:
        return x
    spec = PartitionSpec("data", None, "fsdp")
    return keep_rows(jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree with a copy of every leaf on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def local_rows(mesh: Mesh, size: int) -> np.ndarray:
    """i64[k], sorted: which rows of a batch of `size` this process's devices hold."""
    indices = NamedSharding(mesh, BATCH).addressable_devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[index] for index in indices.values()]))


def round_batch(size: int, mesh: Mesh) -> int:
    """Rounds a batch size up to a multiple of the devices that rows are split over."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-size // parts) * parts


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Places the rows of a batch on the devices.

    Args:
      batch: this process's rows (`local_rows`) of a batch whose size is a multiple of
        `round_batch(1, mesh)`.
    """
    sharding = NamedSharding(mesh, BATCH)
    if mesh.is_multi_process:
        return jax.make_array_from_process_local_data(sharding, dict(batch))
    return jax.device_put(dict(batch), sharding)
