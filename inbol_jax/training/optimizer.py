"""Optimizers of optax by name, under a warm-up, a schedule, and clipping by the global norm."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from inbol_jax.errors import InbolError
from inbol_jax.training.config import OptimizerConfig

# Runs are short, so AdamW's second moment has to follow faster than with optax's 0.999.
_DEFAULTS = {"adamw": {"b2": 0.98}}


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """The optimizer of a run of `total_steps` steps. Gradients are clipped to a global norm of 1.

    Raises:
      InbolError: if optax has no such optimizer, or it has no weight decay but some is asked for.
    """
    name = config.optimizer
    make = getattr(optax, name, None)
    is_function = callable(make) and not inspect.isclass(make)
    parameters = inspect.signature(make).parameters if is_function else {}
    if "learning_rate" not in parameters:
        raise InbolError(
            f"--optimizer {name!r}: optax has no such optimizer (adamw, adafactor, lion, sgd, ...)"
        )
    options: dict[str, Any] = dict(_DEFAULTS.get(name, {}))
    # adafactor's `weight_decay_rate` is another thing: it does not scale with the learning rate.
    if "weight_decay" in parameters:
        options["weight_decay"] = config.weight_decay
        if "mask" in parameters:
            options["mask"] = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    elif config.weight_decay:
        raise InbolError(
            f"--weight-decay {config.weight_decay}: optax's {name} has none that goes with the "
            "learning rate"
        )
    try:
        optimizer = make(_schedule(config, total_steps), **options)
        trial = {"w": jnp.ones((2, 2))}
        optimizer.update(trial, optimizer.init(trial), trial)
    except (TypeError, ValueError, IndexError) as error:
        raise InbolError(
            f"--optimizer {name}: it needs more than gradients, or takes no schedule"
        ) from error
    parts = [optax.clip_by_global_norm(1.0), optimizer]
    if config.lr_overrides:
        parts.append(_override_rates(config))
    return optax.chain(*parts)


def _schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    # A run of one step starts at the peak: with a learning rate of 0 it would do nothing.
    rise = min(max(1, round(0.1 * total_steps)), total_steps - 1)
    peak, rest = config.learning_rate, max(total_steps - rise, 1)
    after = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "constant": optax.constant_schedule(peak),
    }
    warm_up = optax.linear_schedule(0.0, peak, rise)
    return optax.join_schedules([warm_up, after[config.schedule]], [rise])


def _override_rates(config: OptimizerConfig) -> optax.GradientTransformation:
    def factor(path: str) -> float:
        rates = (rate for pattern, rate in config.lr_overrides if re.search(pattern, path))
        return next(rates, config.learning_rate) / config.learning_rate

    return optax.stateless(
        lambda updates, params: {path: factor(path) * update for path, update in updates.items()}
    )
