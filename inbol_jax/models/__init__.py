"""Vision-language models in Flax, with weights in Hugging Face layout in and out.

Names are imported when they are first used: a module that only reads options does not load JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inbol_jax.models.loading import Checkpoint, load_pretrained, save_pretrained
    from inbol_jax.models.lora import LoraConfig

__all__ = ["Checkpoint", "LoraConfig", "load_pretrained", "save_pretrained"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "lora" if name == "LoraConfig" else "loading"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
