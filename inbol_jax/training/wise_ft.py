"""WiSE-FT: the saved model is a mix of fine-tuned and base weights. Source: Wortsman et al. 2021
(arXiv 2109.01903)."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from inbol_jax.errors import InbolError
from inbol_jax.models.architecture import ModelConfig
from inbol_jax.models.config import load_config
from inbol_jax.models.loading import Checkpoint, find_checkpoint, load_pretrained
from inbol_jax.models.peft import is_adapter
from inbol_jax.processes import to_host
from inbol_jax.training.config import RunConfig


def check_wise_ft(config: RunConfig) -> None:
    """Raises InbolError if weights cannot be mixed, before anything is loaded."""
    alpha, base = config.checkpoint.wise_ft_alpha, config.checkpoint.wise_ft_base
    if alpha == 1:
        return
    if is_adapter(find_checkpoint(config.model)):
        raise InbolError(
            f"--wise-ft-alpha {alpha} mixes whole models: merge the adapters first (`inbol convert "
            "--merge-lora`)"
        )
    if base and _architecture(base) != _architecture(config.model):
        raise InbolError(
            f"--wise-ft-base {base}: its configuration is not that of {config.model}; "
            "their weights cannot be mixed"
        )


def _architecture(model: Path) -> ModelConfig:
    """What two checkpoints must share: all but the dtype on the disk and the ends of responses."""
    config = load_config(find_checkpoint(model))
    return dataclasses.replace(config, stored_dtype="", pad_token_id=0, eos_token_ids=())


def load_base(start: Checkpoint, config: RunConfig, mesh: Mesh) -> Checkpoint | None:
    """The base, with its weights on the host; None if the saved model is the fine-tuned one alone.

    Args:
      start: the model that training starts from, which is the base unless another is named.
    """
    if config.checkpoint.wise_ft_alpha == 1:
        return None
    base = start
    if config.checkpoint.wise_ft_base:
        base = load_pretrained(config.checkpoint.wise_ft_base, dtype=start.model.dtype, mesh=mesh)
    # A copy on the host: training needs the devices' memory, and reuses that of its start.
    params = jax.tree.map(lambda x: np.array(to_host(x)), dict(base.variables["params"]))
    return dataclasses.replace(base, variables={"params": params})


def interpolate(params: Mapping[str, Any], base: Mapping[str, Any], alpha: float) -> Any:
    """alpha * fine-tuned + (1 - alpha) * base, on the host, computed in float32.

    The dtype is that of the fine-tuned weights. A weight that both share is kept exactly.
    """

    def mix(tuned: jax.Array, old: np.ndarray) -> np.ndarray:
        new = to_host(tuned)
        mixed = alpha * new.astype(np.float32) + (1 - alpha) * old.astype(np.float32)
        return np.where(new == old, new, mixed.astype(new.dtype))

    return jax.tree.map(mix, params, base)
