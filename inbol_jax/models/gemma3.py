"""Gemma 3: patches, averaged over squares, normalised and projected into the decoder's embeddings.

Source: Gemma Team 2025 (arXiv 2503.19786). Layout and names are those of transformers'
Gemma3ForConditionalGeneration, with the attention that a processor's `token_type_ids` ask for: the
tokens of an image see each other.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from inbol_jax.models.architecture import Gemma3Config
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.layers import ComputeOptions, RMSNorm
from inbol_jax.models.vit import VisionTower
from inbol_jax.models.vlm import Batch, VisionLanguageModel


class Gemma3Projector(nn.Module):
    """Average pooling, a norm, and one projection."""

    config: Gemma3Config
    compute: ComputeOptions

    @nn.compact
    def __call__(self, x: Float[Array, "n y x v"]) -> Float[Array, "n p d"]:
        c, dtype, v = self.config, self.compute.dtype, x.shape[-1]
        # 896 pixels in patches of 14, squares of 4: [n, 64, 64, v] -> [n, 16 * 16, v]
        square = (c.scale_factor,) * 2
        x = nn.avg_pool(x, square, strides=square).reshape(len(x), -1, v)
        x = RMSNorm(c.vision.layer_norm_eps, dtype, True, name="mm_soft_emb_norm")(x)
        init = nn.initializers.lecun_normal()
        # [v, d]: the checkpoint has it as inputs x outputs, unlike torch's dense layers
        kernel = self.param("mm_input_projection_weight", init, (v, c.text.hidden_size))
        return x @ kernel.astype(dtype)


class Gemma3(VisionLanguageModel):
    """Vision tower, projector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = VisionTower(c.vision, None, compute)
        self.multi_modal_projector = Gemma3Projector(c, compute)
        self.language_model = Decoder(c.text, compute)

    def tile_features(self, batch: Batch) -> Float[Array, "n p d"]:
        features, vision = self.vision_tower(self.whole_pixels(batch)), self.config.vision
        # Patches lie row by row: [n, side * side, v] -> [n, side, side, v].
        side = vision.image_size // vision.patch_size
        return self.multi_modal_projector(features.reshape(len(features), side, side, -1))
