"""Llama decoder. Source: Touvron et al. 2023 (arXiv 2302.13971); layout and names of transformers' LlamaForCausalLM."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.models.config import TextConfig
from inbol_jax.models.layers import ACTIVATIONS, Dense, RMSNorm, attend, attend_forked, rope

KV = tuple[Float[Array, "b s k d"], Float[Array, "b s k d"]]
SuffixKV = tuple[Float[Array, "b n t k d"], Float[Array, "b n t k d"]]

_SMALL = nn.initializers.variance_scaling(0.1, "fan_in", "normal")  # residual branches start small


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped keys; `fork` is its decoding step."""

    config: TextConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        c = self.config
        self.q_proj = Dense(c.num_heads * c.head_dim, use_bias=False, dtype=self.dtype)
        self.k_proj = Dense(c.num_kv_heads * c.head_dim, use_bias=False, dtype=self.dtype)
        self.v_proj = Dense(c.num_kv_heads * c.head_dim, use_bias=False, dtype=self.dtype)
        self.o_proj = Dense(c.hidden_size, use_bias=False, dtype=self.dtype, kernel_init=_SMALL)

    def _qkv(self, x: Float[Array, "b t d"], positions: Int[Array, "b t"]):
        c = self.config
        b, t, _ = x.shape
        q = self.q_proj(x).reshape(b, t, c.num_heads, c.head_dim)
        k = self.k_proj(x).reshape(b, t, c.num_kv_heads, c.head_dim)
        v = self.v_proj(x).reshape(b, t, c.num_kv_heads, c.head_dim)
        return rope(q, positions, c.rope_theta), rope(k, positions, c.rope_theta), v

    def __call__(self, x: Float[Array, "b t d"], positions: Int[Array, "b t"], mask: Bool[Array, "b t t"]):
        q, k, v = self._qkv(x, positions)
        return self.o_proj(attend(q, k, v, mask)), (k, v)

    def fork(self, x: Float[Array, "b n d"], positions: Int[Array, "b n"], prefix: KV, prefix_mask, suffix: SuffixKV, step):
        q, k, v = self._qkv(x, positions)
        suffix = (suffix[0].at[:, :, step].set(k), suffix[1].at[:, :, step].set(v))
        return self.o_proj(attend_forked(q, prefix, prefix_mask, suffix, step)), suffix


class MLP(nn.Module):
    """The gated feed-forward network."""

    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        c = self.config
        gate = Dense(c.intermediate_size, use_bias=False, dtype=self.dtype, name="gate_proj")(x)
        up = Dense(c.intermediate_size, use_bias=False, dtype=self.dtype, name="up_proj")(x)
        return Dense(c.hidden_size, use_bias=False, dtype=self.dtype, kernel_init=_SMALL, name="down_proj")(ACTIVATIONS["silu"](gate) * up)


class DecoderLayer(nn.Module):
    """Attention and feed-forward network, each behind its norm."""

    config: TextConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        c = self.config
        self.input_layernorm = RMSNorm(c.rms_norm_eps, self.dtype)
        self.self_attn = Attention(c, self.dtype)
        self.post_attention_layernorm = RMSNorm(c.rms_norm_eps, self.dtype)
        self.mlp = MLP(c, self.dtype)

    def __call__(self, x: Float[Array, "b t d"], positions: Int[Array, "b t"], mask: Bool[Array, "b t t"]):
        y, kv = self.self_attn(self.input_layernorm(x), positions, mask)
        return self._feed_forward(x + y), kv

    def fork(self, x: Float[Array, "b n d"], positions: Int[Array, "b n"], prefix: KV, prefix_mask, suffix: SuffixKV, step):
        y, suffix = self.self_attn.fork(self.input_layernorm(x), positions, prefix, prefix_mask, suffix, step)
        return self._feed_forward(x + y), suffix

    def _feed_forward(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embeddings in, final hidden states out; `head` turns these into logits.

    One array a layer (`layers_0`, ...) and a Python loop over them: faster on GPUs than a scan over stacked weights.
    """

    config: TextConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        c = self.config
        init = nn.initializers.normal(c.hidden_size**-0.5)
        self.embed_tokens = nn.Embed(c.vocab_size, c.hidden_size, dtype=self.dtype, embedding_init=init)
        self.layers = [DecoderLayer(c, self.dtype) for _ in range(c.num_layers)]
        self.norm = RMSNorm(c.rms_norm_eps, self.dtype)
        if not c.tie_word_embeddings:
            self.lm_head = self.param("lm_head", init, (c.hidden_size, c.vocab_size))

    def __call__(self, x: Float[Array, "b t d"], positions: Int[Array, "b t"], mask: Bool[Array, "b t t"]):
        """Returns hidden states f[b, t, d] and the keys and values of every layer."""
        cache = []
        for layer in self.layers:
            x, kv = layer(x, positions, mask)
            cache.append(kv)
        return self.norm(x), cache

    def fork(self, tokens: Int[Array, "b n"], positions: Int[Array, "b n"], prefix: list[KV], prefix_mask, suffix: list[SuffixKV], step):
        """One decoding step of n continuations a row. Returns hidden states f[b, n, d] and the grown suffixes."""
        x = self.embed_tokens(tokens)
        grown = []
        for layer, layer_prefix, layer_suffix in zip(self.layers, prefix, suffix, strict=True):
            x, layer_suffix = layer.fork(x, positions, layer_prefix, prefix_mask, layer_suffix, step)
            grown.append(layer_suffix)
        return self.norm(x), grown

    def head(self) -> Float[Array, "d V"]:
        return self.embed_tokens.embedding.T if self.config.tie_word_embeddings else self.lm_head
