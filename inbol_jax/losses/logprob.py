"""Log-probabilities of given tokens from hidden states."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real


def token_logprobs(
    hidden: Float[Array, "*b d"], head: Float[Array, "d V"], targets: Int[Array, "*b"], *, chunk: int | None = None
) -> Float[Array, "*b"]:
    """log p(target | context) of each position, in nats, in float32.

    Args:
      hidden: f[..., d], final hidden states; position i predicts targets[i].
      head: f[d, V], the output embedding.
      targets: i32[...], token ids in [0, V).
      chunk: how many positions have their V logits in memory at a time, forward and backward; None for all of them at once.
        The value does not depend on it.
    Returns: f32[...], same leading shape.
    """

    def logprob(hidden: jax.Array, targets: jax.Array) -> jax.Array:
        logits = jnp.einsum("nd,dv->nv", hidden, head, preferred_element_type=jnp.float32)
        return jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)

    flat, ids = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    head = head.astype(hidden.dtype)
    if chunk is None or len(ids) <= chunk:
        return logprob(flat, ids).reshape(targets.shape)
    padding = -len(ids) % chunk
    chunks = jnp.pad(flat, ((0, padding), (0, 0))).reshape(-1, chunk, flat.shape[-1]), jnp.pad(ids, (0, padding)).reshape(-1, chunk)
    # The backward pass recomputes a chunk's logits instead of keeping them.
    return jax.lax.map(lambda x: jax.checkpoint(logprob)(*x), chunks).reshape(-1)[: len(ids)].reshape(targets.shape)


def sequence_logprob(token_logprobs: Float[Array, "b t"], mask: Real[Array, "b t"]) -> Float[Array, " b"]:
    """Summed log-probability of each sequence's tokens where `mask` is not 0, in nats. A masked value may be anything, NaN included."""
    return jnp.sum(jnp.where(mask != 0, token_logprobs, 0.0), axis=-1)
