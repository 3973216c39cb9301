"""Idefics3, SmolVLM and SmolVLM2: patches of image tiles, shuffled into fewer features, projected.

Sources: Laurencon et al. 2024 (arXiv 2408.12637); Marafioti et al. 2025 (arXiv 2504.05299); the
positions are those of Dehghani et al. 2023 (arXiv 2307.06304). Layout and names are those of
transformers' Idefics3ForConditionalGeneration and SmolVLMForConditionalGeneration, which are alike.
Beside the arrays of `models.vlm`, a batch may hold
  pixel_attention_mask  [*n, H, W]  0 for pixels that only fill up an image, by default none
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

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

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        size = self.vision.image_size
        mask = {"pixel_attention_mask": ((tiles, size, size), "bool")}
        return super().image_shapes(tiles) | mask


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


def position_buckets(side: int) -> np.ndarray:
    """Returns i32[side + 1, side]: at [n, i] the position of patch i of n along one axis.

    The i-th of n patches has the position that lies as far along the full `side`. These are
    constants, in the order of roundings of transformers, so that no device decides by a rounding
    error of its own in which bucket a patch falls.
    """
    # side = 4: four patches have the positions (0 1 2 3); two patches (0 2), each half the side.
    step = 1 / side
    boundaries = (step + step * np.arange(max(side - 1, 0))).astype(np.float32)
    counts = np.maximum(np.arange(side + 1, dtype=np.float32), 1)  # no patch: any position
    # [n, i] = i / n: how far along the side patch i of n begins
    places = np.arange(side, dtype=np.float32) * (np.float32(1) / counts)[:, None]
    places = np.minimum(places, np.float32(1 - 1e-6))
    return np.searchsorted(boundaries, places, side="right").astype(np.int32)


def patch_positions(seen: Bool[Array, "n y x"], side: int) -> Int[Array, "n y x"]:
    """Returns which of side x side learnt positions each patch has.

    Args:
      seen: patches that hold any pixel of their image.
    """
    _, rows, columns = seen.shape
    # Padding lies at the right and below: the first column of patches tells the number of rows.
    buckets = jnp.asarray(position_buckets(side))
    row = buckets[seen[:, :, 0].sum(1)][:, :rows]  # [n, y]
    column = buckets[seen[:, 0, :].sum(1)][:, :columns]  # [n, x]
    return jnp.where(seen, row[:, :, None] * side + column[:, None, :], 0)


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
        height, width = batch["pixel_values"].shape[-2:]
        c, p = self.config, self.config.vision.patch_size
        rows, columns = height // p, width // p
        if rows != columns or rows % c.scale_factor or height > c.vision.image_size:
            raise InbolError(
                f"images of {height} x {width} pixels: squares of at most {c.vision.image_size}, "
                f"of a multiple of {p * c.scale_factor}, are needed"
            )
        pixels = self.normalised_pixels(batch)
        mask = batch.get("pixel_attention_mask", jnp.ones((len(pixels), height, width), bool))
        # [n, H, W], True for pixels of the image
        mask = mask.reshape(-1, height, width) != 0
        if batch["pixel_values"].dtype == jnp.uint8:
            pixels = jnp.where(mask[:, None], pixels, 0.0)  # as processors fill up normalised ones
        # A patch counts as soon as one of its pixels belongs to the image.
        mask = mask[:, : rows * p, : columns * p]
        seen = mask.reshape(-1, rows, p, columns, p).any((2, 4))  # [n, y, x]
        positions = patch_positions(seen, c.vision.image_size // p)
        features = self.vision_model(pixels, positions, seen.reshape(len(seen), -1))  # [n, s, v]
        return self.connector(features.reshape(len(pixels), rows, columns, -1))


Model = Idefics3
