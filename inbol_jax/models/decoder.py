"""Text decoders: Llama, Qwen2 and Mistral, which differ in biases and in how far back a layer sees.

Sources: Touvron et al. 2023 (arXiv 2302.13971); Yang et al. 2024 (arXiv 2407.10671); Jiang et al. 2023 (arXiv 2310.06825). Layout and
names are those of transformers' LlamaForCausalLM, Qwen2ForCausalLM and MistralForCausalLM.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.models.config import TextConfig
from inbol_jax.models.layers import (
    ACTIVATIONS,
    REMAT,
    Compute,
    Dense,
    RMSNorm,
    decode_attention,
    dot_product_attention,
    rope,
    rope_frequencies,
)

KV = tuple[Float[Array, "b s k d"], Float[Array, "b s k d"]]
SuffixKV = tuple[Float[Array, "b n t k d"], Float[Array, "b n t k d"]]

_SMALL = nn.initializers.variance_scaling(0.1, "fan_in", "normal")  # residual branches start small


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped keys; `decode_step` is its decoding step."""

    config: TextConfig
    compute: Compute

    def setup(self) -> None:
        c = self.config
        self.q_proj = Dense(c.num_heads * c.head_dim, self.compute, use_bias=c.qkv_bias)
        self.k_proj = Dense(c.num_kv_heads * c.head_dim, self.compute, use_bias=c.qkv_bias)
        self.v_proj = Dense(c.num_kv_heads * c.head_dim, self.compute, use_bias=c.qkv_bias)
        self.o_proj = Dense(c.hidden_size, self.compute, use_bias=c.o_bias, kernel_init=_SMALL)

    def _qkv(self, x: Float[Array, "b t d"], positions: Int[Array, "b t"]):
        c = self.config
        b, t, _ = x.shape
        frequency = rope_frequencies(c.head_dim, c.rope_theta, c.rope_type, dict(c.rope_scaling))
        q = self.q_proj(x).reshape(b, t, c.num_heads, c.head_dim)
        k = self.k_proj(x).reshape(b, t, c.num_kv_heads, c.head_dim)
        v = self.v_proj(x).reshape(b, t, c.num_kv_heads, c.head_dim)
        return rope(q, positions, frequency), rope(k, positions, frequency), v

    def __call__(
        self, x: Float[Array, "b t d"], positions: Int[Array, "b t"], mask: Bool[Array, "b t t"]
    ):
        q, k, v = self._qkv(x, positions)
        return self.o_proj(dot_product_attention(q, k, v, mask, causal=True)), (k, v)

    def decode_step(
        self,
        x: Float[Array, "b n d"],
        positions: Int[Array, "b n"],
        prefix: KV,
        prefix_mask,
        suffix: SuffixKV,
        suffix_mask,
        step,
    ):
        q, k, v = self._qkv(x, positions)
        suffix = (suffix[0].at[:, :, step].set(k), suffix[1].at[:, :, step].set(v))
        return self.o_proj(decode_attention(q, prefix, prefix_mask, suffix, suffix_mask)), suffix


class MLP(nn.Module):
    """The gated feed-forward network."""

    config: TextConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        c = self.config
        gate = Dense(c.intermediate_size, self.compute, use_bias=c.mlp_bias, name="gate_proj")(x)
        up = Dense(c.intermediate_size, self.compute, use_bias=c.mlp_bias, name="up_proj")(x)
        down = Dense(
            c.hidden_size, self.compute, use_bias=c.mlp_bias, kernel_init=_SMALL, name="down_proj"
        )
        return down(ACTIVATIONS[c.hidden_act](gate) * up)


