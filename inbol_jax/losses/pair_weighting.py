"""Pair weightings: a pair's weight, from the confidence on its question and what it teaches."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from inbol_jax.losses.registry import register_pair_weighting

# What `kind` means: the same integers as `records.PairKind`.
CORRECT_OVER_REFUSAL, CORRECT_OVER_INCORRECT, REFUSAL_OVER_INCORRECT, REFUSAL_OVER_ANSWER = range(4)


@register_pair_weighting("linear")
def linear_weights(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """c if the correct answer is preferred, 1 - c if the refusal is; 1 on Type 3, where c = 0.

    Answering is worth 2c - 1 to the user and refusing 0 (our reading; the paper's weights are not
    public). With these weights "answer" and "refuse" are pulled equally at c = 1/2, where both are
    worth the same.
    """
    # c = 0.8: pairs with the correct answer 0.8, pairs with the refusal 0.2.
    prefers_refusal = (kind == REFUSAL_OVER_INCORRECT) | (kind == REFUSAL_OVER_ANSWER)
    return jnp.where(prefers_refusal, 1.0 - confidence, confidence)


@register_pair_weighting("margin")
def margin_weights(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """|2c - 1| for every kind: how far the values of answering and refusing are apart."""
    return jnp.abs(2.0 * confidence - 1.0)


@register_pair_weighting("uniform")
def uniform_weights(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """1: plain DPO."""
    return jnp.ones_like(confidence)


@register_pair_weighting("value")
def value_weights(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """How much more the chosen response is worth, times how often the model faces that choice.

    A correct answer is worth 1, a refusal 0, a wrong answer -1; on Type 3 a refusal is worth 1 and
    an answer -1. So the weights are (our reading): correct > refusal c; correct > incorrect 2 c (1
    - c); refusal > incorrect 1 - c; refusal > answer 2.
    """
    # How often the model faces the choice, times the difference of the values; with c = 0.8:
    #   correct > refusal    c       * (1 - 0)  = 0.8
    #   correct > incorrect  c (1-c) * (1 - -1) = 0.32
    #   refusal > incorrect  (1-c)   * (0 - -1) = 0.2
    #   refusal > answer     1       * (1 - -1) = 2
    c = confidence
    # f32[4, b], one row per kind in the order of the integers above
    by_kind = jnp.stack([c, 2.0 * c * (1.0 - c), 1.0 - c, jnp.full_like(c, 2.0)])
    return jnp.take_along_axis(by_kind, kind[None], axis=0)[0]
