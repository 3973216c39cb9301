"""Four optimizers of optax under a warm-up, a schedule, and clipping by the global norm."""

from typing import Any

import jax
import optax

from inbol_jax.errors import InbolError
from inbol_jax.training.config import OptimizerConfig


def _matrices(params: Any) -> Any:
    """What has weight decay: biases and norms have none."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


# name -> (schedule, weight decay) -> optimizer
_OPTIMIZERS = {
    # Runs are short, so AdamW's second moment has to follow faster than with optax's 0.999.
    "adamw": lambda rate, decay: optax.adamw(rate, b2=0.98, weight_decay=decay, mask=_matrices),
    "lion": lambda rate, decay: optax.lion(rate, weight_decay=decay, mask=_matrices),
    "adafactor": lambda rate, decay: optax.adafactor(rate),
    "sgd": lambda rate, decay: optax.sgd(rate),
}


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """The optimizer of a run of `total_steps` steps. Gradients are clipped to a global norm of 1.

    Raises:
      InbolError: if weight decay is asked for of an optimizer that has none.
    """
    # Adafactor's `weight_decay_rate` is another thing: it does not scale with the learning rate.
    if config.weight_decay and config.optimizer not in ("adamw", "lion"):
        raise InbolError(
            f"--weight-decay {config.weight_decay}: {config.optimizer} has none that goes with the "
            "learning rate"
        )
    make = _OPTIMIZERS[config.optimizer]
    optimizer = make(_schedule(config, total_steps), config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(1.0), optimizer)


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
