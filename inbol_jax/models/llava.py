"""LLaVA: image patches, projected into the decoder's embedding space.

Source: Liu et al. 2023 (arXiv 2310.03744). Layout and names are those of transformers'
LlavaForConditionalGeneration.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from inbol_jax.models.decoder import Decoder
from inbol_jax.models.layers import ACTIVATIONS, ComputeOptions, Dense
from inbol_jax.models.vit import VisionTower
from inbol_jax.models.vlm import Batch, VisionLanguageModel


class Projector(nn.Module):
    """Two layers from features to the decoder's embeddings, behind a norm if there is one."""

    size: int
    activation: str
    compute: ComputeOptions
    use_bias: bool = True
    norm_eps: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n p v"]) -> Float[Array, "n p {self.size}"]:
        if self.norm_eps is not None:
            x = nn.LayerNorm(self.norm_eps, dtype=self.compute.dtype, name="layer_norm")(x)
        x = Dense(self.size, self.compute, use_bias=self.use_bias, name="linear_1")(x)
        x = ACTIVATIONS[self.activation](x)
        return Dense(self.size, self.compute, use_bias=self.use_bias, name="linear_2")(x)


class Llava(VisionLanguageModel):
    """Vision tower, two-layer projector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = VisionTower(c.vision, c.vision_feature_layers, compute)
        self.multi_modal_projector = Projector(
            c.text.hidden_size, c.projector_hidden_act, compute, c.projector_bias
        )
        self.language_model = Decoder(c.text, compute)

    def tile_features(self, batch: Batch) -> Float[Array, "n p d"]:
        # 336 pixels in patches of 14 and the class token: [n, 1 + 576, v]
        features = self.vision_tower(self.normalised_pixels(batch))
        if not self.config.keep_first_token:
            features = features[:, 1:]  # without CLIP's class token
        return self.multi_modal_projector(features)
