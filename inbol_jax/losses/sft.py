"""The loss of supervised fine-tuning (IDK-IT)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def sft_loss(
    token_logprobs: Float[Array, "*b t"], mask: Shaped[Array, "*b t"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Negative log-likelihood of the response tokens as (sum, weight).

    Both are summed over devices and micro-batches, and divided once. A mean of per-device means
    would weigh a token by how many others its device happens to hold.

    Args:
      token_logprobs: f32[..., t], in nats. A masked value may be anything, NaN included.
      mask: [..., t], weight of each token: 1 for response tokens, 0 for prompt and padding.
    Returns:
      (sum of the weighted negative log-likelihoods, in nats; sum of the weights).
    """
    weights = mask.astype(jnp.float32)
    # `where` first: 0 * NaN is NaN. Of (6 nats, 3 tokens) and (4 nats, 1 token) the caller makes
    # 10 / 4 = 2.5 nats per token; the mean of both means would be (2 + 4) / 2 = 3.
    unmasked = jnp.where(weights != 0, token_logprobs, 0.0)
    return -jnp.sum(unmasked * weights), jnp.sum(weights)
