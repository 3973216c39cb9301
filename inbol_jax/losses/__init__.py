"""Pure losses on log-probabilities: arrays in, per-example arrays out. Nothing here knows of a model or imports from this project."""

from inbol_jax.losses.dpo import SCHEMES, ca_dpo_loss, dpo_loss, linear, margin, uniform, value
from inbol_jax.losses.logprob import sequence_logprob, token_logprobs
from inbol_jax.losses.sft import sft_loss

__all__ = ["SCHEMES", "ca_dpo_loss", "dpo_loss", "linear", "margin", "sequence_logprob", "sft_loss", "token_logprobs", "uniform", "value"]
