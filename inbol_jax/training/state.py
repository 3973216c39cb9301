"""What a training step changes, and what it leaves alone."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from inbol_jax.errors import InbolError
from inbol_jax.models.lora import LoraConfig, trainable_params

Flat = dict[str, jax.Array]  # variables by path, "params/language_model/norm/scale" or "lora/..."


class TrainState(NamedTuple):
    """Everything that a checkpoint holds."""

    step: jax.Array  # i32[], batches seen
    params: Flat  # the trainable ones
    opt_state: Any
    skipped: jax.Array  # i32[], updates in a row that were left out because they were not finite


def check_pattern(option: str, pattern: str) -> None:
    """Raises InbolError, which names the option, where the pattern is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise InbolError(f"{option} {pattern!r} is not a regular expression ({error})") from error


def split_variables(
    variables: Mapping[str, Any], frozen: Sequence[str], lora: LoraConfig | None = None
) -> tuple[Flat, Flat]:
    """Flat trainable and frozen variables.

    Args:
      frozen: regular expressions searched in the parameters' paths, where whole parameters are trained.
      lora: with adapters these are trained, and the parameters of `lora.trainable`; all others are frozen.
    Raises:
      InbolError: when a pattern matches no parameter, or nothing is left to train.
    """
    flat = flatten_dict(dict(variables), sep="/")
    if lora is not None:
        whole = {f"params/{path}" for path in trainable_params(variables["params"], lora)}
        trained = {path for path in flat if path.startswith("lora/") or path in whole}
    else:
        names = [path.removeprefix("params/") for path in flat]
        for pattern in frozen:
            check_pattern("--frozen", pattern)
            if not any(re.search(pattern, name) for name in names):
                raise InbolError(
                    f"--frozen {pattern!r} matches no parameter; paths look like {names[0]!r}"
                )
        trained = {
            f"params/{name}"
            for name in names
            if not any(re.search(pattern, name) for pattern in frozen)
        }
        if not trained:
            raise InbolError("--frozen leaves no parameter to train")
    return {path: x for path, x in flat.items() if path in trained}, {
        path: x for path, x in flat.items() if path not in trained
    }


def merge_variables(trainable: Flat, frozen: Flat) -> dict[str, Any]:
    """The model's nested variables from both parts."""
    return unflatten_dict({**frozen, **trainable}, sep="/")


SCHEDULES: dict[str, Callable[[float, int, int], optax.Schedule]] = {
    "cosine": lambda peak, rise, steps: optax.warmup_cosine_decay_schedule(0.0, peak, rise, steps),
    "linear": lambda peak, rise, steps: optax.join_schedules(
        [optax.linear_schedule(0.0, peak, rise), optax.linear_schedule(peak, 0.0, steps - rise)],
        [rise],
    ),
    "constant": lambda peak, rise, steps: optax.join_schedules(
        [optax.linear_schedule(0.0, peak, rise), optax.constant_schedule(peak)], [rise]
    ),
}
_OWN = {"adamw": {"b2": 0.98}}  # few steps: the second moment has to follow


def make_optimizer(
    learning_rate: float,
    steps: int,
    *,
    weight_decay: float = 0.0,
    name: str = "adamw",
    schedule: str = "cosine",
    rates: Sequence[tuple[str, float]] = (),
) -> optax.GradientTransformation:
    """An optimizer of optax under a warm-up of a tenth of the steps and a schedule; gradients clipped to a global norm of 1.

    Weight decay spares vectors: biases and norms.

    Args:
      name: of a function of optax that takes a learning rate.
      schedule: a name in `SCHEDULES`.
      rates: (regular expression, peak learning rate) of variables whose path it finds; the first that does counts.
    Raises:
      InbolError: when optax has no such optimizer, or it knows no weight decay but some is asked for.
    """
    make = getattr(optax, name, None)
    known = (
        inspect.signature(make).parameters if callable(make) and not inspect.isclass(make) else {}
    )
    if "learning_rate" not in known:
        raise InbolError(
            f"--optimizer {name!r}: optax has no such optimizer (adamw, adafactor, lion, sgd, ...)"
        )
    decayed = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    options: dict[str, Any] = dict(_OWN.get(name, {}))
    if (
        "weight_decay" in known
    ):  # adafactor's own, weight_decay_rate, is another thing: it does not go with the learning rate
        options |= {"weight_decay": weight_decay} | ({"mask": decayed} if "mask" in known else {})
    elif weight_decay:
        raise InbolError(
            f"--weight-decay {weight_decay}: optax's {name} has none that goes with the learning rate"
        )
    rise = min(
        max(1, round(0.1 * steps)), steps - 1
    )  # a run of one step starts at the peak: at 0 it would do nothing
    try:
        optimizer = make(SCHEDULES[schedule](learning_rate, rise, max(steps, rise + 1)), **options)
        trial = {"w": jnp.ones((2, 2))}
        optimizer.update(trial, optimizer.init(trial), trial)
    except (TypeError, ValueError, IndexError) as error:
        raise InbolError(
            f"--optimizer {name}: it needs more than gradients, or takes no schedule"
        ) from error
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optimizer,
        *([_scale_by_path(rates, learning_rate)] if rates else []),
    )


def _scale_by_path(
    rates: Sequence[tuple[str, float]], learning_rate: float
) -> optax.GradientTransformation:
    def factor(path: str) -> float:
        return next(
            (rate / learning_rate for pattern, rate in rates if re.search(pattern, path)), 1.0
        )

    return optax.stateless(
        lambda updates, params: {path: factor(path) * update for path, update in updates.items()}
    )


def init_state(
    trainable: Flat, optimizer: optax.GradientTransformation, mesh: Mesh | None = None
) -> TrainState:
    """The state before the first step. On a mesh, what the optimizer keeps of a variable lies where the variable does."""
    if mesh is None:
        opt_state = optimizer.init(trainable)
    else:
        opt_state = jax.jit(
            optimizer.init, out_shardings=optimizer_shardings(trainable, optimizer, mesh)
        )(trainable)
    return TrainState(jnp.zeros((), jnp.int32), trainable, opt_state, jnp.zeros((), jnp.int32))


def optimizer_shardings(
    trainable: Flat, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Any:
    """Where the optimizer's state lies: as the variable that a part of it belongs to where it has its shape, else on all devices."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return optax.tree_map_params(
        optimizer,
        lambda kept, p: p.sharding if kept.shape == p.shape else everywhere,
        jax.eval_shape(optimizer.init, trainable),
        trainable,
        transform_non_params=lambda kept: everywhere,
    )
