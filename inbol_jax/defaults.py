"""What several command lines share. Nothing here imports JAX: help must be fast."""

import dataclasses
import math
import operator
import typing
from pathlib import Path
from typing import Annotated, Literal

from inbol_jax.errors import InbolError

TINY = Path(__file__).parent / "world" / "assets" / "tiny-llava"
"""The checkpoint that ships with the package."""

Dtype = Literal["auto", "float32", "bfloat16"]
"""Dtype of a model. "auto" is float32 for a float32 checkpoint and bfloat16 for any other."""


_RULES = {
    "least": ("at least", operator.ge),
    "above": ("more than", operator.gt),
    "most": ("at most", operator.le),
    "below": ("less than", operator.lt),
}


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The values that a number may have as an option, in its annotation. They are finite."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def _rules(self) -> list[tuple[str, typing.Callable[[float, float], bool], float]]:
        limits = ((*_RULES[name], getattr(self, name)) for name in _RULES)
        return [rule for rule in limits if rule[2] is not None]

    def allow(self, value: float) -> bool:
        """Whether the option may have this value."""
        return math.isfinite(value) and all(holds(value, x) for _, holds, x in self._rules())

    def __str__(self) -> str:
        rules = [f"{words} {limit:,}" for words, _, limit in self._rules()]
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
