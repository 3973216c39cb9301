"""Text decoders: Llama, Qwen2, Qwen3, Mistral and Gemma 3, which differ in biases, in norms, in
rotary positions, and in how far a layer sees.

Sources: Touvron et al. 2023 (arXiv 2302.13971); Yang et al. 2024 (arXiv 2407.10671); Yang et al.
2025 (arXiv 2505.09388); Jiang et al. 2023 (arXiv 2310.06825); Gemma Team 2025 (arXiv 2503.19786).
Layout and names are those of transformers' LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM,
MistralForCausalLM and Gemma3ForCausalLM.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, Shaped

from inbol_jax.models.config import TextConfig
from inbol_jax.models.layers import (
    ACTIVATIONS,
    REMAT_POLICIES,
    SMALL_INIT,
    STACKED,
    ComputeOptions,
    Dense,
    RMSNorm,
    decode_attention,
    dot_product_attention,
    rope,
    rope_frequencies,
)
from inbol_jax.sharding import keep_rows

# Keys and values of one layer: for the s prompt tokens of a row, which its n continuations share,
# and for the up to t tokens of each continuation. For cuDNN, which reads one array, the latter are
# [b, s + t*n, k, d]: the prompt's, and behind them those of all first tokens, all second ones, ...
KVCache = tuple[Float[Array, "b s k d"], Float[Array, "b s k d"]]
SuffixCache = tuple[Float[Array, "b ..."], Float[Array, "b ..."]]


class DecodeStep(NamedTuple):
    """What a step of decoding gives a layer beside its tokens."""

    prefix: KVCache
    suffix: SuffixCache
    suffix_mask: Bool[Array, " t"]
    step: Int[Array, ""]


def take(x: Shaped[Array, "b t ..."], places: Int[Array, "b a"]) -> Shaped[Array, "b a ..."]:
    """What stands at the places of each row."""
    # places [b, a] -> [b, a, 1, ...], which broadcasts over the axes behind t
    return jnp.take_along_axis(x, places.reshape(places.shape + (1,) * (x.ndim - 2)), axis=1)


def _norm(config: TextConfig, compute: ComputeOptions, name: str | None = None) -> RMSNorm:
    return RMSNorm(config.rms_norm_eps, compute.dtype, config.unit_offset, name=name)


class Attention(nn.Module):
    """Self-attention with rotary positions and grouped keys."""

    config: TextConfig
    compute: ComputeOptions
    windowed: bool
    """Whether the mask is that of a window."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        positions: Int[Array, "b t *half"],
        mask: Bool[Array, "b t s"],
        places: Int[Array, "b a"] | None = None,
        decoding: DecodeStep | None = None,
    ) -> tuple[Float[Array, "b a d"], KVCache | SuffixCache]:
        """Returns the layer's output at the places, by default everywhere, and its keys and values.

        In a step of decoding the n continuations of a row stand where a whole sequence has its t
        tokens, and the mask is that of the prefix; for cuDNN, that of prefix and suffix.
        """
        c, b = self.config, len(x)
        implementation = self.compute.attention_of(c.head_dim)

        def project(x: jax.Array, heads: int, name: str) -> Float[Array, "b t h k"]:
            dense = Dense(heads * c.head_dim, self.compute, use_bias=c.qkv_bias, name=name)
            return dense(x).reshape(b, -1, heads, c.head_dim)

        # Queries at `places` alone, [b, a]; keys and values everywhere, [b, t].
        q_input, q_positions = x, positions
        if places is not None:
            q_input, q_positions, mask = (take(y, places) for y in (x, positions, mask))
        # Gemma 3: layers with a window have a base of their own, and its positions are not scaled.
        rotary = c.rope_theta, c.rope_type, dict(c.rope_scaling)
        if self.windowed and c.local_rope_theta:
            rotary = c.local_rope_theta, "default", {}
        # q is [b, a, num_heads, head_dim], k and v are [b, t, num_kv_heads, head_dim].
        frequency = rope_frequencies(c.head_dim, *rotary)
        q, k = project(q_input, c.num_heads, "q_proj"), project(x, c.num_kv_heads, "k_proj")
        if c.qk_norm:
            q, k = _norm(c, self.compute, "q_norm")(q), _norm(c, self.compute, "k_norm")(k)
        if c.query_scale != 1:
            q *= jnp.asarray(c.query_scale, q.dtype)
        q = checkpoint_name(rope(q, q_positions, frequency), "query")
        k = checkpoint_name(rope(k, positions, frequency), "key")
        v = checkpoint_name(project(x, c.num_kv_heads, "v_proj"), "value")
        if decoding is None:
            # With places, row i of the mask is no longer position i: `causal` cannot be promised.
            cache, causal = (k, v), places is None and not c.bidirectional_images
            y = dot_product_attention(q, k, v, mask, causal=causal, implementation=implementation)
        elif implementation == "cudnn":
            # s = 3, n = 2: [p p p | a0 b0 | a1 b1 | ...]: step 1 writes at 3 + 1 * 2.
            place = decoding.prefix[0].shape[1] + decoding.step * k.shape[1]
            cache = tuple(
                jax.lax.dynamic_update_slice_in_dim(cached, new, place, axis=1)
                for cached, new in zip(decoding.suffix, (k, v), strict=True)
            )
            y = dot_product_attention(q, *cache, mask, implementation=implementation)
        else:
            cache = tuple(
                cached.at[:, :, decoding.step].set(new)
                for cached, new in zip(decoding.suffix, (k, v), strict=True)
            )
            y = decode_attention(q, decoding.prefix, mask, cache, decoding.suffix_mask)
        o_proj = Dense(
            c.hidden_size, self.compute, use_bias=c.o_bias, kernel_init=SMALL_INIT, name="o_proj"
        )
        return o_proj(y), cache


