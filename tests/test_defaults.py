"""Options: every number has bounds, and a config refuses what is beyond them."""

import dataclasses
import math
import typing

import pytest

from inbol_jax.commands import COMMANDS, load
from inbol_jax.defaults import Bounded, Bounds, Positive, Share
from inbol_jax.errors import InbolError


def parts(config):
    """A class of options and those of its parts."""
    yield config
    for hint in typing.get_type_hints(config).values():
        if dataclasses.is_dataclass(hint):
            yield from parts(hint)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_that_a_command_takes_has_bounds_that_are_checked(command):
    for part in parts(load(COMMANDS[command].config)):
        for name, hint in typing.get_type_hints(part, include_extras=True).items():
            notes = getattr(hint, "__metadata__", ())
            kind = hint.__origin__ if notes else hint
            if kind in (int, float, int | None, float | None):
                assert any(isinstance(note, Bounds) for note in notes), (part, name)
                assert issubclass(part, Bounded)


@dataclasses.dataclass(frozen=True)
class Options(Bounded):
    share: Share = 0.5
    learning_rate: Positive = 1.0
    reward: typing.Annotated[float, Bounds()] = 0.0
    rows: typing.Annotated[int | None, Bounds(2, 1_000)] = None
    mix: typing.Annotated[float, Bounds(0, below=1)] = 0.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"share": -0.1}, "--share -0.1: at least 0 and at most 1 is needed"),
        ({"share": math.nan}, "--share nan: at least 0 and at most 1 is needed"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: more than 0 is needed"),
        ({"learning_rate": math.inf}, "--learning-rate inf: more than 0 is needed"),
        ({"reward": -math.inf}, "--reward -inf: a finite number is needed"),
        ({"rows": 1}, "--rows 1: at least 2 and at most 1,000 is needed"),
        ({"rows": 1_001}, "--rows 1001: at least 2 and at most 1,000 is needed"),
        ({"mix": 1.0}, "--mix 1.0: at least 0 and less than 1 is needed"),
    ],
    ids=str,
)
def test_a_number_beyond_its_bounds(value, message):
    with pytest.raises(InbolError, match=f"^{message}$"):
        Options(**value)


def test_numbers_at_their_bounds():
    Options(share=0, learning_rate=1e-30, reward=-1e30, rows=2, mix=0)
    Options(share=1, rows=1_000, mix=0.999)
