"""Vision transformers. Sources: CLIP, Radford et al. 2021 (arXiv 2103.00020); SigLIP, Zhai et al. 2023 (arXiv 2303.15343).

Layout and names are those of transformers' CLIPVisionModel and SiglipVisionModel.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from inbol_jax.models.config import VisionConfig
from inbol_jax.models.layers import ACTIVATIONS, Compute, Dense, dot_product_attention

_SMALL = nn.initializers.variance_scaling(
    0.1, "fan_in", "normal"
)  # residual branches start small: a deep tower does not blow up


class VisionEmbeddings(nn.Module):
    """Patches and learnt positions; CLIP's class token in front of them."""

    config: VisionConfig
    compute: Compute

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "n 3 H W"]) -> Float[Array, "n s d"]:
        c, dtype = self.config, self.compute.dtype
        n, side, p = pixel_values.shape[0], c.image_size // c.patch_size, c.patch_size
        kernel = self.param(
            "patch_embedding",
            nn.initializers.lecun_normal(in_axis=(0, 1, 2)),
            (p, p, 3, c.hidden_size),
        )
        # Pixels that fill no whole patch are left out, as a convolution without padding does (SigLIP: 384 = 27 * 14 + 6).
        patches = (
            pixel_values[:, :, : side * p, : side * p].astype(dtype).reshape(n, 3, side, p, side, p)
        )
        x = jnp.einsum("ncypxq,pqcd->nyxd", patches, kernel.astype(dtype)).reshape(
            n, side * side, c.hidden_size
        )
        if c.is_clip:
            class_token = self.param(
                "class_embedding", nn.initializers.normal(0.02), (c.hidden_size,)
            )
            x = jnp.concatenate(
                [jnp.broadcast_to(class_token.astype(dtype), (n, 1, c.hidden_size)), x], axis=1
            )
        else:
            x += self.param("patch_bias", nn.initializers.zeros, (c.hidden_size,)).astype(dtype)
        position = self.param(
            "position_embedding", nn.initializers.normal(0.02), (x.shape[1], c.hidden_size)
        )
        return x + position.astype(dtype)


class VisionLayer(nn.Module):
    """A pre-norm transformer layer."""

    config: VisionConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Float[Array, "n s d"]) -> Float[Array, "n s d"]:
        c, compute = self.config, self.compute
        n, s, d = x.shape
        y = nn.LayerNorm(c.layer_norm_eps, dtype=compute.dtype, name="layer_norm1")(x)
        q, k, v = (
            Dense(d, compute, name=name)(y).reshape(n, s, c.num_heads, d // c.num_heads)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        x = x + Dense(d, compute, kernel_init=_SMALL, name="out_proj")(
            dot_product_attention(q, k, v, jnp.ones((n, s, s), bool))
        )
        y = nn.LayerNorm(c.layer_norm_eps, dtype=compute.dtype, name="layer_norm2")(x)
        y = ACTIVATIONS[c.hidden_act](Dense(c.intermediate_size, compute, name="fc1")(y))
        return x + Dense(d, compute, kernel_init=_SMALL, name="fc2")(y)


class PoolingHead(nn.Module):
    """SigLIP's attention pooling: only its weights, so that a checkpoint keeps all that it came with. LLaVA does not read it."""

    config: VisionConfig

    @nn.compact
    def __call__(self) -> None:
        d, m = self.config.hidden_size, self.config.intermediate_size
        shapes = {
            "probe": (1, 1, d),
            "in_proj/kernel": (d, 3 * d),
            "in_proj/bias": (3 * d,),
            "out_proj/kernel": (d, d),
            "out_proj/bias": (d,),
        }
        shapes |= {"layernorm/scale": (d,), "layernorm/bias": (d,)}
        shapes |= {"fc1/kernel": (d, m), "fc1/bias": (m,), "fc2/kernel": (m, d), "fc2/bias": (d,)}
        for name, shape in shapes.items():
            self.param(name.replace("/", "_"), nn.initializers.normal(0.02), shape)


class VisionTower(nn.Module):
    """Gives the hidden states after each of `feature_layers`, side by side: f[n, s, len(feature_layers) * d]."""

    config: VisionConfig
    feature_layers: tuple[int, ...]
    compute: Compute

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "n 3 H W"]) -> Float[Array, "n s f"]:
        c, dtype = self.config, self.compute.dtype
        x = VisionEmbeddings(c, self.compute, name="embeddings")(pixel_values)
        states = [
            nn.LayerNorm(c.layer_norm_eps, dtype=dtype, name="pre_layernorm")(x) if c.is_clip else x
        ]
        for i in range(c.num_layers):
            states.append(VisionLayer(c, self.compute, name=f"layers_{i}")(states[-1]))
        # The two below lead to outputs that LLaVA does not read; they are here for their weights, which the checkpoint keeps.
        nn.LayerNorm(c.layer_norm_eps, dtype=dtype, name="post_layernorm")(
            jax.lax.stop_gradient(x[:, 0])
        )
        if c.pooling_head:
            PoolingHead(c, name="head")()
        return jnp.concatenate([states[layer] for layer in self.feature_layers], axis=-1)