class MLP(nn.Module):
    """The gated feed-forward network."""

    config: TextConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        c = self.config
        dense = functools.partial(Dense, compute=self.compute, use_bias=c.mlp_bias)
        # down(act(gate x) * (up x)), [b, t, intermediate_size] between
        gate = checkpoint_name(dense(c.intermediate_size, name="gate_proj")(x), "gate")
        up = checkpoint_name(dense(c.intermediate_size, name="up_proj")(x), "up")
        down_proj = dense(c.hidden_size, kernel_init=SMALL_INIT, name="down_proj")
        return down_proj(ACTIVATIONS[c.hidden_act](gate) * up)


class DecoderLayer(nn.Module):
    """Attention and feed-forward network, each behind its norm, or between two."""

    config: TextConfig
    compute: ComputeOptions
    windowed: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        positions: Int[Array, "b t *half"],
        mask: Bool[Array, "b t s"],
        places: Int[Array, "b a"] | None = None,
        decoding: DecodeStep | None = None,
    ) -> tuple[Float[Array, "b a d"], KVCache | SuffixCache]:
        """Takes and returns what `Attention` does."""
        # Pre-norm: x + f(norm(x)). Sandwich, as in Gemma 3: x + norm(f(norm(x))).
        c, norm = self.config, functools.partial(_norm, self.config, self.compute)
        attention = Attention(c, self.compute, self.windowed, name="self_attn")
        y, cache = attention(norm("input_layernorm")(x), positions, mask, places, decoding)
        # The residual stream shrinks along with the queries, [b, t, d] -> [b, a, d].
        x = x if places is None else take(x, places)
        mlp = MLP(c, self.compute, name="mlp")
        if not c.sandwich_norms:
            x = checkpoint_name(x + y, "attended")
            return x + mlp(norm("post_attention_layernorm")(x)), cache
        x = checkpoint_name(x + norm("post_attention_layernorm")(y), "attended")
        y = mlp(norm("pre_feedforward_layernorm")(x))
        return x + norm("post_feedforward_layernorm")(y), cache


