"""A training step before there is anything to train: its shapes and places, what it needs, and what it sends between devices.

Nothing here allocates an array, so that steps of large models are compiled, for devices at hand or ahead of time for those of a topology.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.models.config import LlavaConfig
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.lora import LoraConfig, adapter_sharding, init_lora
from inbol_jax.models.weights import param_shardings
from inbol_jax.sharding import BATCH
from inbol_jax.training.state import Flat, TrainState, optimizer_shardings, split_variables
from inbol_jax.training.step import REFERENCE, Objective, make_train_step

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def abstract_variables(
    config: LlavaConfig, mesh: Mesh, *, dtype: Any, lora: LoraConfig | None = None
) -> dict[str, Any]:
    """The model's variables as shapes with places: parameters of `dtype`, adapters in float32, as `load_pretrained` would put them."""
    shapes = param_shapes(config)
    place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, dtype, sharding=sharding)
    variables: dict[str, Any] = {
        "params": jax.tree.map(place, shapes, param_shardings(shapes, mesh))
    }
    if lora is not None:
        adapters = flatten_dict(
            jax.eval_shape(lambda: init_lora(shapes, lora, jax.random.key(0))), sep="/"
        )
        placed = {
            path: jax.ShapeDtypeStruct(
                x.shape,
                x.dtype,
                sharding=adapter_sharding(mesh, f"{path[:-1]}kernel", path[-1], x.shape),
            )
            for path, x in adapters.items()
        }
        variables["lora"] = unflatten_dict(placed, sep="/")
    return variables


def abstract_pairs(
    config: LlavaConfig, mesh: Mesh, *, rows: int, tokens: int, targets: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch as both stages take it: packed rows with an image each, and what pairs have besides."""
    size = config.vision.image_size
    shapes = dict.fromkeys(("input_ids", "positions", "segments"), ((rows, tokens), jnp.int32))
    shapes |= dict.fromkeys(
        ("targets", "target_index", "target_segment"), ((rows, targets), jnp.int32)
    )
    shapes |= {
        "pixel_values": ((rows, 1, 3, size, size), jnp.float32),
        "kind": ((rows,), jnp.int32),
        "valid": ((rows,), jnp.bool),
    }
    shapes |= dict.fromkeys(("ref_chosen", "ref_rejected", "confidence"), ((rows,), jnp.float32))
    return {
        name: jax.ShapeDtypeStruct(*shape, sharding=NamedSharding(mesh, BATCH))
        for name, shape in shapes.items()
    }


def lower_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    variables: Mapping[str, Any],
    batch: Shapes,
    mesh: Mesh,
    *,
    frozen: tuple[str, ...] = (),
    lora: LoraConfig | None = None,
    masters: bool = True,
    accumulate: int = 1,
    online: bool = False,
) -> jax.stages.Lowered:
    """The step that `--parallel jit` runs, on abstract arrays; `.compile()` it for what it needs.

    Args:
      variables, batch: shapes with places.
      frozen, lora: as of `split_variables`.
      masters: float32 copies of what is trained, as `--masters`.
      online: hand the objective its reference, as `--reference online` does: without adapters, and what else is trained as it was.
    """
    trainable, rest = split_variables(variables, frozen, lora)
    if online:
        rest = rest | {
            f"{REFERENCE}{path}": x for path, x in trainable.items() if not path.startswith("lora/")
        }
    if masters:
        trainable = {
            path: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding)
            for path, x in trainable.items()
        }
    state = abstract_state(trainable, optimizer, mesh)
    places = jax.tree.map(lambda x: x.sharding, state)
    step = make_train_step(objective, optimizer, accumulate=accumulate)
    compiled = jax.jit(
        step, donate_argnums=0, out_shardings=(places, NamedSharding(mesh, PartitionSpec()))
    )
    return compiled.lower(state, rest, batch)


def abstract_state(
    trainable: Flat, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """`init_state` as shapes with places."""
    place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    shapes = jax.eval_shape(optimizer.init, trainable)
    return TrainState(
        scalar,
        trainable,
        jax.tree.map(place, shapes, optimizer_shardings(trainable, optimizer, mesh)),
        scalar,
    )


class Collective(NamedTuple):
    """One exchange between devices.

    Attributes:
      kind: all-gather, all-reduce, ...
      dtype, shape: of one of its results on a device.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _BYTES.get(self.dtype, 4)


_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# `%name = f32[8,16]{1,0} all-gather(...)`; one that is split into -start and -done has its inputs before its results in a tuple.
_LINE = re.compile(rf"= (?P<shapes>\(.*?\)|\S+) (?P<kind>{'|'.join(_KINDS)})(?P<start>-start)?\(")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "f64": 8,
    "s64": 8,
    "u64": 8,
}


def collectives(program: str) -> Iterator[Collective]:
    """Those of a compiled program (`compiled.as_text()`); one in a loop comes once.

    On a TPU one that runs beside other work stands in several fusions, of one channel: it comes once as well.

    Source of the format: XLA's HLO text, which is no stable interface; `tests/training/test_plan.py` notices where it changes.
    """
    channels = set()
    for line in program.splitlines():
        if match := _LINE.search(line):
            if channel := _CHANNEL.search(line):
                if channel[1] in channels:
                    continue
                channels.add(channel[1])
            shapes = _SHAPE.findall(match["shapes"])
            for dtype, shape in (
                shapes[len(shapes) // 2 :] if match["start"] and len(shapes) > 1 else shapes
            ):
                yield Collective(
                    match["kind"], dtype, tuple(map(int, filter(None, shape.split(","))))
                )
