"""Two ways to run the same step on many devices: `jit` over a mesh (data, fsdp, tensor), and `pmap`
over replicated variables.

Both work in one process and in several: each process hands in the rows of a batch that its devices
hold (`sharding.local_rows`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError
from inbol_jax.processes import to_host
from inbol_jax.sharding import round_batch, shard_batch
from inbol_jax.training.objective import Batch, Metrics
from inbol_jax.training.state import Flat, TrainState
from inbol_jax.training.step import AXIS, EvalStep, TrainStep


class Parallel(Protocol):
    """Where state and batches lie, and how a step runs."""

    def place(self, tree: Any) -> Any:
        """A tree of arrays on the devices."""

    def fetch(self, tree: Any) -> Any:
        """One copy of what `place` placed."""

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """The batch on the devices, from this process's rows of it."""

    def run(
        self, state: TrainState, frozen: Flat, reference: Flat | None, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        """One training step. It reuses the memory of `state`."""

    def score(
        self, state: TrainState, frozen: Flat, reference: Flat | None, batch: Batch
    ) -> Metrics:
        """The metrics of a batch, without an update."""


def _no_eval_step(*_: Any) -> Metrics:
    raise NotImplementedError("made without an evaluation step")


class Jit:
    """The step under `jit`.

    Variables lie where they have been put on the mesh, anything else on all devices. Rows are split
    over data and fsdp.
    """

    def __init__(self, step: TrainStep, mesh: Mesh, eval_step: EvalStep = _no_eval_step):
        self._step, self._mesh = step, mesh
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._compiled: Callable | None = None
        self.score = jax.jit(eval_step, out_shardings=self._everywhere)

    def place(self, tree: Any) -> Any:
        def put(x: Any) -> jax.Array:
            sharding = getattr(x, "sharding", None)
            if isinstance(sharding, NamedSharding) and sharding.mesh == self._mesh:
                return x
            return jax.device_put(np.asarray(x), self._everywhere)

        return jax.tree.map(put, tree)

    def fetch(self, tree: Any) -> Any:
        return tree

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        return shard_batch(batch, self._mesh)

    def run(
        self, state: TrainState, frozen: Flat, reference: Flat | None, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        if self._compiled is None:
            places = jax.tree.map(lambda x: x.sharding, state)
            self._compiled = jit_step(self._step, places, self._mesh)
        return self._compiled(state, frozen, reference, batch)


def jit_step(step: TrainStep, state_shardings: Any, mesh: Mesh) -> Any:
    """The jitted step. The new state lies where the old one does, whatever XLA would prefer."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=(state_shardings, everywhere))


class Pmap:
    """The step under `pmap`, for models that fit on one device.

    Each device has a copy of everything, and the step sums over `AXIS`.
    """

    def __init__(self, step: TrainStep, mesh: Mesh, eval_step: EvalStep = _no_eval_step):
        if mesh.shape["data"] != mesh.size:
            raise InbolError(
                "--parallel pmap copies the model to every device: leave --mesh as it is, not "
                f"{tuple(mesh.shape.values())}"
            )
        devices = mesh.local_devices
        self._each = NamedSharding(Mesh(np.array(devices), AXIS), PartitionSpec(AXIS))
        self._count = len(devices)
        self._compiled = jax.pmap(step, axis_name=AXIS, donate_argnums=0)
        self._score = jax.pmap(eval_step, axis_name=AXIS)

    def place(self, tree: Any) -> Any:
        def put(x: Any) -> jax.Array:  # [...] -> [devices, ...]
            copies = np.broadcast_to(to_host(x)[None], (self._count, *np.shape(x)))
            return jax.device_put(copies, self._each)

        return jax.tree.map(put, tree)

    def fetch(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0], tree)

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        def put(x: np.ndarray) -> jax.Array:  # [b, ...] -> [devices, b / devices, ...]
            return jax.device_put(x.reshape(self._count, -1, *x.shape[1:]), self._each)

        return {name: put(x) for name, x in batch.items()}

    def run(
        self, state: TrainState, frozen: Flat, reference: Flat | None, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        state, metrics = self._compiled(state, frozen, reference, batch)
        return state, _first_copy(metrics)

    def score(
        self, state: TrainState, frozen: Flat, reference: Flat | None, batch: Batch
    ) -> Metrics:
        return _first_copy(self._score(state, frozen, reference, batch))


def _first_copy(tree: Any) -> Any:
    """The copy on this process's first device, still on it: nothing waits for the step."""
    return jax.tree.map(lambda x: x.addressable_data(0)[0], tree)


PARALLEL: dict[str, Callable[[TrainStep, Mesh, EvalStep], Parallel]] = {"jit": Jit, "pmap": Pmap}


def round_batch_size(size: int, mesh: Mesh, gradient_accumulation_steps: int) -> int:
    """The next batch size that gives every device the same number of rows in every micro-batch."""
    micro_batch = round_batch(-(-size // gradient_accumulation_steps), mesh)
    return gradient_accumulation_steps * micro_batch