def _in_window(
    window: int | None, query: Int[Array, "b q"], key: Int[Array, "b s"]
) -> Bool[Array, "b q s"] | bool:
    """Whether a key is among the last `window` positions up to and including the query's own."""
    # window 3, query at 5: keys at 3, 4 and 5. Later keys are masked by causality, not here.
    return True if window is None else query[:, :, None] - key[:, None, :] < window


def _joined_mask(
    prefix: Bool[Array, "b #n s"],  # noqa: F821
    suffix: Bool[Array, " t"],
    n: int,
    size: int,
) -> Bool[Array, "b n {size}"]:
    """Which keys each continuation sees where `SuffixCache` holds all: the prefix and its own."""
    # n = 2 continuations a and b, t = 2 tokens, of which the first is written:
    #     columns   a0 b0 a1 b1
    #     a         1  0  0  0
    #     b         0  1  0  0
    of_suffix = (jnp.eye(n, dtype=bool)[:, None] & suffix[:, None]).reshape(n, -1)  # [n, t*n]
    places = len(prefix), n
    parts = (jnp.broadcast_to(x, (*places, x.shape[-1])) for x in (prefix, of_suffix))
    joined = jnp.concatenate([*parts], axis=-1)  # [b, n, s + t*n]
    return jnp.pad(joined, ((0, 0), (0, 0), (0, size - joined.shape[-1])))


