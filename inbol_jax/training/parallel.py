"""How a step runs on many devices: by `jit` over a mesh (data, fsdp, tensor). The other way, with
the same methods, is `training.pmap`.

Both work in one process and in several: each process hands in the rows of a batch that its devices
hold (`sharding.local_rows`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.sharding import BATCH, COMPILER_OPTIONS, round_batch, shard_batch
from inbol_jax.training.step import Batch, Flat, Metrics, TrainProgram, TrainState, TrainStep


class Jit:
    """The step under `jit`.

    Variables lie where they have been put on the mesh, anything else on all devices. Rows are split
    over data and fsdp.
    """

    def __init__(self, program: TrainProgram, mesh: Mesh):
        self._step, self._mesh = program.train_step, mesh
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._compiled: Any = None
        self._score = jax.jit(
            program.eval_step, out_shardings=self._everywhere, compiler_options=COMPILER_OPTIONS
        )

    def place(self, tree: Any) -> Any:
        """A tree of arrays on the devices."""

        def put(x: Any) -> jax.Array:
            sharding = getattr(x, "sharding", None)
            if isinstance(sharding, NamedSharding) and sharding.mesh == self._mesh:
                return x
            return jax.device_put(np.asarray(x), self._everywhere)

        return jax.tree.map(put, tree)

    def fetch(self, tree: Any) -> Any:
        """One copy of what `place` placed."""
        return tree

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """The batch on the devices, from this process's rows of it."""
        return shard_batch(batch, self._mesh)

    def rows(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of (state, frozen, batch) whose arrays have a row per row of the batch, as a
        program. It returns, on the host, this process's rows of its result."""
        split = NamedSharding(self._mesh, BATCH)
        program = jax.jit(function, out_shardings=split, compiler_options=COMPILER_OPTIONS)

        def own_rows(x: jax.Array) -> np.ndarray:
            # By the first row of each part: copies along tensor fall together, and sorting restores
            # the order.
            parts = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
            return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

        return lambda *inputs: jax.tree.map(own_rows, program(*inputs))

    def run(self, state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]:
        """One training step. It reuses the memory of `state`."""
        if self._compiled is None:
            # Known at the first call only: the shardings of the state that was placed or restored.
            places = jax.tree.map(lambda x: x.sharding, state)
            self._compiled = jit_step(self._step, places, self._mesh)
        return self._compiled(state, frozen, batch)

    def score(self, state: TrainState, frozen: Flat, batch: Batch) -> Metrics:
        """The metrics of a batch, without a step."""
        return self._score(state, frozen, batch)


def jit_step(step: TrainStep, state_shardings: Any, mesh: Mesh) -> Any:
    """The jitted step. The new state lies where the old one does, whatever XLA would prefer."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(state_shardings, everywhere),
        compiler_options=COMPILER_OPTIONS,
    )


def round_batch_size(size: int, mesh: Mesh, gradient_accumulation_steps: int) -> int:
    """The next batch size that gives every device the same number of rows in every micro-batch."""
    # 10 rows, 2 micro-batches, 4 devices: 5 rows per micro-batch become 8, so 16 rows in all.
    micro_batch = round_batch(-(-size // gradient_accumulation_steps), mesh)
    return gradient_accumulation_steps * micro_batch
