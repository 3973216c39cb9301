"""What several command lines share. Nothing here imports JAX: help must be fast."""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Annotated, Literal

from inbol_jax.errors import InbolError

TINY = Path(__file__).parent / "world" / "assets" / "tiny-llava"
"""The checkpoint that ships with the package."""

Dtype = Literal["auto", "float32", "bfloat16"]
"""Dtype of a model. "auto" is float32 for a float32 checkpoint and bfloat16 for any other."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The values that a number may have as an option, in its annotation. They are finite."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def allow(self, value: float) -> bool:
        """Whether the option may have this value."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {"at least": self.least, "more than": self.above}
        limits |= {"at most": self.most, "less than": self.below}
        rules = [f"{words} {limit:,}" for words, limit in limits.items() if limit is not None]
        return " and ".join(rules) or "a finite number"


# More than the counts below would take days, or all memory.
NumSamples = Annotated[int, Bounds(1, 10_000)]
NumNewTokens = Annotated[int, Bounds(1, 4_096)]
NEW_TOKENS = 32  # by default: room for an answer in a short sentence
BatchSize = Annotated[int, Bounds(1, 16_384)]
NumSteps = Annotated[int, Bounds(1, 10_000_000)]
NumRows = Annotated[int, Bounds(1, 1_000_000)]
NumRequests = Annotated[int, Bounds(0, 1_000)]
Share = Annotated[float, Bounds(0, 1)]
Positive = Annotated[float, Bounds(above=0)]
Seed = Annotated[int, Bounds(0, 2**32 - 1)]


class Bounded:
    """A dataclass of options that are within their bounds as soon as they are made.

    Raises:
      InbolError: for the first option whose value the `Bounds` in its annotation do not allow.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for name, hint in hints.items():
            value, notes = getattr(self, name), getattr(hint, "__metadata__", ())
            for bounds in (note for note in notes if isinstance(note, Bounds)):
                if value is not None and not bounds.allow(value):
                    option = name.replace("_", "-")
                    raise InbolError(f"--{option} {value}: {bounds} is needed")


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
