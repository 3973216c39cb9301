"""Vision transformers: CLIP, Radford et al. 2021 (arXiv 2103.00020); SigLIP, Zhai et al. 2023
(arXiv 2303.15343).

Layout and names are those of transformers' CLIPVisionModel and SiglipVisionModel.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.models.architecture import VisionConfig
from inbol_jax.models.layers import (
    ACTIVATIONS,
    SMALL_INIT,
    ComputeOptions,
    Dense,
    dot_product_attention,
)


class VisionEmbeddings(nn.Module):
    """Patch embeddings, behind CLIP's class token, plus learnt positions."""

    config: VisionConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(
        self, pixel_values: Float[Array, "n 3 H W"], positions: Int[Array, "n y x"] | None = None
    ) -> Float[Array, "n s d"]:
        """Returns one embedding per patch of the config's image size.

        With `positions`, which says whose position each patch has, the images may be smaller.
        """
        c, dtype, normal = self.config, self.compute.dtype, nn.initializers.normal(0.02)
        n, d, p = pixel_values.shape[0], c.hidden_size, c.patch_size
        side = c.image_size // p
        rows, columns = (side, side) if positions is None else positions.shape[1:]
        kernel_init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("patch_embedding", kernel_init, (p, p, 3, d))
        # Pixels that fill no whole patch are dropped, as a convolution without padding does
        # (SigLIP: 384 = 27 * 14 + 6).
        pixels = pixel_values[:, :, : rows * p, : columns * p].astype(dtype)
        patches = pixels.reshape(n, 3, rows, p, columns, p)  # [n, channel, row, y, column, x]
        # A convolution whose stride is its size is one product per patch.
        x = jnp.einsum("ncypxq,pqcd->nyxd", patches, kernel.astype(dtype))
        x = x.reshape(n, rows * columns, d)
        if c.is_clip:
            class_token = self.param("class_embedding", normal, (d,)).astype(dtype)
            x = jnp.concatenate([jnp.broadcast_to(class_token, (n, 1, d)), x], axis=1)
        else:
            x += self.param("patch_bias", nn.initializers.zeros, (d,)).astype(dtype)
        count = side * side + c.is_clip
        position = self.param("position_embedding", normal, (count, d)).astype(dtype)
        return x + (position if positions is None else position[positions.reshape(n, -1)])


class VisionLayer(nn.Module):
    """A pre-norm transformer layer; every patch sees every other, or those that `seen` names."""

    config: VisionConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(
        self, x: Float[Array, "n s d"], seen: Bool[Array, "n s"] | None = None
    ) -> Float[Array, "n s d"]:
        c, compute = self.config, self.compute
        n, s, d = x.shape
        mask = None if seen is None else jnp.broadcast_to(seen[:, None], (n, s, s))
        y = nn.LayerNorm(c.layer_norm_eps, dtype=compute.dtype, name="layer_norm1")(x)
        q, k, v = (
            Dense(d, compute, name=name)(y).reshape(n, s, c.num_heads, d // c.num_heads)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        out_proj = Dense(d, compute, kernel_init=SMALL_INIT, name="out_proj")
        y = dot_product_attention(q, k, v, mask, implementation=compute.attention)
        x = x + out_proj(y)
        y = nn.LayerNorm(c.layer_norm_eps, dtype=compute.dtype, name="layer_norm2")(x)
        y = ACTIVATIONS[c.hidden_act](Dense(c.intermediate_size, compute, name="fc1")(y))
        return x + Dense(d, compute, kernel_init=SMALL_INIT, name="fc2")(y)


class PoolingHead(nn.Module):
    """The weights of SigLIP's attention pooling, which LLaVA keeps but does not use."""

    config: VisionConfig

    @nn.compact
    def __call__(self) -> None:
        d, m = self.config.hidden_size, self.config.intermediate_size
        shapes = {
            "probe": (1, 1, d),
            "in_proj_kernel": (d, 3 * d),
            "in_proj_bias": (3 * d,),
            "out_proj_kernel": (d, d),
            "out_proj_bias": (d,),
            "layernorm_scale": (d,),
            "layernorm_bias": (d,),
            "fc1_kernel": (d, m),
            "fc1_bias": (m,),
            "fc2_kernel": (m, d),
            "fc2_bias": (d,),
        }
        for name, shape in shapes.items():
            self.param(name, nn.initializers.normal(0.02), shape)


class VisionTower(nn.Module):
    """The hidden states after each of `feature_layers`, concatenated along the features."""

    config: VisionConfig
    feature_layers: tuple[int, ...]
    compute: ComputeOptions

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "n 3 H W"]) -> Float[Array, "n s f*d"]:
        c, dtype = self.config, self.compute.dtype
        embeddings = VisionEmbeddings(c, self.compute, name="embeddings")(pixel_values)
        x = embeddings
        if c.is_clip:
            x = nn.LayerNorm(c.layer_norm_eps, dtype=dtype, name="pre_layernorm")(x)
        states = [x]  # [n, s, d] each
        for i in range(c.num_layers):
            states.append(VisionLayer(c, self.compute, name=f"layers_{i}")(states[-1]))
        # LLaVA does not use the two modules below; they keep the weights of the checkpoint.
        unused = jax.lax.stop_gradient(embeddings[:, 0])
        nn.LayerNorm(c.layer_norm_eps, dtype=dtype, name="post_layernorm")(unused)
        if c.pooling_head:
            PoolingHead(c, name="head")()
        return jnp.concatenate([states[layer] for layer in self.feature_layers], axis=-1)
