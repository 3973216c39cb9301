"""LLaVA-NeXT and LLaVA-OneVision: a LLaVA on the tiles of an image and on the whole.

Sources: Liu et al. 2024 (https://llava-vl.github.io/blog/2024-01-30-llava-next); Li et al. 2024
(arXiv 2408.03326). Layout and names are those of transformers' LlavaNextForConditionalGeneration
and LlavaOnevisionForConditionalGeneration. Beside the arrays of `models.vlm`, a batch holds
  image_layouts  i32[k, 6]     of each image, see `anyres.Layout`; or
                 i32[b, m, 6]  of up to m images per row, those that are unused being 0
`LlavaNextConfig.prepared` makes them of a processor's `image_sizes`. An image's tiles lie behind
the whole, and behind those of the image before.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from inbol_jax.errors import InbolError
from inbol_jax.models.llava import Llava
from inbol_jax.models.vlm import Batch


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
        features, layouts = super().encode_images(batch), batch["image_layouts"]
        by_row, (per_tile, size) = layouts.ndim == 3, features.shape[-2:]
        # The images of all rows are those of one.
        # r is the number of rows, or 1; p features per tile, m images per row.
        layouts = layouts if by_row else layouts[None]
        features = features.reshape(len(layouts), -1, size)  # [r, tiles * p, d]
        tiles, scaled = features.shape[1] // per_tile, self.config.max_tiles is not None
        # One vector more behind all features: token_places points at it where a row ends.
        end = jnp.broadcast_to(self.image_newline, (len(layouts), 1, size)).astype(features.dtype)
        features = jnp.concatenate([features, end], axis=1)
        tokens = sum(
            jnp.take_along_axis(features, place[..., None], axis=1) * share[..., None]
            for place, share in token_places(layouts, tiles, per_tile, scaled=scaled)
        )
        tokens = tokens.astype(features.dtype)[:, :, None]  # [r, t, 1, d]
        return tokens if by_row else tokens[0]


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
