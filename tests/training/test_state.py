"""Which variables are trained and which are frozen."""

import re
from pathlib import Path

import pytest
from flax.traverse_util import flatten_dict

from inbol_jax.errors import InbolError
from inbol_jax.training.config import FROZEN
from inbol_jax.training.state import merge_variables, split_variables

ROOT = Path(__file__).parents[2]


def test_split_and_merge(tiny):
    trainable, frozen = split_variables(tiny.variables, FROZEN)
    assert not trainable.keys() & frozen.keys()
    assert all(path.startswith("params/vision_tower/") or "embed_tokens" in path for path in frozen)
    assert not any(
        path.startswith("params/vision_tower/") or "embed_tokens" in path for path in trainable
    )
    merged, expected = (
        flatten_dict(merge_variables(trainable, frozen)),
        flatten_dict(dict(tiny.variables)),
    )
    assert merged.keys() == expected.keys()
    assert all(merged[path] is expected[path] for path in expected)
    everything, nothing = split_variables(tiny.variables, ())
    assert (len(everything), nothing) == (len(expected), {})


@pytest.mark.parametrize("frozen", [("^decoder/",), (*FROZEN, "lora")])
def test_a_pattern_that_freezes_nothing_is_named(tiny, frozen):
    with pytest.raises(InbolError, match=re.escape(repr(frozen[-1])) + " matches no parameter"):
        split_variables(tiny.variables, frozen)


def test_nothing_left_to_train(tiny):
    with pytest.raises(InbolError, match="leaves no parameter"):
        split_variables(tiny.variables, ("vision_tower", "projector", "language_model"))


def test_a_pattern_that_is_no_expression(tiny):
    with pytest.raises(InbolError, match=re.escape("'*norm'")):
        split_variables(tiny.variables, ("*norm",))
