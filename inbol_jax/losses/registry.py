"""Losses of preference pairs and their weights, by name: what `train.py dpo --loss` and `--scheme` choose from.

A loss of one's own is a Python file that registers it and then calls the command line, see docs/architecture.md: nothing is imported by
a string. A loss takes four arrays f32[b] (`dpo_loss` describes them) and `beta`, and returns f32[b]; where it has a keyword
`label_smoothing`, it is given that of the command line. A scheme takes (confidence f32[b], kind i32[b]) and returns f32[b].
"""

import inspect
from collections.abc import Callable
from typing import TypeVar

import jax

PairLoss = Callable[..., jax.Array]
Scheme = Callable[[jax.Array, jax.Array], jax.Array]
F = TypeVar("F", bound=Callable[..., jax.Array])

LOSSES: dict[str, PairLoss] = {}
SCHEMES: dict[str, Scheme] = {}


def register_loss(name: str) -> Callable[[F], F]:
    """Decorator that makes a loss of pairs known by a name. Raises ValueError when the name is taken."""
    return _register(LOSSES, name)


def register_scheme(name: str) -> Callable[[F], F]:
    """Decorator that makes a weight of pairs known by a name. Raises ValueError when the name is taken."""
    return _register(SCHEMES, name)


def smooths_labels(loss: str) -> bool:
    """Whether a registered loss has a keyword `label_smoothing`."""
    return "label_smoothing" in inspect.signature(LOSSES[loss]).parameters


def _register(table: dict[str, Callable], name: str) -> Callable[[F], F]:
    def add(function: F) -> F:
        if name in table:
            raise ValueError(f"{name!r} is registered already: {table[name]}")
        table[name] = function
        return function

    return add
