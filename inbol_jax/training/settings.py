"""What decides the result of a run; a checkpoint of other settings is not resumed."""

import hashlib
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np

from inbol_jax.artifacts import file_fingerprint
from inbol_jax.data.images import ImageHashes
from inbol_jax.data.vqa import data_file
from inbol_jax.models.loading import Checkpoint
from inbol_jax.processes import from_all
from inbol_jax.prompts import DEFAULT
from inbol_jax.training.config import RunConfig

# Options that do not decide the result: where files lie, what is looked at meanwhile, and how the
# run is spread over devices.
_WITHOUT_EFFECT = frozenset(
    {
        *("out", "images", "eval_data", "eval_steps", "save_steps", "report_to"),
        *("max_nonfinite_updates", "remat", "distributed", "mesh", "parallel", "resume_anyway"),
        *("checkpoint_dir", "save_total_limit", "metric_for_best_model"),
    }
)


def names_of_settings(config: RunConfig) -> Set[str]:
    """The names that `run_settings` may give, before there is a checkpoint."""
    computed = {"stage", "pictures", "prompt", "system", "mesh", "parallel", "devices"}
    return config.flat().keys() - _WITHOUT_EFFECT | computed


def run_settings(
    checkpoint: Checkpoint,
    config: RunConfig,
    label: str,
    batch_size: int,
    base: str | None,
    pictures: str,
) -> dict[str, Any]:
    """Everything that decides the result of a run, by the names of the options; model, data and
    pictures by their fingerprints.

    Args:
      batch_size: rows per step, after rounding.
      base: fingerprint of the base of `wise_ft_alpha`.
      pictures: the `picture_fingerprint` of the data's images.
    """
    settings = {k: v for k, v in config.flat().items() if k not in _WITHOUT_EFFECT}
    data = config.data if isinstance(config.data, tuple) else (config.data,)
    settings |= {
        "stage": label,
        "model": f"sha256:{checkpoint.fingerprint}",
        "data": f"sha256:{file_fingerprint(*map(data_file, data))}",
        "pictures": f"sha256:{pictures}",
        "wise_ft_base": base,
        "batch_size": batch_size,
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
