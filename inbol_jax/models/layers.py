"""Layers that the vision towers and the decoders share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.models.config import LoraConfig

# Names as in transformers' configs; those that published checkpoints of the families use.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
}

# Names (`checkpoint_name`) of what costs a product with weights to compute again.
_keep_named = jax.checkpoint_policies.save_only_these_names(
    "query", "key", "value", "attended", "gate", "up", "adapter"
)


def _selective(primitive: Any, *inputs: Any, **params: Any) -> bool:
    # Without its results cuDNN's forward kernel would run twice.
    fused = primitive.name.startswith("dot_product_attention_fwd")
    return fused or _keep_named(primitive, *inputs, **params)


# What a decoder layer keeps for the backward pass, which computes the rest again: everything, what
# is expensive (the results of fused attention and of most products), or nothing but the layer's
# input.
REMAT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "selective": _selective,
    "full": jax.checkpoint_policies.nothing_saveable,
}

SMALL_INIT = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
"""Initialises the last product of a residual branch, so that activations do not grow with depth."""

STACKED = "layers_all"  # holds what `layers_0`, `layers_1`, ... do, with a leading axis of layers
QUERY_CHUNK_SIZE = 256
# Score of a masked key. It is finite, so that a query without any key averages uniformly instead of
# giving NaN.
MASK_VALUE = -1e9


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """How the modules compute, as opposed to what."""

    dtype: jnp.dtype = jnp.float32
    """Dtype of products and activations. Softmax, norms and rotary angles are always in float32."""
    lora: LoraConfig | None = None
    """Scale of the adapters, if the variables hold any."""
    remat: str = "none"
    """What the backward pass of a decoder layer computes again: a key of `REMAT_POLICIES`."""
    attention: str = "xla"
    """Implementation of attention: "xla" runs everywhere, "cudnn" is NVIDIA's fused kernel, which
    takes heads of some sizes."""

    def attention_of(self, head_dim: int) -> str:
        """Returns the implementation for heads of this size."""
        return self.attention if head_dim <= 128 and head_dim % 8 == 0 else "xla"


def attention_for(device: jax.Device, dtype: Any) -> str:
    """Returns the implementation of attention, see `ComputeOptions`, that is best on a device.

    cuDNN's fused kernels take 16-bit floats, and need Ampere or later. What counts is the device
    that a program is compiled for, which need not be one of this machine.
    """
    capability = str(getattr(device, "compute_capability", ""))  # "9.0"; AMD: "gfx942"
    ampere = capability.replace(".", "").isdigit() and float(capability) >= 8
    return "cudnn" if ampere and jnp.dtype(dtype).itemsize == 2 else "xla"


class Dense(nn.Module):
    """A dense layer, f[*b, d] -> f[*b, features], with an adapter if the collection `lora` has one.

    Source of the adapter: Hu et al. 2021 (arXiv 2106.09685), equation 3.
    """

    features: int
    compute: ComputeOptions
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b {self.features}"]:
        dtype = self.compute.dtype
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        # One row axis: with more, XLA's CPU backend copies x transposed for the kernel's gradient.
        rows = x.reshape(-1, x.shape[-1]).astype(dtype)  # [rows, d]
        y = rows @ kernel.astype(dtype)  # [rows, features]
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        if self.has_variable("lora", "a"):
            y += self._adapter(rows)
        return y.reshape(*x.shape[:-1], self.features)

    def _adapter(self, rows: Float[Array, "r d"]) -> Float[Array, "r {self.features}"]:
        lora, dtype = self.compute.lora, self.compute.dtype
        if lora is None:
            raise ValueError(
                "variables hold adapters, but the model was made without a LoraConfig: "
                "their scale is unknown"
            )
        a = self.get_variable("lora", "a")  # [d, rank]
        b = self.get_variable("lora", "b")  # [rank, features]
        # (x a) b and not x (a b): the product a b would be as large as the kernel. The scale goes
        # to b, [rank, features], which usually is smaller than the result, [r, features].
        hidden = checkpoint_name(rows @ a.astype(dtype), "adapter")  # [r, rank]
        return hidden @ (lora.scale(a.shape[1]) * b).astype(dtype)


class RMSNorm(nn.Module):
    """Root mean square normalisation. Source: Zhang & Sennrich 2019 (arXiv 1910.07467)."""

    epsilon: float
    dtype: jnp.dtype = jnp.float32
    unit_offset: bool = False
    """Whether `scale` is what is added to one, and multiplied by in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        init = nn.initializers.zeros if self.unit_offset else nn.initializers.ones
        scale = self.param("scale", init, (x.shape[-1],))
        # y = x / sqrt(mean(x^2) + epsilon) * scale
        y = x.astype(jnp.float32)  # the mean of squares loses too much precision in bfloat16
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.epsilon)
        if self.unit_offset:
            return ((1 + scale.astype(jnp.float32)) * y).astype(self.dtype)
        return (scale * y.astype(self.dtype)).astype(self.dtype)


