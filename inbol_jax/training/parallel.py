"""Two ways to run the same step on many devices: `jit` over a mesh (data, fsdp, tensor), and `pmap` over replicated variables.

Both work in one process and in several: each process hands in the rows of a batch that its devices hold (`sharding.local_rows`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError
from inbol_jax.processes import to_host
from inbol_jax.sharding import round_batch, shard_batch
from inbol_jax.training.state import Flat, TrainState
from inbol_jax.training.step import Batch, Metrics, Step

AXIS = "data"  # that pmap maps over
Score = Callable[[TrainState, Flat, Batch], Metrics]


class Parallel(Protocol):
    """Where state and batches lie, and how a step runs."""

    def place(self, tree: Any) -> Any: ...

    def fetch(self, tree: Any) -> Any:
        """One copy of what `place` placed."""

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """The batch on the devices, from this process's rows of it."""

    def run(self, state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]: ...

    def score(self, state: TrainState, frozen: Flat, batch: Batch) -> Metrics:
        """The metrics of a batch, without an update."""


def _no_score(state: TrainState, frozen: Flat, batch: Batch) -> Metrics:
    raise NotImplementedError("made without a function that scores")


class Jit:
    """The step under `jit`: variables lie where they have been put on the mesh, anything else on all devices, rows over data and fsdp."""

    def __init__(self, step: Step, mesh: Mesh, score: Score = _no_score):
        self._step, self._mesh = step, mesh
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._compiled: Callable | None = None
        self.score = jax.jit(score, out_shardings=self._everywhere)

    def place(self, tree: Any) -> Any:
        def put(x: Any) -> jax.Array:
            placed = (
                isinstance(x, jax.Array)
                and isinstance(x.sharding, NamedSharding)
                and x.sharding.mesh == self._mesh
            )
            return x if placed else jax.device_put(np.asarray(x), self._everywhere)

        return jax.tree.map(put, tree)

    def fetch(self, tree: Any) -> Any:
        return tree

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        return shard_batch(batch, self._mesh)

    def run(self, state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]:
        if (
            self._compiled is None
        ):  # the new state lies where the old one does, whatever the compiler would rather have
            places = jax.tree.map(lambda x: x.sharding, state)
            self._compiled = jax.jit(
                self._step, donate_argnums=0, out_shardings=(places, self._everywhere)
            )
        return self._compiled(state, frozen, batch)


class Pmap:
    """The step under `pmap`: a copy of everything on each device, and the step's sums over `AXIS`. For models that fit on one device."""

    def __init__(self, step: Step, mesh: Mesh, score: Score = _no_score):
        if mesh.shape["data"] != mesh.size:
            raise InbolError(
                f"--parallel pmap copies the model to every device: leave --mesh as it is, not {tuple(mesh.shape.values())}"
            )
        mine = mesh.local_devices
        self._each = NamedSharding(Mesh(np.array(mine), AXIS), PartitionSpec(AXIS))
        self._count = len(mine)
        self._compiled = jax.pmap(step, axis_name=AXIS, donate_argnums=0)
        self._score = jax.pmap(score, axis_name=AXIS)

    def place(self, tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.device_put(
                np.broadcast_to(to_host(x)[None], (self._count, *np.shape(x))), self._each
            ),
            tree,
        )

    def fetch(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0], tree)

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        return {
            name: jax.device_put(x.reshape(self._count, -1, *x.shape[1:]), self._each)
            for name, x in batch.items()
        }

    def run(self, state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = self._compiled(state, frozen, batch)
        return state, _first(metrics)

    def score(self, state: TrainState, frozen: Flat, batch: Batch) -> Metrics:
        return _first(self._score(state, frozen, batch))


def _first(tree: Any) -> Any:
    """The copy of the first device of this process, still on it: nothing waits for the step."""
    return jax.tree.map(lambda x: x.addressable_data(0)[0], tree)


PARALLEL: dict[str, Callable[[Step, Mesh, Score], Parallel]] = {"jit": Jit, "pmap": Pmap}


def round_rows(size: int, mesh: Mesh, accumulate: int) -> int:
    """The next batch size that every device gets the same share of, in every micro-batch."""
    return accumulate * round_batch(-(-size // accumulate), mesh)
