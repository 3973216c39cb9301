"""Where arrays live: parameters replicated, batches split over all devices.

Under `jit` the step's sums are over the whole batch, wherever its rows lie: the same program on one device and on many.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh() -> Mesh:
    """All devices along one axis, `data`. Auto axes: Linen's Embed refuses the Explicit ones that are jax's default."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of every leaf on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Rows over the devices; the batch size must be a multiple of their number (`round_batch`)."""
    return jax.device_put(dict(batch), NamedSharding(mesh, PartitionSpec("data")))


def round_batch(size: int, mesh: Mesh) -> int:
    """The next multiple of the number of devices: left-over rows are padding."""
    return -(-size // mesh.size) * mesh.size
