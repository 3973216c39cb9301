"""Pieces that the vision towers and the decoders share."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.models.lora import LoraConfig


def _gelu_tanh(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=True)


def _gelu(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=False)


# Under the names that transformers' configs use; all that have no parameters of their own.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": _gelu,
    "gelu_10": lambda x: jnp.clip(_gelu(x), -10.0, 10.0),
    "gelu_accurate": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_python": _gelu,
    "gelu_python_tanh": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "hardswish": nn.hard_swish,
    "laplace": lambda x: 0.5 * (1.0 + jax.lax.erf((x - 0.707107) / (0.282095 * math.sqrt(2.0)))),
    "leaky_relu": nn.leaky_relu,
    "linear": lambda x: x,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "relu": nn.relu,
    "relu2": lambda x: jnp.square(nn.relu(x)),
    "relu6": nn.relu6,
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "swish": nn.silu,
    "tanh": jnp.tanh,
}

# What is kept of a layer's activations: everything, the products with weights, or nothing but its input.
REMAT: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}

BLOCK = 256  # queries
NEGATIVE = (
    -1e9
)  # for masked scores: finite, so that a row without any key gives a uniform average instead of NaN


@dataclasses.dataclass(frozen=True)
class Compute:
    """How, not what, the modules compute.

    Attributes:
      dtype: of products and activations; softmax, norms and rotary angles are in float32 whatever it is.
      lora: scale and dropout of adapters, where the variables hold any.
      remat: what of a decoder layer the backward pass computes again, a name in `REMAT`.
    """

    dtype: jnp.dtype = jnp.float32
    lora: LoraConfig | None = None
    remat: str = "none"


class Dense(nn.Module):
    """A dense layer: f[*b, d] -> f[*b, features]. Where the collection `lora` holds `a` and `b` for it, their product is added.

    Source of the adapter: Hu et al. 2021 (arXiv 2106.09685), equation 3. Dropout acts on its input, where a `dropout` key is given.
    """

    features: int
    compute: Compute
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b {self.features}"]:
        dtype = self.compute.dtype
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        # With more axes than two XLA copies x transposed for the kernel's gradient, which on a CPU takes longer than the product itself.
        rows = x.reshape(-1, x.shape[-1]).astype(dtype)
        y = rows @ kernel.astype(dtype)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        if self.has_variable("lora", "a"):
            lora = self.compute.lora
            if lora is None:
                raise ValueError(
                    "variables hold adapters, but the model was made without a LoraConfig: their scale is unknown"
                )
            a, b = (self.get_variable("lora", name) for name in "ab")
            if lora.dropout and self.has_rng("dropout"):
                kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - lora.dropout, rows.shape)
                rows = jnp.where(kept, rows / (1 - lora.dropout), 0)
            y += (rows @ a.astype(dtype)) @ (lora.scale(a.shape[1]) * b).astype(dtype)
        return y.reshape(*x.shape[:-1], self.features)


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


def rope_frequencies(
    head_dim: int, theta: float, kind: str, scaling: Mapping[str, float]
) -> np.ndarray:
    """f32[head_dim / 2], in radians a position. `kind` and `scaling` as `rope_parameters` of a config name them.

    Source: Su et al. 2021 (arXiv 2104.09864); linear: Chen et al. 2023 (arXiv 2306.15595); llama3: as in transformers, no paper says it.
    """
    frequency = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    if kind == "linear":
        frequency = frequency / scaling["factor"]
    if (
        kind == "llama3"
    ):  # long waves are stretched by the factor, short ones are not, those between by a share of it
        turns = (
            scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
        )  # in the original context
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        share = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequency = (1 - share) * frequency / scaling["factor"] + share * frequency
    return frequency.astype(np.float32)


def rope(
    x: Float[Array, "b t h d"], positions: Int[Array, "b t"], frequency: Float[np.ndarray, " d/2"]
) -> Float[Array, "b t h d"]:
    """Rotary position embedding in the half-split layout of Llama. Source: Su et al. 2021 (arXiv 2104.09864)."""
    half = x.shape[-1] // 2
    angle = positions[:, :, None, None].astype(jnp.float32) * frequency  # b t 1 half
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def dot_product_attention(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b s k d"],
    v: Float[Array, "b s k d"],
    mask: Bool[Array, "b q s"],
    *,
    causal: bool = False,
) -> Float[Array, "b q h*d"]:
    """Masked attention with grouped keys and values (h a multiple of k); softmax in float32.

    Long rows of queries are taken at most `BLOCK` at a time, whose weights the backward pass computes again: those of all queries are
    never in memory together. Source of the idea: Rabe & Staats 2021 (arXiv 2112.05682).

    Args:
      causal: the mask shows a query no key behind its own place, so that these need not be looked at.
    """
    t = q.shape[1]
    if t <= BLOCK:
        return _attention(q, k, v, mask)
    size = -(-t // -(-t // BLOCK))  # as few blocks as may be, of about one size
    blocks = []
    for start in range(0, t, size):
        stop = min(start + size, t)
        seen = stop if causal else k.shape[1]
        blocks.append(
            jax.checkpoint(_attention)(
                q[:, start:stop], k[:, :seen], v[:, :seen], mask[:, start:stop, :seen]
            )
        )
    return jnp.concatenate(blocks, axis=1)


def _attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """`dot_product_attention` in one piece. Heads in front of positions and one division at the end: half the time of the plain form on a CPU."""
    b, t, heads, dim = q.shape
    groups, s = k.shape[2], k.shape[1]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q * dim**-0.5, k, v))
    q = q.reshape(b, groups, -1, dim)  # heads of a group are more queries of its keys
    scores = jnp.matmul(q, k.transpose(0, 1, 3, 2), preferred_element_type=jnp.float32).reshape(
        b, groups, -1, t, s
    )
    scores = jnp.where(mask[:, None, None], scores, NEGATIVE)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True))).reshape(
        b, groups, -1, s
    )
    total = weights.sum(-1, keepdims=True)
    out = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32) / total
    return (
        out.astype(v.dtype)
        .reshape(b, heads, t, dim)
        .transpose(0, 2, 1, 3)
        .reshape(b, t, heads * dim)
    )


def decode_attention(
    q: Float[Array, "b n h d"],
    prefix: tuple[Float[Array, "b s k d"], Float[Array, "b s k d"]],
    prefix_mask: Bool[Array, "b n s"],
    suffix: tuple[Float[Array, "b n t k d"], Float[Array, "b n t k d"]],
    suffix_mask: Bool[Array, " t"],
) -> Float[Array, "b n h*d"]:
    """One new token of each of n continuations against the prefix that they share and against their own suffix.

    The prefix is stored once: the n continuations stand where a sequence has its queries, and no key is copied n times.
    """
    b, n, heads, dim = q.shape
    groups = prefix[0].shape[2]
    q = q.reshape(b, n, groups, heads // groups, dim)
    before = jnp.einsum("bnkgd,bskd->bnkgs", q, prefix[0], preferred_element_type=jnp.float32)
    own = jnp.einsum("bnkgd,bntkd->bnkgt", q, suffix[0], preferred_element_type=jnp.float32)
    scores = jnp.concatenate(
        [
            jnp.where(prefix_mask[:, :, None, None], before, NEGATIVE),
            jnp.where(suffix_mask, own, NEGATIVE),
        ],
        axis=-1,
    )
    weights = jax.nn.softmax(scores * dim**-0.5, axis=-1).astype(q.dtype)
    split = before.shape[-1]
    out = jnp.einsum("bnkgs,bskd->bnkgd", weights[..., :split], prefix[1])
    out += jnp.einsum("bnkgt,bntkd->bnkgd", weights[..., split:], suffix[1])
    return out.reshape(b, n, heads * dim)
