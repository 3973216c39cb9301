"""What a training step changes, and what it leaves alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from inbol_jax.errors import InbolError

Flat = dict[str, jax.Array]  # parameters by path, "language_model/norm/scale"


class TrainState(NamedTuple):
    """Everything that a checkpoint holds."""

    step: jax.Array  # i32[], updates done
    params: Flat  # the trainable ones
    opt_state: Any


def split_params(params: Mapping[str, Any], frozen: Sequence[str]) -> tuple[Flat, Flat]:
    """Flat trainable and frozen parameters; `frozen` are regular expressions searched in the paths.

    Raises:
      InbolError: when a pattern matches no parameter, or nothing is left to train.
    """
    flat = flatten_dict(dict(params), sep="/")
    for pattern in frozen:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InbolError(f"--frozen {pattern!r} is not a regular expression ({error})") from error
        if not any(re.search(pattern, path) for path in flat):
            raise InbolError(f"--frozen {pattern!r} matches no parameter; paths look like {next(iter(flat))!r}")
    held = {path: value for path, value in flat.items() if any(re.search(pattern, path) for pattern in frozen)}
    if len(held) == len(flat):
        raise InbolError("--frozen leaves no parameter to train")
    return {path: value for path, value in flat.items() if path not in held}, held


def merge_params(trainable: Flat, frozen: Flat) -> dict[str, Any]:
    """The model's nested tree from both parts."""
    return unflatten_dict({**frozen, **trainable}, sep="/")


def make_optimizer(learning_rate: float, steps: int, *, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """AdamW under a warm-up of a tenth of the steps and a cosine to 0; gradients clipped to a global norm of 1.

    Weight decay spares vectors: biases and norms.
    """
    rise = min(max(1, round(0.1 * steps)), steps - 1)  # a run of one step starts at the peak: at 0 it would do nothing
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, rise, max(steps, rise + 1))
    decayed = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=weight_decay, mask=decayed))


def init_state(trainable: Flat, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), trainable, optimizer.init(trainable))
