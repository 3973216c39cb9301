"""Pair losses and pair weightings by name: the choices of `--loss` and `--pair-weighting`.

A loss or a weighting of one's own is a Python file that registers it and then calls the command
line, see docs/architecture.md. Nothing is imported by a string.
"""

import inspect
from collections.abc import Callable
from typing import TypeVar

import jax

# (policy, reference, *, beta) -> f32[b], as `dpo_loss`. A loss with a keyword `label_smoothing`
# gets --label-smoothing.
PairLoss = Callable[..., jax.Array]
# (confidence f32[b], kind i32[b]) -> f32[b]
PairWeighting = Callable[[jax.Array, jax.Array], jax.Array]
F = TypeVar("F", bound=Callable[..., jax.Array])

PAIR_LOSSES: dict[str, PairLoss] = {}
PAIR_WEIGHTINGS: dict[str, PairWeighting] = {}


def register_pair_loss(name: str) -> Callable[[F], F]:
    """Decorator that registers a loss of pairs. Raises ValueError if the name is taken."""
    return register_in(PAIR_LOSSES, name)


def register_pair_weighting(name: str) -> Callable[[F], F]:
    """Decorator that registers a pair weighting. Raises ValueError if the name is taken."""
    return register_in(PAIR_WEIGHTINGS, name)


def has_label_smoothing(loss: str) -> bool:
    """Whether a registered loss has a keyword `label_smoothing`."""
    return "label_smoothing" in inspect.signature(PAIR_LOSSES[loss]).parameters


def register_in(table: dict[str, Callable], name: str) -> Callable[[F], F]:
    """Decorator that adds a function to a table. Raises ValueError if the name is taken."""

    def add(function: F) -> F:
        if name in table:
            raise ValueError(f"{name!r} is registered already: {table[name]}")
        table[name] = function
        return function

    return add
