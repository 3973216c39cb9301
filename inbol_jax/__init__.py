"""InBoL in JAX: teach a vision-language model to say "I don't know" (arXiv 2412.11196).

`load` gives a model that can be asked, `score` judges anybody's answers. Both are imported when
they are first used, so that options and help are fast.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Answer", "Model", "load", "score"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from inbol_jax import api

    return getattr(api, name)
