"""Pieces that the vision tower and the decoder share."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
}

NEGATIVE = -1e9  # for masked scores: finite, so that a row without any key gives a uniform average instead of NaN


def _dot_rows(x: Float[Array, "*b d"], kernel: Float[Array, "d f"], dimension_numbers, **options) -> Float[Array, "*b f"]:
    """`dot_general` of a dense layer, with the leading axes merged into one.

    With three axes XLA copies x transposed for the kernel's gradient, which on a CPU takes longer than the product itself.
    """
    rows = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
    return rows.reshape(*x.shape[:-1], kernel.shape[-1])


Dense = functools.partial(nn.Dense, dot_general=_dot_rows)


class RMSNorm(nn.Module):
    """Root mean square normalisation in float32. Source: Zhang & Sennrich 2019 (arXiv 1910.07467)."""

    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        y = x.astype(jnp.float32)  # the mean of squares loses too much in bfloat16
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.epsilon)
        return (scale * y.astype(self.dtype)).astype(self.dtype)


def rope(x: Float[Array, "b t h d"], positions: Int[Array, "b t"], theta: float) -> Float[Array, "b t h d"]:
    """Rotary position embedding in the half-split layout of Llama. Source: Su et al. 2021 (arXiv 2104.09864)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[:, :, None, None].astype(jnp.float32) * frequency  # b t 1 half
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def attend(
    q: Float[Array, "b q h d"], k: Float[Array, "b s k d"], v: Float[Array, "b s k d"], mask: Bool[Array, "b q s"]
) -> Float[Array, "b q h*d"]:
    """Masked attention with grouped keys and values (h a multiple of k); softmax in float32.

    Heads in front of positions and one division at the end: half the time of the plain form on a CPU.
    """
    b, t, heads, dim = q.shape
    groups, s = k.shape[2], k.shape[1]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q * dim**-0.5, k, v))
    q = q.reshape(b, groups, -1, dim)  # heads of a group are more queries of its keys
    scores = jnp.matmul(q, k.transpose(0, 1, 3, 2), preferred_element_type=jnp.float32).reshape(b, groups, -1, t, s)
    scores = jnp.where(mask[:, None, None], scores, NEGATIVE)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True))).reshape(b, groups, -1, s)
    total = weights.sum(-1, keepdims=True)
    out = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32) / total
    return out.astype(v.dtype).reshape(b, heads, t, dim).transpose(0, 2, 1, 3).reshape(b, t, heads * dim)


def attend_forked(
    q: Float[Array, "b n h d"],
    prefix: tuple[Float[Array, "b s k d"], Float[Array, "b s k d"]],
    prefix_mask: Bool[Array, "b s"],
    suffix: tuple[Float[Array, "b n t k d"], Float[Array, "b n t k d"]],
    step: Int[Array, ""],
) -> Float[Array, "b n h*d"]:
    """One new token of each of n continuations against the prefix that they share and against their own suffix.

    The prefix is stored once: the n continuations stand where a sequence has its queries, and no key is copied n times.

    Args:
      step: index of the new token in the suffix; later entries of the suffix are not yet written and masked.
    """
    b, n, heads, dim = q.shape
    groups = prefix[0].shape[2]
    q = q.reshape(b, n, groups, heads // groups, dim)
    before = jnp.einsum("bnkgd,bskd->bnkgs", q, prefix[0], preferred_element_type=jnp.float32)
    own = jnp.einsum("bnkgd,bntkd->bnkgt", q, suffix[0], preferred_element_type=jnp.float32)
    scores = jnp.concatenate(
        [
            jnp.where(prefix_mask[:, None, None, None], before, NEGATIVE),
            jnp.where(jnp.arange(own.shape[-1]) <= step, own, NEGATIVE),
        ],
        axis=-1,
    )
    weights = jax.nn.softmax(scores * dim**-0.5, axis=-1).astype(q.dtype)
    split = before.shape[-1]
    out = jnp.einsum("bnkgs,bskd->bnkgd", weights[..., :split], prefix[1])
    out += jnp.einsum("bnkgt,bntkd->bnkgd", weights[..., split:], suffix[1])
    return out.reshape(b, n, heads * dim)
