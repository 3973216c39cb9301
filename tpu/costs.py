"""What a step costs on TPUs or GPUs: FLOPs, memory by kind, and the time that a roofline gives it.

FLOPs are counted in the traced program and not in the compiled one, of which the compiler's own
count (`cost_analysis`) takes the body of a loop once. Bytes and exchanges are those of the compiled
program, with the trips of its loops.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from hlo import Collective


class Chip(NamedTuple):
    """A chip of one generation, as published: not of a TensorCore, of which some have two."""

    flops: float
    """Per second, of products in bfloat16."""
    bandwidth: float
    """Bytes per second of HBM."""
    memory: float
    """GiB of HBM."""
    links: float
    """Bytes per second to and from all its neighbours together."""
    ports: int
    """Number of these neighbours: two per axis of the torus."""
    network: float
    """Bytes per second of its share of the network between slices, or nodes, in each direction."""


# By `device_kind`. Source: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, their tables of the
# system architecture; v5e's network is 6.4 Tbit/s per pod of 256 chips. Those of v4 give no links
# per chip: they are twice its share of a pod's all-reduce bandwidth, 1.1 PB/s on 4,096 chips, as
# they are on v5e. Nor is there v4's network, which is taken as v5p's. H100: NVIDIA's data sheet of
# the SXM card, whose NVLink reaches all others of a node at 450 GB/s, and a port of 400 Gbit/s.
CHIPS = {
    "TPU v4": Chip(275e12, 1.2e12, 32, 537e9, 6, 6.25e9),
    "TPU v5 lite": Chip(197e12, 0.819e12, 16, 400e9, 4, 3.125e9),
    "TPU v5": Chip(459e12, 2.765e12, 95, 1200e9, 6, 6.25e9),
    "TPU v6 lite": Chip(918e12, 1.638e12, 32, 800e9, 4, 12.5e9),
    "TPU7x": Chip(2307e12, 7.38e12, 192, 1200e9, 6, 12.5e9),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 3.352e12, 79, 900e9, 2, 50e9),
}
# What a step is assumed to reach of these rates. No TPU has confirmed them.
OF_FLOPS, OF_BANDWIDTH, OF_LINKS = 0.6, 0.8, 0.8
ASSUMED = (
    f"assumed, not measured: products at {OF_FLOPS:.0%} of the chip's peak, HBM at "
    f"{OF_BANDWIDTH:.0%}, exchanges at {OF_LINKS:.0%} of the links along one axis of the torus or "
    "of the network between slices, and all at the same time"
)


class Time(NamedTuple):
    """Seconds of a step, if it did nothing else."""

    products: float
    memory: float
    exchanges: float
    network: float = 0.0
    """Of exchanges between slices."""

    @property
    def step(self) -> float:
        """Seconds of the whole step: what takes longest hides the rest."""
        return max(self)


def chip_of(devices: Sequence[jax.Device]) -> tuple[Chip | None, int]:
    """The kind of chip, if it is known, and how many devices one chip is to JAX."""
    # Each slice has the same places.
    places = {(getattr(device, "slice_index", 0), *device.coords) for device in devices}
    return CHIPS.get(devices[0].device_kind), len(devices) // len(places)


def time(
    chip: Chip, per_chip: int, flops: float, moved: float, exchanges: Iterable[Collective]
) -> Time:
    """What a roofline gives a step.

    Args:
      per_chip: devices per chip.
      flops, moved: FLOPs, and bytes of HBM, of one device.
    """
    received = {False: 0.0, True: 0.0}  # within slices, and between them
    for exchange in exchanges:
        received[exchange.slices > 1] += exchange.count * exchange.received
    # One axis of the torus: two of the ports, each with half of its bandwidth inwards.
    inwards = chip.links / chip.ports
    return Time(
        flops * per_chip / (chip.flops * OF_FLOPS),
        moved * per_chip / (chip.bandwidth * OF_BANDWIDTH),
        received[False] * per_chip / (inwards * OF_LINKS),
        received[True] * per_chip / (chip.network * OF_LINKS),
    )


def local_size(tree: Any) -> int:
    """Bytes that one device holds of arrays, or of shapes, with places."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    )


def count_flops(jaxpr: Any, trips: int) -> float:
    """FLOPs of the products and convolutions of a traced program, on all devices together.

    Args:
      jaxpr: of `jax.jit(...).trace(...)`; what remat computes again is in it.
      trips: how often a loop runs whose number of steps the program does not know.
    """
    total = 0.0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            inner = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * inner
        elif name == "conv_general_dilated":
            kernel, places = eqn.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
            inner = math.prod(kernel) / kernel[places[0]]  # per output channel
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * inner
        elif name == "while":
            total += trips * count_flops(params["body_jaxpr"], trips)
        elif name == "cond":
            total += max(count_flops(branch, trips) for branch in params["branches"])
        else:
            steps = params["length"] if name == "scan" else 1
            inner = [x for x in params.values() if hasattr(x, "eqns") or hasattr(x, "jaxpr")]
            total += steps * sum(count_flops(x, trips) for x in inner)
    return total


def memory_of(parts: Mapping[str, Any], compiled: jax.stages.Compiled) -> dict[str, float]:
    """GiB that a device needs, by kind.

    Args:
      parts: what the program is given, by kind.
    """
    memory = compiled.memory_analysis()
    sizes = {name: local_size(part) for name, part in parts.items()}
    # Of the compiler's layouts, and what the kinds do not name
    sizes["padding"] = max(0, memory.argument_size_in_bytes - sum(sizes.values()))
    sizes["outputs"] = memory.output_size_in_bytes - memory.alias_size_in_bytes
    sizes["activations and temporaries"] = memory.temp_size_in_bytes
    return {name: size / 2**30 for name, size in sizes.items()}


def traffic(exchanges: Iterable[Collective], sizes: Mapping[str, int]) -> list[str]:
    """A line per kind of exchange and axes of the mesh, or slices: how often it runs, and what a
    chip receives by it.

    Args:
      sizes: of the mesh's axes.
    """
    counts: dict[tuple[str, str], int] = defaultdict(int)
    received: dict[tuple[str, str], float] = defaultdict(float)
    for exchange in exchanges:
        kind = exchange.operation, exchange.where(sizes)
        counts[kind] += exchange.count
        received[kind] += exchange.count * exchange.received
    return [
        f"{operation} {where}: {counts[operation, where]:,} per step, "
        f"{received[operation, where] / 2**30:.2f} GiB received per chip"
        for operation, where in sorted(counts)
    ]
