"""Vision transformers that take images at their own resolution: the towers of Qwen3-VL and
Qwen2.5-VL.

Sources: Bai et al. 2025 (arXiv 2511.21631, arXiv 2502.13923). Layout and names are those of
transformers' Qwen3VLVisionModel and Qwen2_5_VisionTransformerPretrainedModel.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from inbol_jax.models.hf_config import read_fields, require
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
from inbol_jax.sharding import keep_rows

EPSILON = 1e-6  # of the tower's norms, in transformers a constant


@dataclasses.dataclass(frozen=True)
class NativeVisionConfig:
    """Qwen2.5-VL's or Qwen3-VL's vision tower, which takes images of any size. `patch_size` is in
    pixels.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    temporal_patch_size: int
    """Frames per patch. Those of an image are alike."""
    merge_size: int
    """A square of this many patches per side becomes one image token."""
    hidden_act: str
    rope_theta: float
    num_positions: int | None = None
    """Of the learnt ones, a square that is interpolated for each image; None if there are none."""
    deepstack_layers: tuple[int, ...] = ()
    """After which layers features are taken that are added behind the decoder's first layers."""
    window: int | None = None
    """Image tokens per side of the squares within which patches see each other; None: images."""
    full_layers: tuple[int, ...] = ()
    """Layers without such windows."""
    rms_norm: bool = False
    """Whether norms are RMSNorm, and not LayerNorm."""
    gated: bool = False
    """Whether feed-forward networks have a gate."""
    patch_bias: bool = True

    @property
    def square(self) -> int:
        """Patches per image token."""
        # 2 x 2 patches, merged into one token
        return self.merge_size**2

    @property
    def patch_dim(self) -> int:
        """Numbers per patch."""
        # channels * frames * height * width: 3 * 2 * 16 * 16 = 1536
        return 3 * self.temporal_patch_size * self.patch_size**2


def read_native_vision(hf: Any, **given: Any) -> NativeVisionConfig:
    """Returns the tower of a family's config; InbolError names what is not supported."""
    require(hf, {"vision_config.hidden_act": ACTIVATIONS})
    theta = float(hf.vision_config.rope_parameters["rope_theta"])
    return read_fields(NativeVisionConfig, hf.vision_config, rope_theta=theta, **given)


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

    config: NativeVisionConfig
    compute: ComputeOptions
    size: int
    """Of the decoder's embeddings."""
    norm_merged: bool
    """Whether the patches of a square are normalised together, as for DeepStack."""

    @nn.compact
    def __call__(self, x: Float[Array, "n s v"]) -> Float[Array, "n p d"]:
        n, _, v = x.shape
        width = v * self.config.square
        # Patches of a square lie side by side: [n, s, v] -> [n, s / 4, 4 v] merges 2 x 2 of them.
        x = x.reshape(n, -1, width) if self.norm_merged else x
        names = "norm", "linear_fc1", "linear_fc2"
        if self.config.rms_norm:  # Qwen2.5-VL's, which has other keys
            names = "ln_q", "mlp_0", "mlp_2"
        norm, first, second = names
        x = _norm(self.config, self.compute, norm)(x).reshape(n, -1, width)
        x = ACTIVATIONS["gelu"](Dense(width, self.compute, name=first)(x))
        return Dense(self.size, self.compute, name=second)(x)
