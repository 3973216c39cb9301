"""What the functions say of themselves: annotations and examples."""

import doctest

import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from loss_cases import OPTIONS

from inbol_jax.losses import (
    PAIR_LOSSES,
    PAIR_WEIGHTINGS,
    PairLogprobs,
    abstention_bonus,
    ca_dpo,
    ca_dpo_loss,
    dpo,
    group_advantages,
    kl_estimate,
    logprob,
    policy_gradient,
    policy_gradient_loss,
    preference_margin,
    sequence_logprob,
    sft_loss,
    token_logprobs,
)


def f32(*shape):
    return jnp.zeros(shape, jnp.float32)


PAIR, TOKENS = PairLogprobs(f32(3), f32(3)), [f32(3, 5), jnp.ones((3, 5), bool)]
BOTH, KIND = [PAIR, PAIR], jnp.zeros(3, jnp.int32)
CALLS = [(loss, BOTH, {"beta": 0.1} | OPTIONS.get(name, {})) for name, loss in PAIR_LOSSES.items()]
CALLS += [(weighting, [f32(3), KIND], {}) for weighting in PAIR_WEIGHTINGS.values()]
CALLS += [
    (ca_dpo_loss, [*BOTH, f32(3), KIND, f32(3)], {"beta": 0.1, "nll_coef": 1.0}),
    (preference_margin, BOTH, {}),
    (sequence_logprob, TOKENS, {"average": True}),
    (sft_loss, TOKENS, {}),
    (group_advantages, [f32(3, 5)], {"scale": False}),
    (abstention_bonus, [jnp.zeros((3, 5), bool), jnp.ones((3, 5), bool)], {}),
    (kl_estimate, [f32(3, 5), f32(3, 5)], {}),
    (
        policy_gradient_loss,
        [f32(3, 5), f32(3, 5), f32(3, 5), f32(3), jnp.ones((3, 5), bool)],
        {"kl_coef": 0.1},
    ),
    (token_logprobs, [f32(3, 5, 4), f32(4, 7), jnp.zeros((3, 5), jnp.int32)], {"chunk": 2}),
]


@pytest.mark.parametrize(
    ("function", "arguments", "options"), CALLS, ids=[call[0].__name__ for call in CALLS]
)
def test_shapes_and_dtypes_are_what_the_annotations_say(function, arguments, options):
    """Of arguments and results; and an array with one row or number more than the others, if there
    are others, is refused.
    """
    typed = jaxtyped(typechecker=beartype)(function)
    typed(*arguments, **options)
    arrays, structure = jax.tree.flatten(list(arguments))
    for i, x in enumerate(arrays if len(arrays) > 1 else []):
        longer = jnp.zeros((x.shape[0] + 1, *x.shape[1:]), x.dtype)
        wrong = jax.tree.unflatten(structure, [*arrays[:i], longer, *arrays[i + 1 :]])
        # Arrays of a pair are met by each other, which is JAX's error; the others by their
        # annotation.
        with pytest.raises(
            TypeError if isinstance(arguments[0], PairLogprobs) and i < 4 else TypeCheckError
        ):
            typed(*wrong, **options)


@pytest.mark.parametrize("module", [ca_dpo, dpo, logprob, policy_gradient])
def test_examples_in_the_documentation(module):
    result = doctest.testmod(module, extraglobs={"jnp": jnp, "PairLogprobs": PairLogprobs})
    assert result.attempted >= 1
    assert result.failed == 0
