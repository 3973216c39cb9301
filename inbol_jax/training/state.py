"""What a training step changes, and what it leaves alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError
from inbol_jax.models.lora import LoraConfig, trainable_params
from inbol_jax.training.config import check_pattern

# Variables by path: "params/language_model/norm/scale" or "lora/...".
Flat = dict[str, jax.Array]


class TrainState(NamedTuple):
    """Everything that a checkpoint holds."""

    step: jax.Array  # i32[], steps done
    params: Flat  # the trained variables
    opt_state: Any
    skipped: jax.Array  # i32[], updates in a row that were left out as not finite


def split_variables(
    variables: Mapping[str, Any], frozen: Sequence[str], lora: LoraConfig | None = None
) -> tuple[Flat, Flat]:
    """Flat trainable and frozen variables.

    Args:
      frozen: regular expressions. Without adapters, parameters whose path matches one are frozen.
      lora: options of the adapters, if any. Then they and the parameters of `lora.trainable` are
        trained, and everything else is frozen.
    Raises:
      InbolError: if a pattern matches no parameter, or nothing is left to train.
    """
    flat = flatten_dict(dict(variables), sep="/")
    if lora is not None:
        whole = {f"params/{path}" for path in trainable_params(variables["params"], lora)}
        trained = {path for path in flat if path.startswith("lora/") or path in whole}
    else:
        trained = _unfrozen(flat, frozen)
    trainable = {path: x for path, x in flat.items() if path in trained}
    return trainable, {path: x for path, x in flat.items() if path not in trained}


def _unfrozen(flat: Flat, frozen: Sequence[str]) -> set[str]:
    """Paths of the variables that no pattern matches."""
    names = [path.removeprefix("params/") for path in flat]
    left = set(names)
    for pattern in frozen:
        check_pattern("--frozen", pattern)
        matched = {name for name in names if re.search(pattern, name)}
        if not matched:
            raise InbolError(
                f"--frozen {pattern!r} matches no parameter; paths look like {names[0]!r}"
            )
        left -= matched
    if not left:
        raise InbolError("--frozen leaves no parameter to train")
    return {f"params/{name}" for name in left}


def merge_variables(first: Flat, second: Flat) -> dict[str, Any]:
    """The model's nested variables from two flat parts."""
    return unflatten_dict({**second, **first}, sep="/")


def in_reference(path: str, *, new_adapters: bool) -> bool:
    """Whether the reference needs a copy of a trained variable: all but adapters that are new.

    New adapters change nothing at the start, so the reference is the model without them.
    """
    return not (new_adapters and path.startswith("lora/"))


def init_state(
    trainable: Flat, optimizer: optax.GradientTransformation, mesh: Mesh | None = None
) -> TrainState:
    """The state before the first step.

    On a mesh, the optimizer's state of a variable lies where the variable does.
    """
    if mesh is None:
        opt_state = optimizer.init(trainable)
    else:
        places = optimizer_shardings(trainable, optimizer, mesh)
        opt_state = jax.jit(optimizer.init, out_shardings=places)(trainable)
    return TrainState(jnp.zeros((), jnp.int32), trainable, opt_state, jnp.zeros((), jnp.int32))


def optimizer_shardings(
    trainable: Flat, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Any:
    """Where the optimizer's state lies.

    A part with the shape of its variable lies where the variable does; the rest is on all devices.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    return optax.tree_map_params(
        optimizer,
        lambda kept, p: p.sharding if kept.shape == p.shape else everywhere,
        jax.eval_shape(optimizer.init, trainable),
        trainable,
        transform_non_params=lambda kept: everywhere,
    )
