"""Pure losses on log-probabilities: arrays in, per-example arrays out. Nothing here knows of a model or imports from this project."""

from inbol_jax.losses.dpo import (
    ca_dpo_loss,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    preference_margin,
    robust_dpo_loss,
)
from inbol_jax.losses.logprob import sequence_logprob, token_logprobs
from inbol_jax.losses.registry import (
    LOSSES,
    SCHEMES,
    register_loss,
    register_scheme,
    smooths_labels,
)
from inbol_jax.losses.schemes import linear, margin, uniform, value
from inbol_jax.losses.sft import nll_anchor, sft_loss

__all__ = [
    "LOSSES",
    "SCHEMES",
    "ca_dpo_loss",
    "dpo_loss",
    "hinge_loss",
    "ipo_loss",
    "linear",
    "margin",
    "nll_anchor",
    "preference_margin",
    "register_loss",
    "register_scheme",
    "robust_dpo_loss",
    "sequence_logprob",
    "sft_loss",
    "smooths_labels",
    "token_logprobs",
    "uniform",
    "value",
]
