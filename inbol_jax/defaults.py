"""What several command lines share. Nothing here imports JAX: help must be fast."""

import dataclasses
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from inbol_jax.errors import InbolError

TINY = Path(__file__).parent / "world" / "assets" / "tiny-llava"
"""The checkpoint that ships with the package."""

Dtype = Literal["auto", "float32", "bfloat16"]
"""Dtype of a model. "auto" is float32 for a float32 checkpoint and bfloat16 for any other."""


@dataclasses.dataclass(frozen=True)
class AtMost:
    """The bound of an option, in its annotation: more would take days, or all memory."""

    limit: int


NumSamples = Annotated[int, AtMost(1_000)]
NumNewTokens = Annotated[int, AtMost(4_096)]
BatchSize = Annotated[int, AtMost(16_384)]
NumEpochs = Annotated[int, AtMost(1_000)]
NumSteps = Annotated[int, AtMost(10_000_000)]
NumRows = Annotated[int, AtMost(1_000_000)]
NumBuckets = Annotated[int, AtMost(100)]
NumProcesses = Annotated[int, AtMost(1_000)]
NumRequests = Annotated[int, AtMost(1_000)]


def check_limits(config: Any) -> None:
    """Raises InbolError for an option of a dataclass, or of those in it, beyond its bound."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_limits(value)
        for bound in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(bound, AtMost) and value > bound.limit:
                option = field.name.replace("_", "-")
                raise InbolError(f"--{option} {value}: at most {bound.limit:,} is allowed")


def check_out(out: Path, model: str | Path, result: str = "") -> None:
    """Refuses an output folder that is a model's own, is in it, or would write over it.

    Args:
      result: the folder in `out` that gets the new model; by default `out` itself.
    """
    folder, source = Path(out).resolve(), Path(model).resolve()
    if source in (folder, folder / result, *folder.parents):
        raise InbolError(
            f"--out {out}: {model} is where the model was loaded from: choose a folder that is "
            "neither in it nor around it"
        )
