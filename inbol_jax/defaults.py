"""What several command lines share. Nothing here imports JAX: help must be fast."""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from inbol_jax.errors import InbolError

TINY = Path(__file__).parent / "world" / "assets" / "tiny-llava"
"""The checkpoint that ships with the package."""

Dtype = Literal["auto", "float32", "bfloat16"]
"""Dtype of a model. "auto" is float32 for a float32 checkpoint and bfloat16 for any other."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The least and the largest value of an option, in its annotation.

    More than the counts below would take days, or all memory.
    """

    least: float
    most: float = math.inf


NumSamples = Annotated[int, Bounds(1, 1_000)]
NumNewTokens = Annotated[int, Bounds(1, 4_096)]
BatchSize = Annotated[int, Bounds(1, 16_384)]
NumEpochs = Annotated[int, Bounds(1, 1_000)]
NumSteps = Annotated[int, Bounds(1, 10_000_000)]
NumRows = Annotated[int, Bounds(1, 1_000_000)]
NumBuckets = Annotated[int, Bounds(0, 100)]
NumProcesses = Annotated[int, Bounds(0, 1_000)]
NumRequests = Annotated[int, Bounds(0, 1_000)]
Share = Annotated[float, Bounds(0, 1)]


def check_bounds(config: Any) -> None:
    """Raises InbolError for an option of a dataclass, or of those in it, beyond its bounds."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_bounds(value)
        for bounds in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(bounds, Bounds) and value is not None:
                option = f"--{field.name.replace('_', '-')} {value}"
                if not value >= bounds.least:  # also if it is NaN
                    raise InbolError(f"{option}: at least {bounds.least:,} is needed")
                if value > bounds.most:
                    raise InbolError(f"{option}: at most {bounds.most:,} is allowed")


class Bounded:
    """Options that are within their bounds as soon as they are made."""

    def __post_init__(self) -> None:
        check_bounds(self)


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
