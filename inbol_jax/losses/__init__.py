"""Pure losses on log-probabilities, which know of no model: arrays in, arrays out."""

from inbol_jax.losses.ca_dpo import ca_dpo_loss
from inbol_jax.losses.dpo import (
    PairLogprobs,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    preference_margin,
    robust_dpo_loss,
)
from inbol_jax.losses.logprob import sequence_logprob, token_logprobs
from inbol_jax.losses.pair_weighting import (
    CORRECT_OVER_INCORRECT,
    CORRECT_OVER_REFUSAL,
    REFUSAL_OVER_ANSWER,
    REFUSAL_OVER_INCORRECT,
    linear_weights,
    margin_weights,
    uniform_weights,
    value_weights,
)
from inbol_jax.losses.policy_gradient import (
    abstention_bonus,
    group_advantages,
    kl_estimate,
    policy_gradient_loss,
)
from inbol_jax.losses.registry import (
    PAIR_LOSSES,
    PAIR_WEIGHTINGS,
    has_label_smoothing,
    register_pair_loss,
    register_pair_weighting,
)
from inbol_jax.losses.sft import sft_loss

__all__ = [
    "CORRECT_OVER_INCORRECT",
    "CORRECT_OVER_REFUSAL",
    "PAIR_LOSSES",
    "PAIR_WEIGHTINGS",
    "REFUSAL_OVER_ANSWER",
    "REFUSAL_OVER_INCORRECT",
    "PairLogprobs",
    "abstention_bonus",
    "ca_dpo_loss",
    "dpo_loss",
    "group_advantages",
    "has_label_smoothing",
    "hinge_loss",
    "ipo_loss",
    "kl_estimate",
    "linear_weights",
    "margin_weights",
    "policy_gradient_loss",
    "preference_margin",
    "register_pair_loss",
    "register_pair_weighting",
    "robust_dpo_loss",
    "sequence_logprob",
    "sft_loss",
    "token_logprobs",
    "uniform_weights",
    "value_weights",
]