def rope_frequencies(
    head_dim: int, theta: float, rope_type: str, scaling: Mapping[str, float]
) -> np.ndarray:
    """Returns f32[head_dim / 2], in radians per position.

    Sources: Su et al. 2021 (arXiv 2104.09864); for "linear" Chen et al. 2023 (arXiv 2306.15595);
    "llama3" follows transformers, as no paper describes it.
    """
    # head_dim = 4 and theta = 10000: two pairs of features, at 1 and at 0.01 radians per position
    frequency = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    if rope_type == "linear":
        frequency = frequency / scaling["factor"]
    if rope_type == "llama3":
        # Slow frequencies, with few turns in the original context, are divided by the factor; fast
        # ones are not; those between are interpolated.
        # turns is f32[head_dim / 2].
        turns = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        share = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 0: slow, 1: fast
        frequency = (1 - share) * frequency / scaling["factor"] + share * frequency
    return frequency.astype(np.float32)


def rope(
    x: Float[Array, "b t h d"],
    positions: Int[Array, "b t"] | Int[Array, "b t d/2"],
    frequency: Float[np.ndarray, " d/2"],
) -> Float[Array, "b t h d"]:
    """Rotary position embedding in Llama's layout. Source: Su et al. 2021 (arXiv 2104.09864).

    Args:
      positions: of each token, or of each of its frequencies, if these follow several axes.
    """
    half = x.shape[-1] // 2
    positions = positions[..., None] if positions.ndim == 2 else positions
    # Feature i is rotated together with feature i + half, by position * frequency[i].
    angle = positions[:, :, None].astype(jnp.float32) * frequency  # [b, t, 1, half]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)  # [b, t, h, half]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def dot_product_attention(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b s k d"],
    v: Float[Array, "b s k d"],
    mask: Bool[Array, "b q s"] | None = None,
    *,
    causal: bool = False,
    implementation: str = "xla",
) -> Float[Array, "b q h*d"]:
    """Masked attention with grouped keys and values: h is a multiple of k. Softmax in float32.

    Without a fused kernel at most `QUERY_CHUNK_SIZE` queries are taken at a time, and the backward
    pass computes their weights again. Source of the idea: Rabe & Staats 2021 (arXiv 2112.05682).

    Args:
      mask: None if every query sees every key.
      causal: promises that the mask hides every key behind a query's own place.
      implementation: see `ComputeOptions.attention`.
    """
    t = q.shape[1]
    if implementation == "cudnn":
        return _fused_attention(q, k, v, mask, causal=causal)
    if t <= QUERY_CHUNK_SIZE:
        return _attention(q, k, v, mask)
    chunks = -(-t // QUERY_CHUNK_SIZE)  # as few as possible,
    size = -(-t // chunks)  # of about equal size
    outputs = []
    for start in range(0, t, size):
        stop = min(start + size, t)
        # 600 queries: 3 chunks of 200, which read the keys before 200, 400 and 600 if causal.
        seen = stop if causal else k.shape[1]
        chunk = q[:, start:stop], k[:, :seen], v[:, :seen]
        chunk_mask = None if mask is None else mask[:, start:stop, :seen]
        outputs.append(jax.checkpoint(_attention)(*chunk, chunk_mask))
    return jnp.concatenate(outputs, axis=1)


def _fused_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, causal: bool
) -> jax.Array:
    """cuDNN's kernel by JAX; the arguments are those of `dot_product_attention`."""
    b, t = q.shape[:2]
    if mask is not None:
        # Beside a mask cuDNN's backward pass takes even lengths alone.
        q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
        # The key that is added is masked, False; the query that is added is cut off below.
        mask = jnp.pad(mask, ((0, 0), *((0, n % 2) for n in mask.shape[1:])))[:, None]
    y = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation="cudnn")
    return y[:, :t].reshape(b, t, -1)


