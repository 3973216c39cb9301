"""Direct preference optimisation, its variants, and its confidence-aware form (CA-DPO).

Every loss of pairs takes the log-probabilities of chosen and rejected, under the policy and under the reference. Zeros for those of the
reference make it reference-free; averages over tokens (`sequence_logprob(..., average=True)`) make it length-normalised.
"""

import jax
from jaxtyping import Array, Float, Int

from inbol_jax.losses.registry import LOSSES, SCHEMES, register_loss


def preference_margin(
    policy_chosen: Float[Array, " b"],
    policy_rejected: Float[Array, " b"],
    ref_chosen: Float[Array, " b"],
    ref_rejected: Float[Array, " b"],
) -> Float[Array, " b"]:
    """f32[b], in nats: how much more the policy prefers chosen to rejected than the reference; times beta, the margin of rewards."""
    return (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)


@register_loss("sigmoid")
def dpo_loss(
    policy_chosen: Float[Array, " b"],
    policy_rejected: Float[Array, " b"],
    ref_chosen: Float[Array, " b"],
    ref_rejected: Float[Array, " b"],
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Float[Array, " b"]:
    """Per-pair DPO loss, in nats.

    Args:
      policy_chosen, policy_rejected: f32[b], summed log-probabilities of the responses under the policy.
      ref_chosen, ref_rejected: f32[b], the same under the frozen reference.
      beta: inverse temperature of the implicit reward, > 0.
      label_smoothing: probability in [0, 1/2) that a pair is the wrong way round: the expected loss (conservative DPO).
    Returns: f32[b].
    Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; with label smoothing Mitchell 2023, "A note on DPO with noisy preferences".

    >>> zero = jnp.zeros(1)
    >>> print(dpo_loss(zero, zero, zero, zero, beta=0.1))  # log 2
    [0.6931472]
    """
    reward = beta * preference_margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    return -(1.0 - label_smoothing) * jax.nn.log_sigmoid(
        reward
    ) - label_smoothing * jax.nn.log_sigmoid(-reward)


@register_loss("robust")
def robust_dpo_loss(
    policy_chosen: Float[Array, " b"],
    policy_rejected: Float[Array, " b"],
    ref_chosen: Float[Array, " b"],
    ref_rejected: Float[Array, " b"],
    *,
    beta: float,
    label_smoothing: float,
) -> Float[Array, " b"]:
    """Per-pair robust DPO loss, in nats: its mean over pairs of which a share `label_smoothing` is flipped is that of DPO over clean ones.

    It can be negative. Arguments as for `dpo_loss`.
    Source: Chowdhury et al. 2024 (arXiv 2403.00409).
    """
    as_given = dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=beta)
    flipped = dpo_loss(policy_rejected, policy_chosen, ref_rejected, ref_chosen, beta=beta)
    return ((1.0 - label_smoothing) * as_given - label_smoothing * flipped) / (
        1.0 - 2.0 * label_smoothing
    )


@register_loss("ipo")
def ipo_loss(
    policy_chosen: Float[Array, " b"],
    policy_rejected: Float[Array, " b"],
    ref_chosen: Float[Array, " b"],
    ref_rejected: Float[Array, " b"],
    *,
    beta: float,
) -> Float[Array, " b"]:
    """Per-pair IPO loss, in nats squared: the margin is drawn to 1 / (2 beta), and not beyond.

    Arguments as for `dpo_loss`; `beta` is the paper's tau. Its authors take averages over tokens, which the paper does not say.
    Source: Azar et al. 2023 (arXiv 2310.12036), equation 17.
    """
    return (
        preference_margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
        - 1.0 / (2.0 * beta)
    ) ** 2


@register_loss("hinge")
def hinge_loss(
    policy_chosen: Float[Array, " b"],
    policy_rejected: Float[Array, " b"],
    ref_chosen: Float[Array, " b"],
    ref_rejected: Float[Array, " b"],
    *,
    beta: float,
) -> Float[Array, " b"]:
    """Per-pair hinge loss, without unit: 0 where the margin of rewards is at least 1.

    Arguments as for `dpo_loss`.
    Source: SLiC-HF, Zhao et al. 2023 (arXiv 2305.10425); over a reference as in RSO, Liu et al. 2023 (arXiv 2309.06657).
    """
    return jax.nn.relu(
        1.0 - beta * preference_margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    )


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
    loss: str = "sigmoid",
    **options: float,
) -> Float[Array, " b"]:
    """Per-pair confidence-aware loss: w(c, kind) times the loss of the pair, without the anchor (that is `nll_anchor` of the chosen).

    Args:
      confidence: f32[b] in [0, 1], the base model's confidence on the question.
      kind: i32[b], one of the four integers in `schemes`.
      scheme: name of the weight in `SCHEMES`.
      loss: name of the pair's loss in `LOSSES`; "sigmoid" is DPO.
      options: further keywords of that loss (`label_smoothing`).
      the others: as for `dpo_loss`.
    Returns: f32[b].
    Source: the idea is the paper's (arXiv 2412.11196); its equation is not public, and the weights are our decision.
    """
    weight = SCHEMES[scheme](confidence, kind)
    return weight * LOSSES[loss](
        policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=beta, **options
    )
