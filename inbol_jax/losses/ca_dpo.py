"""Confidence-aware DPO (CA-DPO): the whole loss of a preference pair."""

from jaxtyping import Array, Float, Int

from inbol_jax.losses.dpo import PairLogprobs, dpo_loss
from inbol_jax.losses.pair_weighting import value_weights
from inbol_jax.losses.registry import PairLoss, PairWeighting


def ca_dpo_loss(
    policy: PairLogprobs,
    reference: PairLogprobs,
    confidence: Float[Array, " b"],
    kind: Int[Array, " b"],
    chosen_nll: Float[Array, " b"],
    *,
    beta: float,
    nll_coef: float,
    weighting: PairWeighting = value_weights,
    pair_loss: PairLoss = dpo_loss,
) -> Float[Array, " b"]:
    """The CA-DPO loss of each pair, in nats:

        w(c, kind) * (pair_loss(policy, reference) + nll_coef * NLL(chosen) / tokens)

    The weight stands before both terms. An NLL term without it would teach, pair by pair, what the
    weights are there to balance.

    Args:
      policy, reference: log-probabilities of the chosen and the rejected response, f32[b] each, see
        `dpo_loss`.
      confidence: f32[b] in [0, 1], how often the base model answers the question correctly.
      kind: i32[b], what the pair teaches: one of the four integers in `pair_weighting`.
      chosen_nll: f32[b], negative log-likelihood per token of the chosen response, in nats.
      beta: inverse temperature of the implicit reward, greater than 0.
      nll_coef: coefficient of the NLL term, at least 0.
      weighting: the pair weight w, a function of `confidence` and `kind`.
      pair_loss: the loss of the pair, called with `policy`, `reference` and `beta`.
    Returns:
      f32[b].

    Source: the idea of confidence-aware DPO is that of InBoL (arXiv 2412.11196). Its equation is
    not public: the weights and where they stand are our decision. The NLL term is that of Pang et
    al. 2024 (arXiv 2404.19733).

    Examples:
      >>> zero = jnp.zeros(1)
      >>> pair = PairLogprobs(chosen=zero, rejected=zero)
      >>> kind = jnp.array([0])  # correct over refusal: its weight is the confidence
      >>> loss = ca_dpo_loss(pair, pair, zero + 0.5, kind, zero + 1.0, beta=0.1, nll_coef=3.0)
      >>> print(loss)  # (log 2 + 3) / 2
      [1.8465736]
    """
    # f32[b], data without a gradient: the model cannot lower its loss by changing the weights.
    weight = weighting(confidence, kind)
    return weight * (pair_loss(policy, reference, beta=beta) + nll_coef * chosen_nll)