class DecoderLayer(nn.Module):
    """Attention and feed-forward network, each behind its norm."""

    config: TextConfig
    compute: Compute

    def setup(self) -> None:
        c = self.config
        self.input_layernorm = RMSNorm(c.rms_norm_eps, self.compute.dtype)
        self.self_attn = Attention(c, self.compute)
        self.post_attention_layernorm = RMSNorm(c.rms_norm_eps, self.compute.dtype)
        self.mlp = MLP(c, self.compute)

    def __call__(
        self, x: Float[Array, "b t d"], positions: Int[Array, "b t"], mask: Bool[Array, "b t t"]
    ):
        y, kv = self.self_attn(self.input_layernorm(x), positions, mask)
        return self._feed_forward(x + y), kv

    def decode_step(self, x: Float[Array, "b n d"], *context):
        y, suffix = self.self_attn.decode_step(self.input_layernorm(x), *context)
        return self._feed_forward(x + y), suffix

    def _feed_forward(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return x + self.mlp(self.post_attention_layernorm(x))


def _within(
    window: int | None, query: Int[Array, "b q"], key: Int[Array, "b s"]
) -> Bool[Array, "b q s"] | bool:
    """Whether a key is among the last `window` positions that a query sees, its own included."""
    return True if window is None else query[:, :, None] - key[:, None, :] < window


class Decoder(nn.Module):
    """Embeddings in, final hidden states out; `head` turns these into logits.

    One array a layer (`layers_0`, ...) and a Python loop over them: faster on GPUs than a scan over stacked weights.
    """

    config: TextConfig
    compute: Compute

    def setup(self) -> None:
        c = self.config
        init = nn.initializers.normal(c.hidden_size**-0.5)
        self.embed_tokens = nn.Embed(
            c.vocab_size, c.hidden_size, dtype=self.compute.dtype, embedding_init=init
        )
        layer, policy = DecoderLayer, REMAT[self.compute.remat]
        if policy:
            layer = nn.remat(DecoderLayer, policy=policy, methods=["__call__"])
        self.layers = [layer(c, self.compute) for _ in range(c.num_layers)]
        self.norm = RMSNorm(c.rms_norm_eps, self.compute.dtype)
        if not c.tie_word_embeddings:
            self.lm_head = self.param("lm_head", init, (c.hidden_size, c.vocab_size))

    def __call__(
        self, x: Float[Array, "b t d"], positions: Int[Array, "b t"], mask: Bool[Array, "b t t"]
    ):
        """Returns hidden states f[b, t, d] and the keys and values of every layer."""
        cache = []
        masks = {
            window: mask & _within(window, positions, positions)
            for window in set(self.config.windows)
        }
        for layer, window in zip(self.layers, self.config.windows, strict=True):
            x, kv = layer(x, positions, masks[window])
            cache.append(kv)
        return self.norm(x), cache

    def decode_step(
        self,
        tokens: Int[Array, "b n"],
        positions: Int[Array, "b n"],
        prefix: list[KV],
        prefix_mask: Bool[Array, "b s"],
        suffix: list[SuffixKV],
        step: Int[Array, ""],
    ):
        """One decoding step of n continuations a row.

        Args:
          step: index of the new tokens in the suffix; what follows there is not yet written and masked.
        Returns: hidden states f[b, n, d] and the grown suffixes.
        """
        x = self.embed_tokens(tokens)
        before = jnp.maximum(
            jnp.cumsum(prefix_mask, axis=1) - 1, 0
        )  # positions of the prefix, padded on either side
        index = jnp.arange(suffix[0][0].shape[2])
        grown, masks = [], {}
        for window in set(self.config.windows):
            seen = (index <= step) & (True if window is None else step - index < window)
            masks[window] = prefix_mask[:, None] & _within(window, positions, before), seen
        for layer, window, layer_prefix, layer_suffix in zip(
            self.layers, self.config.windows, prefix, suffix, strict=True
        ):
            prefix_seen, suffix_seen = masks[window]
            x, layer_suffix = layer.decode_step(
                x, positions, layer_prefix, prefix_seen, layer_suffix, suffix_seen, step
            )
            grown.append(layer_suffix)
        return self.norm(x), grown

    def head(self) -> Float[Array, "d V"]:
        return self.embed_tokens.embedding.T if self.config.tie_word_embeddings else self.lm_head
