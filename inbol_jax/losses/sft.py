"""Negative log-likelihoods: the loss of supervised fine-tuning (IDK-IT), and the anchor of preference optimisation."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from inbol_jax.losses.logprob import sequence_logprob


def sft_loss(
    token_logprobs: Float[Array, "*b t"], mask: Shaped[Array, "*b t"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Negative log-likelihood of the response tokens, as (sum, weight), to be added up over devices and micro-batches and divided once.

    A mean of per-device means would weigh a token by how many others its device happens to hold.

    Args:
      token_logprobs: f32[..., t], in nats. A masked value may be anything, NaN included.
      mask: [..., t], weight of each token: 1 for response tokens, 0 for prompt and padding.
    Returns: (sum of the weighted negative log-likelihoods, in nats; sum of the weights).
    """
    weights = mask.astype(jnp.float32)
    return -jnp.sum(jnp.where(weights != 0, token_logprobs, 0.0) * weights), jnp.sum(weights)


def nll_anchor(
    token_logprobs: Float[Array, "b t"], mask: Shaped[Array, "b t"]
) -> Float[Array, " b"]:
    """Negative log-likelihood a token of each chosen response, in nats: added to a loss of pairs, it keeps chosen responses likely.

    Args: as for `sequence_logprob`, `mask` being that of the chosen response.
    Returns: f32[b]; 0 for a row without tokens.
    Source: the NLL term of Pang et al. 2024 (arXiv 2404.19733).
    """
    return -sequence_logprob(token_logprobs, mask, average=True)
