"""Idefics3, SmolVLM and SmolVLM2: patches of image tiles, shuffled into fewer features, projected.

Sources: Laurencon et al. 2024 (arXiv 2408.12637); Marafioti et al. 2025 (arXiv 2504.05299). Layout
and names are those of transformers' Idefics3ForConditionalGeneration and
SmolVLMForConditionalGeneration, which are alike. Processors give full squares alone, so that masks
of pixels are not read.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from inbol_jax.errors import InbolError
from inbol_jax.models.config import SquaresConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.hf_config import fill_in_defaults, read_shared, read_vision
from inbol_jax.models.layers import ComputeOptions, Dense
from inbol_jax.models.tiles import Grid
from inbol_jax.models.vit import VisionTower, pixel_shuffle
from inbol_jax.models.vlm import Batch, VisionLanguageModel
from inbol_jax.models.weights import add_rows, decoder, matrix, tower


@dataclasses.dataclass(frozen=True, kw_only=True)
class Idefics3Config(SquaresConfig):
    """Idefics3, SmolVLM and SmolVLM2: SigLIP-like tower, pixel shuffle, one projection, decoder."""

    # SmolVLM's own class also needs torchvision and num2words, for videos; images and texts are
    # the same.
    processor_class = "Idefics3Processor"
    decoder = "text_model"

    def grid(self, processor: Any, width: int, height: int, *, alone: bool = True) -> Grid:
        # 800 x 400 pixels, longest edge 1456, tiles of 364: scaled to 1456 x 728, and cut into 2
        # rows of 4.
        images = processor.image_processor
        return Grid(*images.get_number_of_image_patches(height, width)[1:])


def read_config(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Idefics3Config:
    """Returns what config.json and generation_config.json say, or raises InbolError."""
    kind = {"idefics3": "Idefics3Config", "smolvlm": "SmolVLMConfig"}[raw["model_type"]]
    # transformers takes any of these, and none, as the same tower
    towers = ("idefics3_vision", "smolvlm_vision", "idefics3", "smolvlm")
    hf = fill_in_defaults(raw, kind, towers)
    vision, factor = read_vision(hf), hf.scale_factor
    if factor < 1 or vision.side % factor:
        raise InbolError(f"scale_factor = {factor} does not divide {vision.side} patches")
    return Idefics3Config(vision=vision, scale_factor=factor, **read_shared(raw, generation, hf))


add_rows(
    *tower("model.vision_model.", "vision_model/"),
    matrix("model.connector.modality_projection.proj.weight", "connector/proj/kernel", "mlp embed"),
    *decoder("model.text_model.", "text_model/", "lm_head.weight"),
)


class Connector(nn.Module):
    """Pixel shuffle, and one projection without bias."""

    config: Idefics3Config
    compute: ComputeOptions

    @nn.compact
    def __call__(self, x: Float[Array, "n y x v"]) -> Float[Array, "n p d"]:
        x = pixel_shuffle(x, self.config.scale_factor)
        return Dense(self.config.text.hidden_size, self.compute, use_bias=False, name="proj")(x)


class Idefics3(VisionLanguageModel):
    """Vision tower, connector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_model = VisionTower(c.vision, None, compute)
        self.connector = Connector(c, compute)
        self.text_model = Decoder(c.text, compute)

    def tile_features(self, batch: Batch) -> Float[Array, "n p d"]:
        features, c = self.vision_model(self.normalised_pixels(batch)), self.config  # [n, s, v]
        # 512 pixels in patches of 16: [n, 1024, v] -> [n, 32, 32, v] -> [n, 64, 16 v]
        side = c.vision.side
        return self.connector(features.reshape(len(features), side, side, -1))


Model = Idefics3
