"""The vectorised sampler: prefill a question once, decode n continuations of it together.

Names are imported when they are first used: a module that only reads options does not load JAX.
"""

import importlib
from typing import Any

_MODULES = {"SamplingOptions": "config", "Samples": "sampler", "sample": "sampler"}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
