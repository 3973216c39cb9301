"""Vision transformers: CLIP, Radford et al. 2021 (arXiv 2103.00020); SigLIP, Zhai et al. 2023
(arXiv 2303.15343). Further families build their towers of these layers.

Layout and names are those of transformers' CLIPVisionModel and SiglipVisionModel.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from inbol_jax.models.config import VisionConfig
from inbol_jax.models.layers import (
    ACTIVATIONS,
    SMALL_INIT,
    ComputeOptions,
    Dense,
    dot_product_attention,
)
from inbol_jax.sharding import keep_rows


def embed_patches(
    pixels: Float[Array, "n 3 H W"], kernel: Float[Array, "p p 3 d"], side: int
) -> Float[Array, "n s d"]:
    """Returns the products of the kernel and each of side x side patches.

    Pixels that fill no whole patch are dropped, as a convolution without padding does
    (SigLIP: 384 = 27 * 14 + 6).
    """
    p = len(kernel)
    pixels = pixels[:, :, : side * p, : side * p].astype(kernel.dtype)
    # 16 pixels in patches of 8: H = (rows 2, y 8), W = (columns 2, x 8).
    patches = pixels.reshape(-1, 3, side, p, side, p)  # [n, channel, row, y, column, x]
    # A convolution whose stride is its size is one product per patch.
    x = jnp.einsum("ncypxq,pqcd->nyxd", patches, kernel)
    return x.reshape(len(pixels), side * side, -1)


def pixel_shuffle(x: Float[Array, "n y x v"], factor: int) -> Float[Array, "n p w"]:
    """Returns one feature per square of factor x factor patches: these, behind each other."""
    # 4 x 4 patches and factor 2:
    #     In:   0  1 |  2  3        Out:  (0 1 4 5)    (2 3 6 7)
    #           4  5 |  6  7              (8 9 12 13)  (10 11 14 15)
    #           -------------
    #           8  9 | 10 11
    #          12 13 | 14 15
    n, rows, columns, v = x.shape
    # [n, rows of squares, row in it, columns of squares, column in it, v]
    x = x.reshape(n, rows // factor, factor, columns // factor, factor, v)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, factor * factor * v)


class VisionEmbeddings(nn.Module):
    """Patch embeddings, behind CLIP's class token, plus learnt positions."""

    config: VisionConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "n 3 H W"]) -> Float[Array, "n s d"]:
        """Returns one embedding per patch of the config's image size."""
        c, dtype, normal = self.config, self.compute.dtype, nn.initializers.normal(0.02)
        n, d, p = pixel_values.shape[0], c.hidden_size, c.patch_size
        kernel_init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("patch_embedding", kernel_init, (p, p, 3, d))
        x = embed_patches(pixel_values, kernel.astype(dtype), c.side)
        if c.is_clip:
            class_token = self.param("class_embedding", normal, (d,)).astype(dtype)
            x = jnp.concatenate([jnp.broadcast_to(class_token, (n, 1, d)), x], axis=1)
        else:
            x += self.param("patch_bias", nn.initializers.zeros, (d,)).astype(dtype)
        # One learnt position per patch, behind that of the class token if any.
        count = c.num_patches + c.is_clip
        return x + self.param("position_embedding", normal, (count, d)).astype(dtype)


class VisionLayer(nn.Module):
    """A pre-norm transformer layer; every patch sees every other."""

    config: VisionConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(self, x: Float[Array, "n s d"]) -> Float[Array, "n s d"]:
        c, compute = self.config, self.compute
        # d = num_heads * head_dim
        n, s, d = x.shape
        y = nn.LayerNorm(c.layer_norm_eps, dtype=compute.dtype, name="layer_norm1")(x)
        q, k, v = (
            Dense(d, compute, c.qkv_bias, name=name)(y) for name in ("q_proj", "k_proj", "v_proj")
        )
        q, k, v = (x.reshape(n, s, c.num_heads, d // c.num_heads) for x in (q, k, v))
        out_proj = Dense(d, compute, kernel_init=SMALL_INIT, name="out_proj")
        implementation = compute.attention_of(d // c.num_heads)
        y = dot_product_attention(q, k, v, implementation=implementation)
        x = x + self._scaled("lambda_1", out_proj(y))
        y = nn.LayerNorm(c.layer_norm_eps, dtype=compute.dtype, name="layer_norm2")(x)
        y = ACTIVATIONS[c.hidden_act](Dense(c.intermediate_size, compute, name="fc1")(y))
        y = Dense(d, compute, kernel_init=SMALL_INIT, name="fc2")(y)
        return keep_rows(x + self._scaled("lambda_2", y))

    def _scaled(self, name: str, y: Float[Array, "n s d"]) -> Float[Array, "n s d"]:
        """Returns a branch times its learnt scale. Source: Touvron et al. 2021 (2103.17239)."""
        start = self.config.layer_scale
        if start is None:
            return y
        return y * self.param(name, nn.initializers.constant(start), y.shape[-1:]).astype(y.dtype)


class VisionTower(nn.Module):
    """The hidden states after each of `feature_layers`, concatenated along the features; or those
    behind the last norm, for None.
    """

    config: VisionConfig
    feature_layers: tuple[int, ...] | None
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
        norm = nn.LayerNorm(c.layer_norm_eps, dtype=dtype, name="post_layernorm")
        if self.feature_layers is None:
            return norm(states[-1])
        # Called for its parameters: a module that is never called has none, and weights must match.
        norm(jax.lax.stop_gradient(embeddings[:, 0]))  # unused, too
        return jnp.concatenate([states[layer] for layer in self.feature_layers], axis=-1)
