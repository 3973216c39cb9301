"""A training step before there is anything to train: lowered on shapes.

Nothing here allocates an array. Steps of large models are compiled for the devices at hand, or
ahead of time for those of a topology.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.models.config import LoraConfig, ModelConfig
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.lora import adapter_sharding, init_lora
from inbol_jax.models.packing import RowShape
from inbol_jax.models.weights import table_row
from inbol_jax.sharding import BATCH, parameter_sharding
from inbol_jax.training.config import RunConfig
from inbol_jax.training.model import split_variables
from inbol_jax.training.parallel import jit_step
from inbol_jax.training.step import TrainProgram, TrainState, optimizer_shardings

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def abstract_variables(
    config: ModelConfig, mesh: Mesh, *, dtype: Any, lora: LoraConfig | None = None
) -> dict[str, Any]:
    """The model's variables as shapes with places, as training would put them.

    Parameters have `dtype`, adapters are float32.
    """
    shapes = jax.tree.map(lambda x: x.update(dtype=dtype), param_shapes(config))
    places = unflatten_dict(
        {
            path: parameter_sharding(mesh, table_row(path).axes, x.shape)
            for path, x in flatten_dict(shapes, sep="/").items()
        },
        sep="/",
    )
    variables: dict[str, Any] = {
        "params": jax.tree.map(lambda x, place: x.update(sharding=place), shapes, places)
    }
    if lora is not None:
        adapters = jax.eval_shape(lambda: init_lora(shapes, lora, jax.random.key(0)))
        flat = flatten_dict(adapters, sep="/")
        for path, x in flat.items():
            flat[path] = x.update(sharding=adapter_sharding(mesh, path, x.shape))
        variables["lora"] = unflatten_dict(flat, sep="/")
    return variables


def abstract_batch(
    mesh: Mesh, shapes: Mapping[str, tuple[tuple[int, ...], Any]]
) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of arrays of (shape, dtype), its rows split over the mesh."""
    place = NamedSharding(mesh, BATCH)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
        for name, (shape, dtype) in shapes.items()
    }


def image_shapes(
    config: ModelConfig, rows: int, tiles: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shapes and dtypes of the images of rows with so many tiles each."""
    shapes = config.image_shapes(tiles)
    return {name: ((rows, *shape), jnp.dtype(dtype)) for name, (shape, dtype) in shapes.items()}


def abstract_pairs(
    config: ModelConfig, mesh: Mesh, *, rows: int, shape: RowShape, tiles: int = 1
) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch as the stages take it: packed rows with their images, and the columns of pairs."""
    per_token, per_target = ((rows, shape.tokens), jnp.int32), ((rows, shape.targets), jnp.int32)
    shapes = image_shapes(config, rows, tiles)
    shapes |= {"kind": ((rows,), jnp.int32), "valid": ((rows,), jnp.bool)}
    shapes |= dict.fromkeys(("input_ids", "positions", "segments"), per_token)
    shapes |= dict.fromkeys(("targets", "target_index", "target_segment"), per_target)
    shapes |= dict.fromkeys(("ref_chosen", "ref_rejected", "confidence"), ((rows,), jnp.float32))
    return abstract_batch(mesh, shapes)


def abstract_groups(mesh: Mesh, *, rows: int, n: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The columns of groups of n responses, beside packed rows."""
    shapes = dict.fromkeys(("advantages", "rewards"), ((rows, n), jnp.float32))
    shapes |= dict.fromkeys(("correct", "refused"), ((rows, n), jnp.bool))
    return abstract_batch(mesh, shapes)


class Program(NamedTuple):
    """A program before it is compiled."""

    traced: jax.stages.Traced
    parts: dict[str, Any]
    """What it is given, by kind: shapes with places."""


def lower_step(*arguments: Any, **options: Any) -> jax.stages.Lowered:
    """What `trace_step` traces, lowered. `.compile()` it for what it needs."""
    return trace_step(*arguments, **options).traced.lower()


def trace_step(
    program: TrainProgram,
    config: RunConfig,
    variables: Mapping[str, Any],
    batch: Shapes,
    mesh: Mesh,
    *,
    lora: LoraConfig | None = None,
) -> Program:
    """The step that `--parallel jit` runs, on abstract arrays.

    Args:
      variables, batch: shapes with places.
      lora: options of the adapters, which are new, if any.
    """
    trainable, frozen = split_variables(variables, config.frozen, lora)
    trainable = {path: x.update(dtype=jnp.float32) for path, x in trainable.items()}
    scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    opt_state = jax.tree.map(
        lambda x, place: x.update(sharding=place),
        jax.eval_shape(program.optimizer.init, trainable),
        optimizer_shardings(trainable, program.optimizer, mesh),
    )
    state = TrainState(scalar, trainable, opt_state, scalar)
    places = jax.tree.map(lambda x: x.sharding, state)
    traced = jit_step(program.train_step, places, mesh).trace(state, frozen, batch)
    parts = {"trained": trainable, "frozen": frozen, "optimizer": opt_state, "batch": batch}
    return Program(traced, parts)
