"""The weights of pairs by kind and confidence."""

import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import KINDS

from inbol_jax.losses import PAIR_WEIGHTINGS, pair_weighting
from inbol_jax.records import PairKind


def test_kinds_are_those_of_the_records():
    names = [kind.name for kind in PairKind]
    assert [getattr(pair_weighting, name) for name in names] == [kind.number for kind in PairKind]
    assert sorted(name for name in vars(pair_weighting) if "_OVER_" in name) == sorted(names)


@pytest.mark.parametrize(
    ("weighting", "c", "expected"),  # in the order of PairKind
    [
        ("linear", 1.0, [1, 1, 0, 0]),
        ("linear", 0.0, [0, 0, 1, 1]),
        ("linear", 0.25, [0.25, 0.25, 0.75, 0.75]),
        ("margin", 1.0, [1] * 4),
        ("margin", 0.5, [0] * 4),
        ("margin", 0.25, [0.5] * 4),
        ("margin", 0.0, [1] * 4),
        ("uniform", 0.0, [1] * 4),
        ("uniform", 0.7, [1] * 4),
        ("value", 1.0, [1, 0, 0, 2]),
        ("value", 0.0, [0, 0, 1, 2]),
        ("value", 0.5, [0.5, 0.5, 0.5, 2]),
        ("value", 0.25, [0.25, 0.375, 0.75, 2]),
    ],
)
def test_weights(weighting, c, expected):
    weights = PAIR_WEIGHTINGS[weighting](jnp.full(4, c), jnp.asarray(KINDS))
    np.testing.assert_array_equal(weights, np.array(expected, np.float32))