class Decoder(nn.Module):
    """Embeddings in, final hidden states out; `head` turns these into logits.

    Each layer has arrays of its own (`layers_0`, ...) in a Python loop: on GPUs this is faster than
    a scan over stacked weights. Stacked ones (`layers_all`) are scanned: one layer is compiled.
    """

    config: TextConfig
    compute: ComputeOptions

    def setup(self) -> None:
        c = self.config
        init = nn.initializers.normal(c.hidden_size**-0.5)
        self.embed_tokens = nn.Embed(
            c.vocab_size, c.hidden_size, dtype=self.compute.dtype, embedding_init=init
        )
        layer, policy = DecoderLayer, REMAT_POLICIES[self.compute.remat]
        if policy:
            layer = nn.remat(DecoderLayer, policy=policy)
        self.layers = [layer(c, self.compute, window is not None) for window in c.windows]
        self.layers_all = layer(c, self.compute, c.windows[0] is not None)
        self.norm = _norm(c, self.compute)
        if not c.tie_word_embeddings:
            self.lm_head = self.param("lm_head", init, (c.hidden_size, c.vocab_size))

    def __call__(
        self,
        x: Float[Array, "b t d"],
        positions: Int[Array, "b t *half"],
        mask: Bool[Array, "b t t"],
        places: Int[Array, "b a"] | None = None,
        added: Sequence[Float[Array, "b t d"]] = (),
    ) -> tuple[Float[Array, "b a d"], list[KVCache]]:
        """Returns the final hidden states, and keys and values of every layer that is not stacked.

        Args:
          positions: as `rope` takes them; those of frequencies go with no window.
          places: of the hidden states that are returned, by default all. The last layer computes
            nothing but keys and values elsewhere.
          added: what is added to the hidden states behind each of the first layers (DeepStack,
            Meng et al. 2024, arXiv 2406.04334).
        """
        # One mask per kind of layer, [b, t, t], not one per layer.
        masks = {w: mask & _in_window(w, positions, positions) for w in set(self.config.windows)}
        if self.has_variable("params", STACKED):
            x = self._scan(x, positions, masks[self.config.windows[0]], added)
            return keep_rows(self.norm(x if places is None else take(x, places))), []
        caches = []
        for i, (layer, window) in enumerate(zip(self.layers, self.config.windows, strict=True)):
            # The other layers need all positions: the next layer's keys and values come of them.
            read = places if layer is self.layers[-1] else None
            x, cache = layer(x, positions, masks[window], read)
            if i < len(added):
                x = x + (added[i] if read is None else take(added[i], read))
            x = keep_rows(x)
            caches.append(cache)
        return keep_rows(self.norm(x)), caches

    def _scan(self, x, positions, mask, added) -> Float[Array, "b t d"]:
        def body(layer, x, i):
            x, _ = layer(x, positions, mask)
            for j, more in enumerate(added):  # behind the first layers
                x = x + jnp.where(i == j, more, 0)
            return keep_rows(x), None

        scan = nn.scan(body, variable_axes={"params": 0, "lora": 0})  # slices of what is stacked
        return scan(self.layers_all, x, jnp.arange(self.config.num_layers))[0]

    @property
    def fused(self) -> bool:
        """Whether attention is one kernel, which reads prefix and suffix as one array."""
        return self.compute.attention_of(self.config.head_dim) == "cudnn"

    def make_suffixes(self, prefix: list[KVCache], n: int, t: int) -> list[SuffixCache]:
        """Returns room for the keys and values of t tokens of n continuations per row."""

        def room(x: Float[Array, "b s k d"]) -> Float[Array, "b ..."]:
            if self.fused:
                # The prompt's keys come first, in the same array; n * t more fit behind them.
                size = -(-(x.shape[1] + t * n) // 8) * 8  # lengths that suit its kernels
                return jnp.pad(x, ((0, 0), (0, size - x.shape[1]), (0, 0), (0, 0)))
            return jnp.zeros((len(x), n, t, *x.shape[2:]), x.dtype)

        return [(room(keys), room(values)) for keys, values in prefix]

    def decode_step(
        self,
        tokens: Int[Array, "b n"],
        positions: Int[Array, "b n"],
        prefix: list[KVCache],
        prefix_mask: Bool[Array, "b s"],
        suffix: list[SuffixCache],
        step: Int[Array, ""],
    ) -> tuple[Float[Array, "b n d"], list[SuffixCache]]:
        """Decodes one token of each of n continuations per row.

        Args:
          prefix: keys and values of every layer, of the prompt that the continuations share.
          prefix_mask: False for padding, on either side.
          suffix: keys and values of every layer, of the continuations themselves, as
            `make_suffixes` makes room for them.
          step: index of the new tokens in the suffix. Later places are not written yet: masked.
        Returns:
          the final hidden states and the extended suffixes.
        """
        x = self.embed(tokens)  # [b, n, d]
        n, room, fused = tokens.shape[1], suffix[0][0].shape, self.fused
        # t, the tokens that the suffix has room for; fused arrays are [b, s + t*n (rounded), k, d].
        index = jnp.arange((room[1] - prefix_mask.shape[1]) // n if fused else room[2])  # [t]
        # Padding on either side does not count: mask 0 1 1 1 has the positions 0 0 1 2.
        prefix_positions = jnp.maximum(jnp.cumsum(prefix_mask, axis=1) - 1, 0)  # [b, s]
        masks = {}
        for window in set(self.config.windows):
            # Tokens up to the new one, whose key the layer writes; all continuations are at `step`.
            suffix_seen = (index <= step) & (True if window is None else step - index < window)
            prefix_seen = prefix_mask[:, None] & _in_window(window, positions, prefix_positions)
            if fused:
                prefix_seen = _joined_mask(prefix_seen, suffix_seen, n, room[1])
            masks[window] = prefix_seen, suffix_seen  # [b, n, s] and [t]
        extended = []
        for i, layer in enumerate(self.layers):
            prefix_seen, suffix_seen = masks[self.config.windows[i]]
            decoding = DecodeStep(prefix[i], suffix[i], suffix_seen, step)
            x, cache = layer(x, positions, prefix_seen, None, decoding)
            extended.append(cache)
        return self.norm(x), extended

    def embed(self, ids: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Returns the embeddings of tokens."""
        x, scale = self.embed_tokens(ids), self.config.embedding_scale
        return x if scale == 1 else x * jnp.asarray(scale, x.dtype)

    def head(self) -> Float[Array, "d V"]:
        """Returns the matrix from hidden states to logits."""
        return self.embed_tokens.embedding.T if self.config.tie_word_embeddings else self.lm_head
