"""Vision-language models in Flax, with weights in Hugging Face layout in and out.

Names are imported when they are first used: a module that only reads options does not load JAX.
"""

import importlib
import logging
from typing import Any

_MODULES = {
    "Checkpoint": "loading",
    "LoraConfig": "config",
    "load_pretrained": "loading",
    "save_pretrained": "loading",
}
__all__ = list(_MODULES)
# What transformers is for here needs no torch, and it says so at each import.
logging.getLogger("transformers").addFilter(lambda said: "PyTorch was not" not in said.getMessage())


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
