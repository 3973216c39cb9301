"""Qwen3-VL: images at their own resolution, features of several depths, positions in three axes;
and Qwen2.5-VL, whose tower has windows.

Sources: Bai et al. 2025 (arXiv 2511.21631, arXiv 2502.13923); DeepStack, Meng et al. 2024 (arXiv
2406.04334); M-RoPE, Wang et al. 2024 (arXiv 2409.12191). Layout and names are those of
transformers' Qwen3VLForConditionalGeneration and Qwen2_5_VLForConditionalGeneration. The images of
a batch are not as in `models.vlm`:
  pixel_values    f32[n, c]       patches of the images of all rows, each square of patches that
                                  becomes one token behind the other; or
                  f32[b, s, c]    up to s patches per row; the values of unused ones do not matter
  image_grid_thw  i32[k, 3]       of each image: 1 (frame), rows and columns of patches; or
                  i32[b, m, 3]    of up to m images per row, those that are unused being 0
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from inbol_jax.models.architecture import Qwen3VLConfig
from inbol_jax.models.architecture_parts import NativeVisionConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.layers import (
    ACTIVATIONS,
    SMALL_INIT,
    ComputeOptions,
    Dense,
    RMSNorm,
    dot_product_attention,
    rope,
    rope_frequencies,
)
from inbol_jax.models.vlm import Batch, VisionLanguageModel
from inbol_jax.sharding import keep_rows

EPSILON = 1e-6  # of the tower's norms, in transformers a constant


class Places(NamedTuple):
    """Where each patch of packed images is; i32[n, s] each."""

    image: jax.Array
    """Which image the patch is of; behind the last one, the number of images."""
    row: jax.Array
    column: jax.Array
    rows: jax.Array
    """Of its image, at least 1."""
    columns: jax.Array


def patch_places(grid: Int[Array, "n m 3"], count: int, merge: int) -> Places:
    """Returns the places of patches that lie square by square, `merge` x `merge` each."""
    # One image of 2 x 4 patches, merge = 2. Patches of a square lie behind each other:
    #     0 1 | 4 5        row     0 0 1 1  0 0 1 1
    #     2 3 | 6 7        column  0 1 0 1  2 3 2 3
    ends = jnp.cumsum(grid.prod(-1), axis=1)  # [n, m]
    index = jnp.arange(count)
    # How many images have ended at or before the patch; unused patches get the number of images.
    image = (index[:, None] >= ends[:, None]).sum(-1)  # [n, s]
    last = jnp.minimum(image, grid.shape[1] - 1)
    _, rows, columns = jnp.moveaxis(jnp.take_along_axis(grid, last[..., None], axis=1), -1, 0)
    rows, columns = jnp.maximum(rows, 1), jnp.maximum(columns, merge)
    starts = jnp.take_along_axis(jnp.pad(ends, ((0, 0), (1, 0))), image, axis=1)
    # Which square of the image, and which of its merge**2 patches.
    square, within = jnp.divmod(index - starts, merge**2)
    y, x = jnp.divmod(square, columns // merge)
    row, column = y * merge + within // merge, x * merge + within % merge
    return Places(image, row, column, rows, columns)


def _has_images(batch: Batch) -> bool:
    return "image_grid_thw" in batch and batch["image_grid_thw"].size > 0


def _norm(config: NativeVisionConfig, compute: ComputeOptions, name: str) -> nn.Module:
    if config.rms_norm:
        return RMSNorm(EPSILON, compute.dtype, name=name)
    return nn.LayerNorm(EPSILON, dtype=compute.dtype, name=name)


class VisionBlock(nn.Module):
    """A pre-norm transformer layer; every patch sees those of its own image, or window."""

    config: NativeVisionConfig
    compute: ComputeOptions
    window: int | None
    """Patches per side of a window, or None."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n s d"], places: Places, positions: Int[Array, "n s half"]
    ) -> Float[Array, "n s d"]:
        c, compute = self.config, self.compute
        (n, s, d), head = x.shape, c.hidden_size // c.num_heads
        # [n, s, s]: images of a row are packed, and none of them sees another.
        mask = places.image[:, :, None] == places.image[:, None]
        if self.window is not None:
            for place in (places.row // self.window, places.column // self.window):
                mask &= place[:, :, None] == place[:, None]
        y = _norm(c, compute, "norm1")(x)
        qkv = Dense(3 * d, compute, name="qkv")(y).reshape(n, s, 3, c.num_heads, head)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        # Half of a head's pairs turn with the row, half with the column, at the same frequencies.
        frequency = rope_frequencies(head // 2, c.rope_theta, "default", {})
        frequency = np.concatenate([frequency, frequency])  # of rows and of columns
        q, k = rope(q, positions, frequency), rope(k, positions, frequency)
        proj = Dense(d, compute, kernel_init=SMALL_INIT, name="proj")
        implementation = compute.attention_of(head)
        x = x + proj(dot_product_attention(q, k, v, mask, implementation=implementation))
        y = _norm(c, compute, "norm2")(x)
        first, last = ("gate_proj", "down_proj") if c.gated else ("linear_fc1", "linear_fc2")
        z = ACTIVATIONS[c.hidden_act](Dense(c.intermediate_size, compute, name=first)(y))
        if c.gated:
            z *= Dense(c.intermediate_size, compute, name="up_proj")(y)
        return keep_rows(x + Dense(d, compute, kernel_init=SMALL_INIT, name=last)(z))


class NativeVisionTower(nn.Module):
    """The hidden states after each of `deepstack_layers`, and the last ones."""

    config: NativeVisionConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(
        self, pixel_values: Float[Array, "n s c"], grid: Int[Array, "n m 3"]
    ) -> list[Float[Array, "n s d"]]:
        c, dtype, d = self.config, self.compute.dtype, self.config.hidden_size
        places = patch_places(grid, pixel_values.shape[1], c.merge_size)
        shape = (3, c.temporal_patch_size, c.patch_size, c.patch_size, d)
        kernel = self.param("patch_projection", nn.initializers.lecun_normal((0, 1, 2, 3)), shape)
        # A patch comes flat, [c = 3 * frames * p * p]: its convolution is one product.
        x = pixel_values.astype(dtype) @ kernel.reshape(-1, d).astype(dtype)
        if c.patch_bias:
            x += self.param("patch_projection_bias", nn.initializers.zeros, (d,)).astype(dtype)
        if c.num_positions is not None:
            x += self._positions(places).astype(dtype)
        # A head of 8 features has 4 pairs: positions (row, row, column, column).
        repeats = d // c.num_heads // 4
        positions = [jnp.repeat(p[..., None], repeats, -1) for p in (places.row, places.column)]
        positions = jnp.concatenate(positions, axis=-1)  # [n, s, half a head]
        states = []
        for i in range(c.num_layers):
            window = None
            if c.window is not None and i not in c.full_layers:
                # The config counts squares per side, places count patches.
                window = c.window * c.merge_size
            x = VisionBlock(c, self.compute, window, name=f"blocks_{i}")(x, places, positions)
            if i in c.deepstack_layers:
                states.append(x)
        return [*states, x]

    def _positions(self, places: Places) -> Float[Array, "n s d"]:
        """Learnt positions: their square, stretched over each image, with linear interpolation."""
        c, normal = self.config, nn.initializers.normal(0.02)
        table = self.param("position_embedding", normal, (c.num_positions, c.hidden_size))
        side = int(c.num_positions**0.5)

        def neighbours(index: jax.Array, count: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
            # The first and last patch get the first and last position. With side = 48, 3 patches
            # lie at 0, 23.5 and 47: the middle one gets the mean of positions 23 and 24.
            place = index.astype(jnp.float32) * (side - 1) / jnp.maximum(count - 1, 1)
            low = jnp.floor(place)
            share, low = place - low, jnp.clip(low.astype(jnp.int32), 0, side - 1)
            return [(low, 1 - share), (jnp.minimum(low + 1, side - 1), share)]

        return sum(
            (table[row * side + column] * (along_rows * along_columns)[..., None])
            for row, along_rows in neighbours(places.row, places.rows)
            for column, along_columns in neighbours(places.column, places.columns)
        )


class PatchMerger(nn.Module):
    """One feature of the decoder's size per square of patches."""

    config: Qwen3VLConfig
    compute: ComputeOptions
    norm_merged: bool
    """Whether the patches of a square are normalised together, as for DeepStack."""

    @nn.compact
    def __call__(self, x: Float[Array, "n s v"]) -> Float[Array, "n p d"]:
        n, _, v = x.shape
        width = v * self.config.vision.square
        # Patches of a square lie side by side: [n, s, v] -> [n, s / 4, 4 v] merges 2 x 2 of them.
        x = x.reshape(n, -1, width) if self.norm_merged else x
        names = "norm", "linear_fc1", "linear_fc2"
        if self.config.vision.rms_norm:  # Qwen2.5-VL's, which has other keys
            names = "ln_q", "mlp_0", "mlp_2"
        norm, first, second = names
        x = _norm(self.config.vision, self.compute, norm)(x).reshape(n, -1, width)
        x = ACTIVATIONS["gelu"](Dense(width, self.compute, name=first)(x))
        return Dense(self.config.text.hidden_size, self.compute, name=second)(x)


class Qwen3VL(VisionLanguageModel):
    """Vision tower, mergers, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = NativeVisionTower(c.vision, compute)
        self.merger = PatchMerger(c, compute, norm_merged=False)
        self.deepstack_merger = [
            PatchMerger(c, compute, norm_merged=True) for _ in c.vision.deepstack_layers
        ]
        self.language_decoder = Decoder(c.text, compute)

    def encode_images(self, batch: Batch) -> Float[Array, "*n p k*d"]:
        pixels, grid = batch["pixel_values"], batch["image_grid_thw"]
        # The images of all rows are those of one.
        rows = pixels if pixels.ndim == 3 else pixels[None]
        *deepstack, last = self.vision_tower(rows, grid if grid.ndim == 3 else grid[None])
        features = [self.merger(last)]
        features += [
            merge(state) for merge, state in zip(self.deepstack_merger, deepstack, strict=True)
        ]
        # The merged last states, and behind them in the same array one part per DeepStack layer.
        features = jnp.concatenate(features, axis=-1)[:, :, None]  # [b, tiles, 1, k*d]
        return features if pixels.ndim == 3 else features[0]

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
        offset = (before - starts).reshape(positions.shape)
        row, column = jnp.divmod(offset, jnp.maximum(columns, 1).reshape(positions.shape))
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
        """Returns, for r rows that are those of the batch, or for all rows as r = 1:
        i32[r, m, 2], rows and columns of each image in tokens; bool[r, k, m], whether an image is
        complete before a token; i32[r, k], the image tokens before it.
        """
        grid = batch["image_grid_thw"]
        grid = grid if grid.ndim == 3 else grid[None]
        tokens = (batch["input_ids"] == self.config.image_token_id).astype(jnp.int32)
        tokens = tokens.reshape(len(grid), -1)
        size = grid[..., 1:] // self.config.vision.merge_size
        # Exclusive sum: a token does not count itself.
        before = jnp.cumsum(tokens, axis=1) - tokens
        return size, jnp.cumsum(size.prod(-1), 1)[:, None] <= before[..., None], before

    def _shift(self, batch: Batch) -> Int[Array, "b t"]:
        """By how much the images before a token, in its row, move its position."""
        size, done, _ = self._images_before(batch)
        # Each finished image takes max(rows, columns) positions instead of rows * columns.
        moved = (done * (size.max(-1) - size.prod(-1))[:, None]).sum(-1)
        moved = moved.reshape(batch["input_ids"].shape)
        return moved - moved[:, :1]  # without the images of other rows
