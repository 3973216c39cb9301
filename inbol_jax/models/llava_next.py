"""LLaVA-NeXT and LLaVA-OneVision: a LLaVA on the tiles of an image and on the whole.

Sources: Liu et al. 2024 (https://llava-vl.github.io/blog/2024-01-30-llava-next); Li et al. 2024
(arXiv 2408.03326). Layout and names are those of transformers' LlavaNextForConditionalGeneration
and LlavaOnevisionForConditionalGeneration. Beside the arrays of `models.vlm`, a batch holds
  image_layouts  i32[b, m, 6]  of up to m images per row, see `Layout`; those that are unused are 0
`LlavaNextConfig.prepared` makes them of a processor's `image_sizes`. An image's tiles lie behind
the whole, and behind those of the image before.

The resolution that fits an image best is cut into tiles. The whole image, scaled to a tile, comes
before them. Tokens are the features of the whole; then, row by row across all tiles, those that are
no padding, and behind each row one token that ends it (`pack_image_features` of transformers'
models). Layouts are floored and compared as transformers does in Python, on the host, so that no
device decides by a rounding of its own.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from inbol_jax.errors import InbolError
from inbol_jax.models.hf_config import fill_in_defaults, read_shared
from inbol_jax.models.llava import Llava, LlavaConfig, read_parts
from inbol_jax.models.tiles import Grid
from inbol_jax.models.vlm import Batch
from inbol_jax.models.weights import add_rows, array


class Layout(NamedTuple):
    """Of one image. All zeros are no image."""

    rows: int
    """Of tiles; 0 if the whole image is the only tile."""
    columns: int
    height: int
    """Rows of features that are no padding, in the middle of the tiles."""
    width: int
    scaled_height: int
    """What these are scaled to; a token that ends it follows each row."""
    scaled_width: int

    @property
    def tiles(self) -> int:
        """The number of tiles, the whole image included."""
        return self.rows * self.columns + 1

    def num_tokens(self, per_tile: int) -> int:
        """The number of image tokens, of which a tile has so many features."""
        return per_tile + self.scaled_height * (self.scaled_width + 1)


UNCUT = Layout(0, 0, 0, 0, 1, 0)
"""Of an image that is one tile: its features, and the token that ends them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaNextConfig(LlavaConfig):
    """LLaVA-NeXT: a LLaVA that sees the tiles of an image and the whole."""

    processor_class = "LlavaNextProcessor"
    tiled = True
    max_tiles: ClassVar[int | None] = None

    resolutions: tuple[tuple[int, int], ...]
    """Heights and widths in pixels that an image may be scaled to."""

    def layout(self, height: int, width: int, *, alone: bool = True) -> Layout:
        """Returns the layout of an image of so many pixels, by default a question's only one.

        Raises InbolError if nothing would be left of it.
        """
        from transformers.image_processing_utils import select_best_resolution  # slow to import

        if not (alone or self.cuts_several):
            return UNCUT
        # An image of 40 x 60 pixels, 1 x 2 tiles, side = 4. It is scaled to the height of the tiles
        # and is then 4 x 6 features large, in the middle of 4 x 8; one column per side is padding:
        #     . a b c | d e f .
        #     . g h i | j k l .     tokens: 16 of the whole image, then a b c d e f <end>
        #     . m n o | p q r .             g h i j k l <end>, m n o p q r <end>, s t u v w x <end>
        #     . s t u | v w x .
        side = self.vision.image_size // self.vision.patch_size
        best = select_best_resolution((height, width), self.resolutions)
        rows, columns = (length // self.vision.image_size for length in best)
        high, wide = rows * side, columns * side
        # As much padding on one side as on the other: in all an even number.
        if width / height > wide / high:
            high -= (high - int(round(height * (wide / width), 7))) // 2 * 2
        else:
            wide -= (wide - int(round(width * (high / height), 7))) // 2 * 2
        scaled = high, wide
        if self.max_tiles is not None:
            # By how much each side has too many features; what is almost right is left as it is.
            ratio = math.sqrt(high * wide / (self.max_tiles * side**2))
            if ratio > 1.1:
                scaled = int(high // ratio), int(wide // ratio)
                if not all(scaled):
                    raise InbolError(f"an image of {width} x {height} pixels is too thin")
        return Layout(rows, columns, high, wide, *scaled)

    def grid(self, processor: Any, width: int, height: int, *, alone: bool = True) -> Grid:
        layout = self.layout(height, width, alone=alone)
        tokens = layout.num_tokens(self.num_image_tokens)
        return Grid(layout.rows, layout.columns, tokens=tokens)

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        # No image has less than one tile; zeros are behind those of the images.
        layouts = {"image_layouts": ((tiles, len(UNCUT)), "int32")}
        return super().image_shapes(tiles) | layouts

    def prepared(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        # Pixels are [images, tiles, 3, H, W]; an image that is not alone was shown twice.
        size, *others = np.asarray(batch["image_sizes"]).tolist()
        layout = self.layout(*size, alone=not others)
        pixels = np.asarray(batch["pixel_values"])[0, : layout.tiles]
        return {"pixel_values": pixels, "image_layouts": np.array([layout], np.int32)}

    def counts(self, picture: Mapping[str, np.ndarray]) -> tuple[int, int]:
        layout = Layout(*picture["image_layouts"][0].tolist())
        return len(picture["pixel_values"]), layout.num_tokens(self.num_image_tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaOnevisionConfig(LlavaNextConfig):
    """LLaVA-OneVision: like LLaVA-NeXT, but features of many tiles are scaled down, and images are
    cut that are their question's only one."""

    processor_class = "LlavaOnevisionProcessor"
    cuts_several = False

    max_tiles: int
    """Features of more tiles than so are scaled down."""


def read_config(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> LlavaNextConfig:
    """Returns what config.json and generation_config.json say, or raises InbolError."""
    onevision = raw["model_type"] == "llava_onevision"
    kind = LlavaOnevisionConfig if onevision else LlavaNextConfig
    hf = fill_in_defaults(raw, kind.__name__)
    options = {"resolutions": tuple(map(tuple, hf.image_grid_pinpoints))}
    if onevision:
        match = re.fullmatch(r"anyres_max_([1-9]\d?)", hf.vision_aspect_ratio)
        if not match:
            raise InbolError(f"vision_aspect_ratio = {hf.vision_aspect_ratio!r} is not supported")
        options["max_tiles"] = int(match[1])
    config = kind(**options, **read_parts(hf), **read_shared(raw, generation, hf))
    if config.num_image_tokens != (patches := config.vision.num_patches):
        raise InbolError(
            f"vision_feature_select_strategy = {hf.vision_feature_select_strategy!r} does not "
            f"leave the {patches} patches of a tile"
        )
    return config


add_rows(array("image_newline", "image_newline", "norm"))  # besides LLaVA's


class LlavaNext(Llava):
    """Vision tower, two-layer projector, a vector that ends rows of features, decoder."""

    def setup(self) -> None:
        super().setup()
        size = self.config.text.hidden_size
        init = nn.initializers.normal(size**-0.5)
        self.image_newline = self.param("image_newline", init, (size,))

    def encode_images(self, batch: Batch) -> Float[Array, "*n p d"]:
        if "image_layouts" not in batch:
            raise InbolError("image_layouts is missing: `Checkpoint.apply` makes it of image_sizes")
        layouts = batch["image_layouts"]
        features = self.tile_features(batch)  # [b * m, p, d]
        (per_tile, size), b = features.shape[1:], len(layouts)
        features = features.reshape(b, -1, size)  # [b, m * p, d]
        tiles = features.shape[1] // per_tile
        # One vector more behind all features: token_places points at it where a row ends.
        end = jnp.broadcast_to(self.image_newline, (b, 1, size)).astype(features.dtype)
        features = jnp.concatenate([features, end], axis=1)
        scaled = self.config.max_tiles is not None
        tokens = sum(
            jnp.take_along_axis(features, place[..., None], axis=1) * share[..., None]
            for place, share in token_places(layouts, tiles, per_tile, scaled=scaled)
        )
        return tokens.astype(features.dtype)


def token_places(
    layouts: Int[Array, "r m 6"], tiles: int, per_tile: int, *, scaled: bool
) -> list[tuple[Int[Array, "r t"], Float[Array, "r t"]]]:
    """Returns which features each image token is a mean of, and their shares.

    Their number t is the most that so many tiles can have. The index behind all features stands for
    the vector that ends a row.

    Args:
      scaled: whether layouts may scale features; if not, each token is one of them.
    """
    # One image of 1 x 2 tiles of 2 x 2 features, none of them padding: layout (1, 2, 2, 4, 2, 4).
    #     whole  0 1      left  4 5   right  8  9      the vector that ends a row: 12
    #            2 3            6 7         10 11
    #     In:  tokens 0, 1, 2, ...
    #     Out: 0 1 2 3   4 5 8 9 12   6 7 10 11 12
    # Token 10: 10 - per_tile 4 = 6 is row 1, column 1, as rows have 4 + 1 tokens: feature 7.
    side, end = int(per_tile**0.5), tiles * per_tile
    used = layouts.any(-1)
    # Tokens of each image: all of the whole, then rows that have one token more, their end.
    counts = used * per_tile + layouts[..., 4] * (layouts[..., 5] + 1)  # [r, m]
    ends, index = jnp.cumsum(counts, axis=1), jnp.arange(tiles * (per_tile + side))
    # The image that each token is of: how many images have ended at or before it.
    image = (index[:, None] >= ends[:, None]).sum(-1)  # [r, t]
    image = jnp.minimum(image, layouts.shape[1] - 1)

    def of_image(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, image, axis=1)

    # The first feature of the image, as tiles of earlier images lie before it.
    num_tiles = layouts[..., 0] * layouts[..., 1] + used
    first = of_image(jnp.cumsum(num_tiles, axis=1) - num_tiles) * per_tile
    rows, columns, height, width, scaled_height, scaled_width = map(
        of_image, jnp.moveaxis(layouts, -1, 0)
    )
    # The token's number within its image; in front of `per_tile` it is one of the whole image.
    offset = index - of_image(ends - counts)
    row, column = jnp.divmod(jnp.maximum(offset - per_tile, 0), scaled_width + 1)
    # One feature per token; or four, around a place of the scaled image, whose shares add to 1.
    places, near = [], _neighbours if scaled else _itself
    for y, share_y in near(row, height, scaled_height):
        for x, share_x in near(column, width, scaled_width):
            # Padding in front, then: which tile, and which of its rows or columns.
            tile_y, in_y = jnp.divmod((rows * side - height) // 2 + y, side)
            tile_x, in_x = jnp.divmod((columns * side - width) // 2 + x, side)
            # Tile 0 is the whole image.
            tile = 1 + tile_y * columns + tile_x
            place = first + tile * per_tile + in_y * side + in_x
            place = jnp.where(column == scaled_width, end, place)
            place = jnp.where(offset < per_tile, first + offset, place)
            places.append((jnp.clip(place, 0, end), share_y * share_x))
    return places


def _itself(index: jax.Array, *_: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    return [(index, jnp.ones(index.shape))]


def _neighbours(
    index: jax.Array, size: jax.Array, scaled: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    """Linear interpolation of `size` values to `scaled`: two values each, with their shares."""
    # By centres, as torch's interpolate without align_corners: if 4 values are scaled to 2, the
    # first lies at (0 + 0.5) * 4 / 2 - 0.5 = 0.5, which is half of value 0 and half of value 1.
    place = jnp.maximum((index + 0.5) * size / jnp.maximum(scaled, 1) - 0.5, 0.0)
    last = jnp.maximum(size - 1, 0)
    low = jnp.minimum(jnp.floor(place).astype(jnp.int32), last)
    share = jnp.clip(place - low, 0.0, 1.0)
    return [(low, 1 - share), (jnp.minimum(low + 1, last), share)]


Model = LlavaNext
