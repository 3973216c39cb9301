"""InternVL3 and 3.5: patches of image tiles, shuffled into a quarter as many features, projected.

Sources: Zhu et al. 2025 (arXiv 2504.10479); Wang et al. 2025 (arXiv 2508.18265). Layout and names
are those of transformers' InternVLForConditionalGeneration.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from inbol_jax.models.architecture import InternVLConfig
from inbol_jax.models.architecture_parts import VisionConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.layers import ACTIVATIONS, ComputeOptions, Dense
from inbol_jax.models.vit import VisionLayer, embed_patches, pixel_shuffle
from inbol_jax.models.vlm import Batch, VisionLanguageModel

PROJECTOR_EPS = 1e-5  # which no config of transformers changes


class InternViT(nn.Module):
    """The last hidden states of patches, without the class token's."""

    config: VisionConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "n 3 H W"]) -> Float[Array, "n s d"]:
        c, dtype, normal = self.config, self.compute.dtype, nn.initializers.normal(0.02)
        d, p, side = c.hidden_size, c.patch_size, c.image_size // c.patch_size
        kernel_init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("patch_embedding", kernel_init, (p, p, 3, d)).astype(dtype)
        x = embed_patches(pixel_values, kernel, (side, side))
        x += self.param("patch_bias", nn.initializers.zeros, (d,)).astype(dtype)
        first = self.param("cls_token", normal, (1, 1, d)).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, d)), x], axis=1)
        x += self.param("position_embeddings", normal, (1, side * side + 1, d)).astype(dtype)
        for i in range(c.num_layers):
            x = VisionLayer(c, self.compute, name=f"layer_{i}")(x)
        return x[:, 1:]


class InternVLProjector(nn.Module):
    """A norm, and two layers from shuffled features to the decoder's embeddings."""

    config: InternVLConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(self, x: Float[Array, "n p v"]) -> Float[Array, "n p d"]:
        d = self.config.text.hidden_size
        x = nn.LayerNorm(PROJECTOR_EPS, dtype=self.compute.dtype, name="layer_norm")(x)
        x = ACTIVATIONS[self.config.projector_hidden_act](
            Dense(d, self.compute, name="linear_1")(x)
        )
        return Dense(d, self.compute, name="linear_2")(x)


class InternVL(VisionLanguageModel):
    """Vision tower, pixel shuffle, projector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = InternViT(c.vision, compute)
        self.multi_modal_projector = InternVLProjector(c, compute)
        self.language_model = Decoder(c.text, compute)

    @property
    def decoder(self) -> Decoder:
        return self.language_model

    def encode_images(self, batch: Batch) -> Float[Array, "*n p d"]:
        leading, c = batch["pixel_values"].shape[:-3], self.config
        features = self.vision_tower(self.whole_pixels(batch))  # [n, s, v]
        side = c.vision.image_size // c.vision.patch_size
        features = features.reshape(len(features), side, side, -1)
        features = self.multi_modal_projector(pixel_shuffle(features, c.scale_factor))  # [n, p, d]
        return features.reshape(*leading, *features.shape[1:])
