"""Qwen3-VL: images at their own resolution, features of several depths, positions in three axes.

Sources: Bai et al. 2025 (arXiv 2511.21631); DeepStack, Meng et al. 2024 (arXiv 2406.04334); M-RoPE,
Wang et al. 2024 (arXiv 2409.12191). Layout and names are those of transformers'
Qwen3VLForConditionalGeneration. The images of a batch are not as in `models.vlm`:
  pixel_values    f32[b, s, c]    up to s patches per row, each square of patches that becomes one
                                  token behind the other; the values of unused ones do not matter
  image_grid_thw  i32[b, m, 3]    of up to m images per row: 1 (frame), rows and columns of patches;
                                  those that are unused are 0
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from inbol_jax.models.config import ModelConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.hf_config import fill_in_defaults, read_shared
from inbol_jax.models.native_vit import (
    NativeVisionConfig,
    NativeVisionTower,
    PatchMerger,
    read_native_vision,
)
from inbol_jax.models.tiles import Grid
from inbol_jax.models.vlm import Batch, VisionLanguageModel
from inbol_jax.models.weights import WeightRow, add_rows, array, below, decoder, dense, layer_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen3VLConfig(ModelConfig):
    """Qwen3-VL: a tower at native resolution, mergers, a decoder with positions in three axes.

    A tile is the square of patches that becomes one image token.
    """

    processor_class = "Qwen3VLProcessor"
    tiled = True
    decoder = "language_decoder"

    vision: NativeVisionConfig
    mrope_section: tuple[int, ...]
    """How many rotary frequencies take their position from time, row and column."""
    mrope_interleaved: bool = True
    """Whether time, row and column take turns, and do not lie behind each other."""

    @property
    def num_image_tokens(self) -> int:
        return 1

    def grid(self, processor: Any, width: int, height: int, *, alone: bool = True) -> Grid:
        # Images keep their sizes: each square of patches is one token and, here, one tile.
        images = processor.image_processor
        tiles = images.get_number_of_image_patches(height, width) // images.merge_size**2
        return Grid(1, tiles, whole=False, tokens=tiles)

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        return {
            "pixel_values": ((tiles * self.vision.square, self.vision.patch_dim), "float32"),
            "image_grid_thw": ((tiles, 3), "int32"),  # zeros behind those of the images
        }

    def counts(self, picture: Mapping[str, np.ndarray]) -> tuple[int, int]:
        tiles = len(picture["pixel_values"]) // self.vision.square
        return tiles, tiles


def read_config(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Qwen3VLConfig:
    """Returns what config.json and generation_config.json say, or raises InbolError."""
    towers = ("qwen3_vl_vision", "qwen3_vl")
    hf = fill_in_defaults(raw, "Qwen3VLConfig", towers, ("qwen3_vl_text",))
    vision = read_native_vision(
        hf,
        deepstack_layers=tuple(hf.vision_config.deepstack_visual_indexes),
        num_positions=hf.vision_config.num_position_embeddings,
    )
    sections = hf.text_config.rope_parameters.get("mrope_section", (24, 20, 20))
    shared = read_shared(raw, generation, hf)
    return Qwen3VLConfig(vision=vision, mrope_section=tuple(sections), **shared)


def _merger(key: str, path: str) -> tuple[WeightRow, ...]:
    """Qwen3-VL's patches of a square into one feature."""
    return (
        *layer_norm(f"{key}norm", f"{path}norm"),
        *dense(f"{key}linear_fc1", f"{path}linear_fc1", "embed mlp"),
        *dense(f"{key}linear_fc2", f"{path}linear_fc2", "mlp embed"),
    )


add_rows(
    *below(
        "model.visual.",
        "vision_tower/",
        array(
            "patch_embed.proj.weight",
            "patch_projection",
            "patch patch patch patch norm",
            (1, 2, 3, 4, 0),
        ),
        array("patch_embed.proj.bias", "patch_projection_bias", "norm"),
        array("pos_embed.weight", "position_embedding", "position norm"),
    ),
    *below(
        "model.visual.blocks.{i}.",
        "vision_tower/blocks_{i}/",
        *layer_norm("norm{n}", "norm{n}"),
        *dense("attn.qkv", "qkv", "embed heads"),
        *dense("attn.proj", "proj", "heads embed"),
        *dense("mlp.linear_fc1", "linear_fc1", "embed mlp"),
        *dense("mlp.linear_fc2", "linear_fc2", "mlp embed"),
    ),
    *_merger("model.visual.merger.", "merger/"),
    *_merger("model.visual.deepstack_merger_list.{i}.", "deepstack_merger_{i}/"),
    *decoder("model.language_model.", "language_decoder/", "lm_head.weight", mlp_bias=False),
)


