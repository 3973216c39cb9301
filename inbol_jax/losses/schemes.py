"""The weight of a preference pair, from the confidence on its question and from what it teaches."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from inbol_jax.losses.registry import register_scheme

# What `kind` means; the same integers as `records.PairKind`.
CORRECT_OVER_REFUSAL, CORRECT_OVER_INCORRECT, REFUSAL_OVER_INCORRECT, REFUSAL_OVER_ANSWER = range(4)


@register_scheme("linear")
def linear(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """c where the correct answer is preferred, 1 - c where refusal is; 1 on Type 3 (c = 0).

    Answering is worth 2c - 1 to the user and refusing 0 (our reading; the paper's weights are not public): with these weights the
    two pulls on "answer or refuse" balance at c = 1/2, where the two are worth the same.
    """
    return jnp.where(
        (kind == REFUSAL_OVER_INCORRECT) | (kind == REFUSAL_OVER_ANSWER),
        1.0 - confidence,
        confidence,
    )


@register_scheme("margin")
def margin(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """|2c - 1|: how much the better of answering and refusing is worth over the other, whatever the pair's kind."""
    return jnp.abs(2.0 * confidence - 1.0)


@register_scheme("uniform")
def uniform(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """1: plain DPO."""
    return jnp.ones_like(confidence)


@register_scheme("value")
def value(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """How much more the chosen response is worth to the user than the rejected one, times how often the model faces that choice.

    With a correct answer worth 1, a refusal 0 and a wrong answer -1, and -1 for an answer to Type 3 where a refusal is worth 1:
    correct > refusal c; refusal > incorrect 1 - c; correct > incorrect 2 c (1 - c); refusal > answer 2 (our reading).
    """
    c = confidence
    by_kind = jnp.stack(
        [c, 2.0 * c * (1.0 - c), 1.0 - c, jnp.full_like(c, 2.0)]
    )  # in the order of the integers above
    return jnp.take_along_axis(by_kind, kind[None], axis=0)[0]
