"""InternVL3 and 3.5: patches of image tiles, shuffled into a quarter as many features, projected.

Sources: Zhu et al. 2025 (arXiv 2504.10479); Wang et al. 2025 (arXiv 2508.18265). Layout and names
are those of transformers' InternVLForConditionalGeneration.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from inbol_jax.models.architecture_parts import VisionConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.layers import ComputeOptions
from inbol_jax.models.llava import Projector
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
        # [n, 1 + s, d]: the class token takes part in attention, and is dropped at the end.
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, d)), x], axis=1)
        x += self.param("position_embeddings", normal, (1, side * side + 1, d)).astype(dtype)
        for i in range(c.num_layers):
            x = VisionLayer(c, self.compute, name=f"layer_{i}")(x)
        return x[:, 1:]


class InternVL(VisionLanguageModel):
    """Vision tower, pixel shuffle, projector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = InternViT(c.vision, compute)
        self.multi_modal_projector = Projector(
            c.text.hidden_size, c.projector_hidden_act, compute, norm_eps=PROJECTOR_EPS
        )
        self.language_model = Decoder(c.text, compute)

    def tile_features(self, batch: Batch) -> Float[Array, "n p d"]:
        features, c = self.vision_tower(self.whole_pixels(batch)), self.config  # [n, s, v]
        # 448 pixels in patches of 14: [n, 1024, v] -> [n, 32, 32, v] -> [n, 256, 4 v]
        side = c.vision.image_size // c.vision.patch_size
        features = features.reshape(len(features), side, side, -1)
        return self.multi_modal_projector(pixel_shuffle(features, c.scale_factor))