def _attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    # Heads lie in front of positions, and the softmax divides once, at the end: on a CPU this takes
    # half the time of the plain form.
    b, t, heads, dim = q.shape
    s, groups = k.shape[1:3]  # g = groups, r = heads / groups
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q * dim**-0.5, k, v))  # [b, heads, positions, d]
    q = q.reshape(b, groups, -1, dim)  # [b, g, r*t, d]: the heads of a group are further queries
    k = k.transpose(0, 1, 3, 2)  # [b, g, d, s]
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32)  # [b, g, r*t, s]
    scores = scores.reshape(b, groups, -1, t, s)
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, MASK_VALUE)
    # The largest score cancels in the softmax, so that it needs no gradient.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    weights = weights.reshape(b, groups, -1, s)  # [b, g, r*t, s], not yet normalised
    total = weights.sum(-1, keepdims=True)
    out = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32) / total
    out = out.astype(v.dtype).reshape(b, heads, t, dim)
    return out.transpose(0, 2, 1, 3).reshape(b, t, heads * dim)


def decode_attention(
    q: Float[Array, "b n h d"],
    prefix: tuple[Float[Array, "b s k d"], Float[Array, "b s k d"]],
    prefix_mask: Bool[Array, "b n s"],
    suffix: tuple[Float[Array, "b n t k d"], Float[Array, "b n t k d"]],
    suffix_mask: Bool[Array, " t"],
) -> Float[Array, "b n h*d"]:
    """Attention of one new token per continuation to the prefix and to its own suffix.

    The n continuations of a row share its prefix, of which no key is copied.
    """
    b, n, heads, dim = q.shape
    groups = prefix[0].shape[2]
    q = q.reshape(b, n, groups, heads // groups, dim)  # [b, n, k, g, d], g heads per key
    # Scores to the shared prefix, [b, n, k, g, s], and to the own suffix, [b, n, k, g, t].
    to_prefix = jnp.einsum("bnkgd,bskd->bnkgs", q, prefix[0], preferred_element_type=jnp.float32)
    to_suffix = jnp.einsum("bnkgd,bntkd->bnkgt", q, suffix[0], preferred_element_type=jnp.float32)
    to_prefix = jnp.where(prefix_mask[:, :, None, None], to_prefix, MASK_VALUE)
    to_suffix = jnp.where(suffix_mask, to_suffix, MASK_VALUE)
    scores = jnp.concatenate([to_prefix, to_suffix], axis=-1)  # [b, n, k, g, s + t]
    weights = jax.nn.softmax(scores * dim**-0.5, axis=-1).astype(q.dtype)  # over both together
    split = to_prefix.shape[-1]
    # The sum over s + t places in two parts, so that the two caches are never concatenated.
    out = jnp.einsum("bnkgs,bskd->bnkgd", weights[..., :split], prefix[1])
    out += jnp.einsum("bnkgt,bntkd->bnkgd", weights[..., split:], suffix[1])
    return out.reshape(b, n, heads * dim)
