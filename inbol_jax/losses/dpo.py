"""Direct preference optimisation and its variants.

Every loss of pairs takes the log-probabilities of the responses under the policy and under the
reference. Zeros for the reference make a loss reference-free. Averages over tokens
(`sequence_logprob(..., average=True)`) make it length-normalised.
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from inbol_jax.losses.registry import register_pair_loss


class PairLogprobs(NamedTuple):
    """Log-probabilities of both responses of each pair under one model, in nats: f32[b] each."""

    chosen: Float[Array, " b"]
    rejected: Float[Array, " b"]


def preference_margin(policy: PairLogprobs, reference: PairLogprobs) -> Float[Array, " b"]:
    """How much more the policy prefers chosen to rejected than the reference does: f32[b], in nats.

    Times beta, it is the difference of the implicit rewards.
    """
    # chosen -4 (reference -5), rejected -7 (reference -6): 1 - (-1) = 2 nats in favour of chosen
    return (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)


@register_pair_loss("sigmoid")
def dpo_loss(
    policy: PairLogprobs, reference: PairLogprobs, *, beta: float, label_smoothing: float = 0.0
) -> Float[Array, " b"]:
    """DPO loss of each pair, in nats.

    Args:
      policy: summed log-probabilities of the responses under the policy.
      reference: the same under the frozen reference.
      beta: inverse temperature of the implicit reward, greater than 0.
      label_smoothing: probability in [0, 1/2) that chosen and rejected are swapped. The loss is
        then the expected one (conservative DPO).
    Returns:
      f32[b].

    Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; with label smoothing Mitchell 2023,
    "A note on DPO with noisy preferences".

    Examples:
      >>> zero = jnp.zeros(1)
      >>> pair = PairLogprobs(chosen=zero, rejected=zero)
      >>> print(dpo_loss(pair, pair, beta=0.1))  # log 2
      [0.6931472]
    """
    # With e = label_smoothing: -(1 - e) log sigmoid(reward) - e log sigmoid(-reward)
    reward = beta * preference_margin(policy, reference)
    as_given = -(1.0 - label_smoothing) * jax.nn.log_sigmoid(reward)
    return as_given - label_smoothing * jax.nn.log_sigmoid(-reward)


@register_pair_loss("robust")
def robust_dpo_loss(
    policy: PairLogprobs, reference: PairLogprobs, *, beta: float, label_smoothing: float
) -> Float[Array, " b"]:
    """Robust DPO loss of each pair, in nats. It can be negative. Arguments as for `dpo_loss`.

    If chosen and rejected are swapped in a share `label_smoothing` of the pairs, its mean over them
    is the mean DPO loss of the clean pairs.
    Source: Chowdhury et al. 2024 (arXiv 2403.00409).
    """
    # With e = label_smoothing, pairs that are swapped in a share e have the mean (1 - e) L + e L',
    # and their swapped copies (1 - e) L' + e L. This combination leaves L, the loss of clean pairs.
    as_given = dpo_loss(policy, reference, beta=beta)
    swapped = dpo_loss(PairLogprobs(*policy[::-1]), PairLogprobs(*reference[::-1]), beta=beta)
    difference = (1.0 - label_smoothing) * as_given - label_smoothing * swapped
    return difference / (1.0 - 2.0 * label_smoothing)


@register_pair_loss("ipo")
def ipo_loss(policy: PairLogprobs, reference: PairLogprobs, *, beta: float) -> Float[Array, " b"]:
    """IPO loss of each pair, in nats squared: it draws the margin to 1 / (2 beta), and not beyond.

    Arguments as for `dpo_loss`; `beta` is the paper's tau. Its authors take averages over tokens,
    which the paper does not say.
    Source: Azar et al. 2023 (arXiv 2310.12036), equation 17.
    """
    # beta = 0.1: towards a margin of 5 nats
    return (preference_margin(policy, reference) - 1.0 / (2.0 * beta)) ** 2


@register_pair_loss("hinge")
def hinge_loss(policy: PairLogprobs, reference: PairLogprobs, *, beta: float) -> Float[Array, " b"]:
    """Hinge loss of each pair, without unit: 0 if the rewards differ by at least 1.

    Arguments as for `dpo_loss`.
    Source: SLiC-HF, Zhao et al. 2023 (arXiv 2305.10425); over a reference as in RSO, Liu et al.
    2023 (arXiv 2309.06657).
    """
    # beta = 0.1: pairs with a margin of 10 nats or more teach nothing
    return jax.nn.relu(1.0 - beta * preference_margin(policy, reference))
