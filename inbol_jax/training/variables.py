"""The variables of a model by path: those that are trained, and those that stay as they are."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.lora import LoraConfig, trainable_params
from inbol_jax.training.config import RunConfig, check_pattern

# The weights of no model are nearly as large; larger ones come out of a run that has blown up.
MAX_WEIGHT = 1e6

# Variables by path: "params/language_model/norm/scale" or "lora/...".
Flat = dict[str, jax.Array]


class Parts(NamedTuple):
    """The variables of a model that is trained."""

    trainable: Flat
    frozen: Flat
    reference: Flat | None
    """Copies of the trained variables as they are at the start, if an online reference needs any
    beside the frozen ones."""
    dtypes: Mapping[str, Any]
    """The dtypes that the trained variables are saved in."""


def take_apart(checkpoint: Checkpoint, config: RunConfig, *, reference: bool = False) -> Parts:
    """The variables of a model for training; its memory is reused.

    Args:
      reference: whether an online reference is needed.
    Raises:
      InbolError: if --frozen does not fit the model.
    """
    trainable, frozen = split_variables(checkpoint.variables, config.frozen, checkpoint.model.lora)
    dtypes = {path: x.dtype for path, x in trainable.items()}
    kept = None
    # The step gives away the memory of what it trains, so what the reference needs is copied.
    if reference:
        started = reference_part(trainable, new_adapters=config.lora.lora_rank > 0)
        kept = jax.tree.map(jnp.copy, started)
    # Updates that bfloat16 would round away add up in float32.
    masters = {path: _to_float32(x) for path, x in trainable.items()}
    return Parts(masters, frozen, kept, dtypes)


def _to_float32(x: jax.Array) -> jax.Array:
    """A float32 copy in place of a variable, whose own memory is freed."""
    if x.dtype == jnp.float32:
        return x
    copy = x.astype(jnp.float32)
    x.delete()
    return copy


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


def check_weights(variables: Flat, what: str) -> None:
    """Raises InbolError, which names a variable, if it is not finite or beyond `MAX_WEIGHT`."""
    for path, x in variables.items():
        value = float(_largest(x))
        if not value <= MAX_WEIGHT:
            size = f"as large as {value:.3g}" if math.isfinite(value) else "not finite"
            raise InbolError(f"{what}: the weights {path} are {size}")


@jax.jit
def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x)).astype(jnp.float32)


def reference_part(trainable: Flat, *, new_adapters: bool) -> Flat:
    """The trained variables that an online reference needs a copy of: all but new adapters.

    New adapters change nothing at the start, so the reference is the model without them.
    """
    return {p: x for p, x in trainable.items() if not (new_adapters and p.startswith("lora/"))}