def _has_images(batch: Batch) -> bool:
    return "image_grid_thw" in batch and batch["image_grid_thw"].size > 0


class Qwen3VL(VisionLanguageModel):
    """Vision tower, mergers, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = NativeVisionTower(c.vision, compute)
        merger = functools.partial(PatchMerger, c.vision, compute, c.text.hidden_size)
        self.merger = merger(norm_merged=False)
        self.deepstack_merger = [merger(norm_merged=True) for _ in c.vision.deepstack_layers]
        self.language_decoder = Decoder(c.text, compute)

    def encode_images(self, batch: Batch) -> Float[Array, "b q k*d"]:
        *deepstack, last = self.vision_tower(batch["pixel_values"], batch["image_grid_thw"])
        features = [self.merger(last)]
        features += [
            merge(state) for merge, state in zip(self.deepstack_merger, deepstack, strict=True)
        ]
        # The merged last states, and behind them in the same array one part per DeepStack layer.
        return jnp.concatenate(features, axis=-1)

    def rotary_positions(
        self, batch: Batch, positions: Int[Array, "b t"]
    ) -> Int[Array, "b t *half"]:
        """Returns the position of each frequency, of which some follow time, rows or columns.

        An image counts as many positions as its longer side has tokens.
        """
        if not _has_images(batch):
            return positions
        # Text a, an image of 2 x 2 tokens, text b. A token of text has one position on all axes. An
        # image has one time, from which its rows and columns count. Then b goes on behind the
        # largest position, 2: an image takes max(rows, columns) positions, not rows * columns.
        #     token      a  i  i  i  i  b        positions       0  1  2  3  4  5
        #     time       0  1  1  1  1  3        before          0  0  1  2  3  4
        #     row        0  1  1  2  2  3        offset of i        0  1  2  3
        #     column     0  1  2  1  2  3        shift           0  0  0  0  0 -2
        size, done, before = self._images_before(batch)
        image = jnp.minimum(done.sum(-1), size.shape[1] - 1)  # that a token is of, or follows
        # Image tokens before the image, so that `offset` counts from its own first one.
        starts = jnp.take_along_axis(jnp.cumsum(size.prod(-1), 1) - size.prod(-1), image, axis=1)
        columns = jnp.take_along_axis(size[..., 1], image, axis=1)
        offset = before - starts
        row, column = jnp.divmod(offset, jnp.maximum(columns, 1))
        positions = positions + self._shift(batch)
        is_image = batch["input_ids"] == self.config.image_token_id
        start = positions - offset
        # Time, row and column, [b, t] each; `_frequency_axes` says which one a frequency takes.
        axes = [jnp.where(is_image, x, positions) for x in (start, start + row, start + column)]
        return jnp.stack(axes, axis=-1)[..., self._frequency_axes()]

    def next_positions(self, batch: Batch) -> Int[Array, " b"]:
        lengths = batch["attention_mask"].sum(1)
        if not _has_images(batch):
            return lengths
        # The shift of a text token behind all others: the token -1 is appended to stand for it.
        following = jnp.pad(batch["input_ids"], ((0, 0), (0, 1)), constant_values=-1)
        return lengths + self._shift({**batch, "input_ids": following})[:, -1]

    def _frequency_axes(self) -> np.ndarray:
        """i64[half a head]: 0, 1 or 2 for time, row or column."""
        # mrope_section (2, 1, 1) in a row: t t h w; interleaved: t h w t.
        if not self.config.mrope_interleaved:
            return np.repeat(np.arange(3), self.config.mrope_section)
        index = np.arange(self.config.text.head_dim // 2)
        axes = np.zeros_like(index)
        for axis in (1, 2):
            axes[(index % 3 == axis) & (index < 3 * self.config.mrope_section[axis])] = axis
        return axes

    def _images_before(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns i32[b, m, 2], rows and columns of each image in tokens; bool[b, t, m], whether an
        image is complete before a token; i32[b, t], the image tokens before it.
        """
        tokens = (batch["input_ids"] == self.config.image_token_id).astype(jnp.int32)
        size = batch["image_grid_thw"][..., 1:] // self.config.vision.merge_size
        # Exclusive sum: a token does not count itself.
        before = jnp.cumsum(tokens, axis=1) - tokens
        return size, jnp.cumsum(size.prod(-1), 1)[:, None] <= before[..., None], before

    def _shift(self, batch: Batch) -> Int[Array, "b t"]:
        """By how much the images before a token move its position."""
        size, done, _ = self._images_before(batch)
        # Each finished image takes max(rows, columns) positions instead of rows * columns.
        return (done * (size.max(-1) - size.prod(-1))[:, None]).sum(-1)


Model = Qwen3VL
