"""Idefics3, SmolVLM and SmolVLM2: patches of image tiles, shuffled into fewer features, projected.

Sources: Laurencon et al. 2024 (arXiv 2408.12637); Marafioti et al. 2025 (arXiv 2504.05299); the
positions are those of Dehghani et al. 2023 (arXiv 2307.06304). Layout and names are those of
transformers' Idefics3ForConditionalGeneration and SmolVLMForConditionalGeneration, which are alike.
Beside the arrays of `models.vlm`, a batch may hold
  pixel_attention_mask  [*n, H, W]  0 for pixels that only fill up an image, by default none
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.errors import InbolError
from inbol_jax.models.architecture import Idefics3Config
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.layers import ComputeOptions, Dense
from inbol_jax.models.vit import VisionTower, pixel_shuffle
from inbol_jax.models.vlm import Batch, VisionLanguageModel


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
