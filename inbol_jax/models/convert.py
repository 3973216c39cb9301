"""`inbol convert`: merges a checkpoint's adapters, or changes its dtype."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from inbol_jax.artifacts import one_writer
from inbol_jax.defaults import Bounded, Dtype, check_out
from inbol_jax.errors import InbolError


@dataclasses.dataclass(frozen=True)
class ConvertConfig(Bounded):
    """Convert a checkpoint: merge its adapters, or change its dtype."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Folder or hub id of a checkpoint, or of an adapter, which is loaded with its base."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Folder of the new checkpoint."""
    merge_lora: bool = False
    """Write a whole model, with the adapters added to its weights, not the adapters alone."""
    dtype: Dtype = "auto"
    """Dtype of the weights; auto is float32 for a float32 checkpoint and bfloat16 for any other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_out(self.out, self.source)


@one_writer
def convert(config: ConvertConfig) -> None:
    """Runs the conversion. Raises InbolError if it is impossible."""
    from inbol_jax.models.loading import load_pretrained, save_pretrained
    from inbol_jax.progress import say

    checkpoint = load_pretrained(config.source, dtype=config.dtype)
    has_adapters = "lora" in checkpoint.variables
    if config.merge_lora and not has_adapters:
        raise InbolError(f"--merge-lora: {config.source} holds no adapters")
    save_pretrained(checkpoint, config.out, merge_adapters=config.merge_lora)
    alone = has_adapters and not config.merge_lora
    kind = "adapters" if alone else checkpoint.model.dtype.name
    size = sum(file.stat().st_size for file in config.out.glob("*.safetensors"))
    say(f"{kind} of {config.source} -> {config.out} ({size / 1e6:,.1f} MB)")
