"""Direct preference optimisation, and its confidence-aware form (CA-DPO)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# What `kind` means; the same integers as `records.PairKind`.
CORRECT_OVER_REFUSAL, CORRECT_OVER_INCORRECT, REFUSAL_OVER_INCORRECT, REFUSAL_OVER_ANSWER = range(4)

Scheme = Callable[[jax.Array, jax.Array], jax.Array]


def linear(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """c where the correct answer is preferred, 1 - c where refusal is; 1 on Type 3 (c = 0).

    Answering is worth 2c - 1 to the user and refusing 0 (our reading; the paper's weights are not public): with these weights the
    two pulls on "answer or refuse" balance at c = 1/2, where the two are worth the same.
    """
    return jnp.where((kind == REFUSAL_OVER_INCORRECT) | (kind == REFUSAL_OVER_ANSWER), 1.0 - confidence, confidence)


def margin(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """|2c - 1|: how much the better of answering and refusing is worth over the other, whatever the pair's kind."""
    return jnp.abs(2.0 * confidence - 1.0)


def uniform(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """1: plain DPO."""
    return jnp.ones_like(confidence)


def value(confidence: Float[Array, " b"], kind: Int[Array, " b"]) -> Float[Array, " b"]:
    """How much more the chosen response is worth to the user than the rejected one, times how often the model faces that choice.

    With a correct answer worth 1, a refusal 0 and a wrong answer -1, and -1 for an answer to Type 3 where a refusal is worth 1:
    correct > refusal c; refusal > incorrect 1 - c; correct > incorrect 2 c (1 - c); refusal > answer 2 (our reading).
    """
    c = confidence
    by_kind = jnp.stack([c, 2.0 * c * (1.0 - c), 1.0 - c, jnp.full_like(c, 2.0)])  # in the order of the integers above
    return jnp.take_along_axis(by_kind, kind[None], axis=0)[0]


SCHEMES: dict[str, Scheme] = {"linear": linear, "margin": margin, "uniform": uniform, "value": value}


def dpo_loss(
    policy_chosen: Float[Array, " b"],
    policy_rejected: Float[Array, " b"],
    ref_chosen: Float[Array, " b"],
    ref_rejected: Float[Array, " b"],
    *,
    beta: float,
) -> Float[Array, " b"]:
    """Per-pair DPO loss, in nats.

    Args:
      policy_chosen, policy_rejected: f32[b], summed log-probabilities of the responses under the policy.
      ref_chosen, ref_rejected: f32[b], the same under the frozen reference.
      beta: inverse temperature of the implicit reward, > 0.
    Returns: f32[b].
    Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7.

    >>> zero = jnp.zeros(1)
    >>> print(dpo_loss(zero, zero, zero, zero, beta=0.1))  # log 2
    [0.6931472]
    """
    return -jax.nn.log_sigmoid(beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)))


def ca_dpo_loss(
    policy_chosen: Float[Array, " b"],
    policy_rejected: Float[Array, " b"],
    ref_chosen: Float[Array, " b"],
    ref_rejected: Float[Array, " b"],
    confidence: Float[Array, " b"],
    kind: Int[Array, " b"],
    *,
    beta: float,
    scheme: str = "value",
) -> Float[Array, " b"]:
    """Per-pair confidence-aware DPO loss: w(c, kind) times the DPO loss, in nats, without the anchor (that is `sft_loss` of the chosen).

    Args:
      confidence: f32[b] in [0, 1], the base model's confidence on the question.
      kind: i32[b], one of the four integers above.
      scheme: name of the weight function in `SCHEMES`.
      the others: as for `dpo_loss`.
    Returns: f32[b].
    Source: the idea is the paper's (arXiv 2412.11196); its equation is not public, and the weights are our decision.
    """
    weight = SCHEMES[scheme](confidence, kind)
    return weight * dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=beta)
