"""Two ways to run the same step on many devices: `jit` over a mesh (data, fsdp, tensor), and `pmap` over replicated variables."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError
from inbol_jax.sharding import round_batch, shard_batch
from inbol_jax.training.state import Flat, TrainState
from inbol_jax.training.step import Batch, Metrics, Step

AXIS = "data"  # that pmap maps over


class Parallel(Protocol):
    """Where state and batches lie, and how a step runs."""

    def place(self, tree: Any) -> Any: ...

    def fetch(self, tree: Any) -> Any:
        """One copy of what `place` placed."""

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch: ...

    def run(self, state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]: ...


class Jit:
    """The step under `jit`: variables lie where they have been put on the mesh, anything else on all devices, rows over data and fsdp."""

    def __init__(self, step: Step, mesh: Mesh):
        self._step, self._mesh = step, mesh
        self._compiled: Callable | None = None

    def place(self, tree: Any) -> Any:
        everywhere = NamedSharding(self._mesh, PartitionSpec())

        def put(x: Any) -> jax.Array:
            placed = isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding) and x.sharding.mesh == self._mesh
            return x if placed else jax.device_put(x, everywhere)

        return jax.tree.map(put, tree)

    def fetch(self, tree: Any) -> Any:
        return tree

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        return shard_batch(batch, self._mesh)

    def run(self, state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]:
        if self._compiled is None:  # the new state lies where the old one does, whatever the compiler would rather have
            places = jax.tree.map(lambda x: x.sharding, state)
            self._compiled = jax.jit(self._step, donate_argnums=0, out_shardings=(places, None))
        return self._compiled(state, frozen, batch)


class Pmap:
    """The step under `pmap`: a copy of everything on each device, and the step's sums over `AXIS`. For models that fit on one device."""

    def __init__(self, step: Step, mesh: Mesh):
        if mesh.shape["data"] != mesh.size:
            raise InbolError(f"--parallel pmap copies the model to every device: leave --mesh as it is, not {tuple(mesh.shape.values())}")
        self._each = NamedSharding(Mesh(mesh.devices.reshape(-1), AXIS), PartitionSpec(AXIS))
        self._count = mesh.size
        self._compiled = jax.pmap(step, axis_name=AXIS, donate_argnums=0)

    def place(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.device_put(np.broadcast_to(np.asarray(x)[None], (self._count, *np.shape(x))), self._each), tree)

    def fetch(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: x[0], tree)

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        return {name: jax.device_put(x.reshape(self._count, -1, *x.shape[1:]), self._each) for name, x in batch.items()}

    def run(self, state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = self._compiled(state, frozen, batch)
        return state, self.fetch(metrics)


PARALLEL: dict[str, Callable[[Step, Mesh], Parallel]] = {"jit": Jit, "pmap": Pmap}


def round_rows(size: int, mesh: Mesh, accumulate: int) -> int:
    """The next batch size that every device gets the same share of, in every micro-batch."""
    return accumulate * round_batch(-(-size // accumulate), mesh)
