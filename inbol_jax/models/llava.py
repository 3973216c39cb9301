"""LLaVA: image patches, projected into the decoder's embedding space.

Source: Liu et al. 2023 (arXiv 2310.03744). Layout and names are those of transformers'
LlavaForConditionalGeneration.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from inbol_jax.models.architecture import LlavaConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.layers import ACTIVATIONS, ComputeOptions, Dense
from inbol_jax.models.vit import VisionTower
from inbol_jax.models.vlm import Batch, VisionLanguageModel


class Projector(nn.Module):
    """Two layers from the tower's features to the decoder's embeddings."""

    config: LlavaConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(self, x: Float[Array, "n p v"]) -> Float[Array, "n p d"]:
        c, d = self.config, self.config.text.hidden_size
        x = Dense(d, self.compute, use_bias=c.projector_bias, name="linear_1")(x)  # [n, p, d]
        x = ACTIVATIONS[c.projector_hidden_act](x)
        return Dense(d, self.compute, use_bias=c.projector_bias, name="linear_2")(x)


class Llava(VisionLanguageModel):
    """Vision tower, two-layer projector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = VisionTower(c.vision, c.vision_feature_layers, compute)
        self.multi_modal_projector = Projector(c, compute)
        self.language_model = Decoder(c.text, compute)

    @property
    def decoder(self) -> Decoder:
        return self.language_model

    def encode_images(self, batch: Batch) -> Float[Array, "*n p d"]:
        leading = batch["pixel_values"].shape[:-3]
        features = self.vision_tower(self.normalised_pixels(batch))
        if not self.config.keep_first_token:
            features = features[:, 1:]  # without CLIP's class token
        features = self.multi_modal_projector(features)  # [n, p, d]
        return features.reshape(*leading, self.config.num_image_tokens, -1)
