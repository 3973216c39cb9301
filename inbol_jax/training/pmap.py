"""The step under `pmap`, for models that fit on one device."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError
from inbol_jax.processes import to_host
from inbol_jax.training.step import AXIS, Batch, Flat, Metrics, TrainProgram, TrainState


class Pmap:
    """Each device has a copy of everything, and the step sums over `AXIS`. What the methods do, see
    `parallel.Jit`."""

    def __init__(self, program: TrainProgram, mesh: Mesh):
        if mesh.shape["data"] != mesh.size:
            raise InbolError(
                "--parallel pmap copies the model to every device: leave --mesh as it is, not "
                f"{tuple(mesh.shape.values())}"
            )
        devices = mesh.local_devices
        self._each = NamedSharding(Mesh(np.array(devices), AXIS), PartitionSpec(AXIS))
        self._count = len(devices)
        self._step = jax.pmap(program.train_step, axis_name=AXIS, donate_argnums=0)
        self._score = jax.pmap(program.eval_step, axis_name=AXIS)

    def place(self, tree: Any) -> Any:
        def put(x: Any) -> jax.Array:  # [...] -> [devices, ...]
            # A view: on the host there is one copy, whatever the number of devices.
            copies = np.broadcast_to(to_host(x)[None], (self._count, *np.shape(x)))
            return jax.device_put(copies, self._each)

        return jax.tree.map(put, tree)

    def fetch(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0, ...], tree)

    def shard(self, batch: Mapping[str, np.ndarray]) -> Batch:
        def put(x: np.ndarray) -> jax.Array:  # [b, ...] -> [devices, b / devices, ...]
            return jax.device_put(x.reshape(self._count, -1, *x.shape[1:]), self._each)

        return {name: put(x) for name, x in batch.items()}

    def rows(self, function: Callable[..., Any]) -> Callable[..., Any]:
        program = jax.pmap(function, axis_name=AXIS)

        def own_rows(x: jax.Array) -> np.ndarray:  # [devices, b / devices, ...] -> [b, ...]
            return np.concatenate([np.asarray(shard.data)[0] for shard in x.addressable_shards])

        return lambda *inputs: jax.tree.map(own_rows, program(*inputs))

    def run(self, state: TrainState, frozen: Flat, batch: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = self._step(state, frozen, batch)
        return state, _first_copy(metrics)

    def score(self, state: TrainState, frozen: Flat, batch: Batch) -> Metrics:
        return _first_copy(self._score(state, frozen, batch))


def _first_copy(tree: Any) -> Any:
    """The copy on this process's first device, still on it: nothing waits for the step."""
    return jax.tree.map(lambda x: x.addressable_data(0)[0], tree)
