"""The vectorised sampler: prefill a question once, decode n continuations of it together.

Names are imported when they are first used: a module that only reads options does not load JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inbol_jax.sampling.sampler import Samples, SamplingOptions, sample

__all__ = ["Samples", "SamplingOptions", "sample"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.sampler"), name)
