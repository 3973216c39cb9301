"""How long a run is, and what decides its result; a checkpoint of other settings is not resumed."""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from inbol_jax.data.images import ImageHashes
from inbol_jax.models.loading import Checkpoint
from inbol_jax.processes import from_all, is_main
from inbol_jax.progress import say
from inbol_jax.prompts import DEFAULT
from inbol_jax.training.config import RunConfig
from inbol_jax.training.parallel import round_batch_size

# Options that do not decide the result: where files lie, what is looked at meanwhile, and how the
# run is spread over devices.
_WITHOUT_EFFECT = frozenset(
    {
        *("out", "images", "eval_data", "eval_steps", "save_steps", "logging_steps", "report_to"),
        *("remat", "distributed", "mesh", "parallel", "resume_anyway"),
        *("checkpoint_dir", "save_total_limit"),
    }
)
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
    epochs: int
    steps: int
    """Optimizer steps of the whole run."""


def make_schedule(config: RunConfig, examples: int, mesh: Mesh, *, updates: int = 1) -> Schedule:
    """How long a run is on so many examples; a warning if it is too short to learn.

    Args:
      updates: optimizer steps on each batch.
    """
    size = round_batch_size(config.batch_size, mesh, config.gradient_accumulation_steps)
    enough = math.ceil(ENOUGH_STEPS * size / (examples * updates))
    epochs = config.epochs or min(enough, MOST_PASSES)
    batches = -(-examples * epochs // size)
    if config.max_steps:
        batches = min(batches, -(-config.max_steps // updates))
    steps = batches * updates
    if steps < FEW_STEPS and is_main():
        say(
            f"Warning: {steps} optimizer steps of {size} examples are probably too few to learn "
            "from; raise --epochs, or lower --batch-size"
        )
    return Schedule(size, epochs, steps)


def run_settings(
    checkpoint: Checkpoint,
    config: RunConfig,
    schedule: Schedule,
    label: str,
    *,
    data: str,
    pictures: str,
) -> dict[str, Any]:
    """Everything that decides the result of a run, by the names of the options; model, data and
    pictures by their fingerprints.

    Args:
      label: name of the stage.
      data: the fingerprint of what is trained on.
      pictures: the `picture_fingerprint` of the data's images.
    """
    settings = {k: v for k, v in config.flat().items() if k not in _WITHOUT_EFFECT}
    settings |= {
        "stage": label,
        "model": f"sha256:{checkpoint.fingerprint}",
        "data": f"sha256:{data}",
        "pictures": f"sha256:{pictures}",
        "batch_size": schedule.batch_size,
        "epochs": schedule.epochs,
    }
    settings |= (checkpoint.prompt or DEFAULT).to_json()
    lora, runtime = checkpoint.model.lora, config.runtime
    if lora and lora.dropout:  # each device of a pmap draws dropout of its own
        settings |= {"mesh": runtime.mesh, "parallel": runtime.parallel}
        settings["devices"] = jax.device_count()
    return settings


def picture_fingerprint(files: Iterable[Path], hashes: ImageHashes) -> str:
    """Sixteen hex digits over the bytes of pictures, in the order in which they first occur.

    Folders and names do not count: those below the image folder are in the data already. Each
    process reads a share of the files. All must call this, and all get the same.

    Args:
      hashes: by the files' paths; what it knows is not read again.
    """
    names = list(dict.fromkeys(map(str, files)))
    count = jax.process_count()
    mine = names[jax.process_index() :: count]
    known = hashes.of(mine)
    digests = np.zeros((len(names) // count + 1, 8), np.uint8)  # shares may differ by one file
    for row, name in zip(digests, mine, strict=False):
        row[:] = np.frombuffer(bytes.fromhex(known[name] or "0" * 16), np.uint8)
    in_order = from_all(digests).swapaxes(0, 1).reshape(-1, 8)[: len(names)]
    return hashlib.sha256(in_order.tobytes()).hexdigest()[:16]
