"""CLIP's vision transformer. Source: Radford et al. 2021 (arXiv 2103.00020); layout and names of transformers' CLIPVisionModel."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from inbol_jax.models.config import VisionConfig
from inbol_jax.models.layers import ACTIVATIONS, Dense, attend


class VisionEmbeddings(nn.Module):
    """Patches, class token and learnt positions."""

    config: VisionConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "n 3 H W"]) -> Float[Array, "n p+1 d"]:
        c = self.config
        n, side, p = pixel_values.shape[0], c.image_size // c.patch_size, c.patch_size
        kernel = self.param("patch_embedding", nn.initializers.lecun_normal(in_axis=(0, 1, 2)), (p, p, 3, c.hidden_size))
        class_token = self.param("class_embedding", nn.initializers.normal(0.02), (c.hidden_size,))
        position = self.param("position_embedding", nn.initializers.normal(0.02), (c.num_patches + 1, c.hidden_size))
        patches = pixel_values.astype(self.dtype).reshape(n, 3, side, p, side, p)
        x = jnp.einsum("ncypxq,pqcd->nyxd", patches, kernel.astype(self.dtype)).reshape(n, side * side, c.hidden_size)
        x = jnp.concatenate([jnp.broadcast_to(class_token.astype(self.dtype), (n, 1, c.hidden_size)), x], axis=1)
        return x + position.astype(self.dtype)


class VisionLayer(nn.Module):
    """A pre-norm transformer layer."""

    config: VisionConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "n s d"]) -> Float[Array, "n s d"]:
        c = self.config
        n, s, d = x.shape
        # Residual branches start small, so that a deep tower trained from scratch does not blow up in the first steps.
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        y = nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="layer_norm1")(x)
        q, k, v = (
            Dense(d, dtype=self.dtype, name=name)(y).reshape(n, s, c.num_heads, d // c.num_heads) for name in ("q_proj", "k_proj", "v_proj")
        )
        x = x + Dense(d, dtype=self.dtype, kernel_init=small, name="out_proj")(attend(q, k, v, jnp.ones((n, s, s), bool)))
        y = nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="layer_norm2")(x)
        y = ACTIVATIONS[c.hidden_act](Dense(c.intermediate_size, dtype=self.dtype, name="fc1")(y))
        return x + Dense(d, dtype=self.dtype, kernel_init=small, name="fc2")(y)


class VisionTower(nn.Module):
    """Gives the hidden state after `feature_layer` layers, without the class token: f[n, patches, d]."""

    config: VisionConfig
    feature_layer: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "n 3 H W"]) -> Float[Array, "n p d"]:
        c = self.config
        x = VisionEmbeddings(c, self.dtype, name="embeddings")(pixel_values)
        states = [nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="pre_layernorm")(x)]
        for i in range(c.num_layers):
            states.append(VisionLayer(c, self.dtype, name=f"layers_{i}")(states[-1]))
        # Used by CLIP's pooled output alone, which LLaVA does not read; kept so that the checkpoint keeps all its weights.
        nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="post_layernorm")(jax.lax.stop_gradient(x[:, 0]))
        return states[self.feature_layer][:, 1:]
