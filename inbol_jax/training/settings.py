"""How long a run is, and what decides its result; a checkpoint of other settings is not resumed."""

import math
from typing import Any, NamedTuple

from jax.sharding import Mesh

from inbol_jax.models.loading import Checkpoint
from inbol_jax.processes import is_main
from inbol_jax.progress import say
from inbol_jax.prompts import DEFAULT
from inbol_jax.training.config import RunConfig
from inbol_jax.training.parallel import round_batch_size

# Options that do not decide the result: where files lie, what is looked at meanwhile, and how the
# run is spread over devices.
_WITHOUT_EFFECT = ("out", "images", "eval_data", "eval_steps", "save_steps", "logging_steps")
_WITHOUT_EFFECT += ("remat", "distributed", "mesh", "parallel")
ENOUGH_STEPS = 200
"""Optimizer steps that a small set is gone through again for, unless --epochs is given."""
MOST_PASSES = 10
"""Passes by default, at most: more would learn the examples by heart."""
FEW_STEPS = 100
"""Fewer are warned about."""


class Schedule(NamedTuple):
    """How long a run is."""

    batch_size: int
    """Examples per step, so rounded that every device gets as many in every micro-batch."""
    micro_batch: int
    """Examples whose activations are in memory at a time."""
    epochs: int
    steps: int
    """Optimizer steps of the whole run."""


def make_schedule(config: RunConfig, examples: int, mesh: Mesh) -> Schedule:
    """How long a run is on so many examples; a warning if it is too short to learn."""
    size = round_batch_size(config.batch_size, mesh, config.gradient_accumulation_steps)
    enough = math.ceil(ENOUGH_STEPS * size / examples)
    epochs = config.epochs or min(enough, MOST_PASSES)
    steps = -(-examples * epochs // size)
    if config.max_steps:
        steps = min(steps, config.max_steps)
    if steps < FEW_STEPS and is_main():
        say(
            f"Warning: {steps} optimizer steps of {size} examples are probably too few to learn "
            "from; raise --epochs, or lower --batch-size"
        )
    return Schedule(size, size // config.gradient_accumulation_steps, epochs, steps)


def run_settings(
    stage: str,
    config: RunConfig,
    checkpoint: Checkpoint,
    schedule: Schedule,
    *,
    data: str,
    pictures: str,
) -> dict[str, Any]:
    """Everything that decides the result of a run, by the names of the options; model, data and
    pictures by their fingerprints.

    Args:
      stage: its name.
      data: the fingerprint of what is trained on.
      pictures: that of the bytes of the data's images.
    """
    settings = {k: v for k, v in config.flat().items() if k not in _WITHOUT_EFFECT} | {
        "stage": stage,
        "model": f"sha256:{checkpoint.fingerprint}",
        "data": f"sha256:{data}",
        "pictures": f"sha256:{pictures}",
        "batch_size": schedule.batch_size,
        "epochs": schedule.epochs,
    }
    return settings | (checkpoint.prompt or DEFAULT).to_json()
