"""Images cut at one of several resolutions: how many tiles, and which of their features are tokens.

The resolution that fits an image best is cut into tiles. The whole image, scaled to a tile, comes
before them. Tokens are the features of the whole; then, row by row across all tiles, those that are
no padding, and behind each row one token that ends it. All of it follows from the image's size. The
numbers are floored and compared as transformers does in Python, here on the host, so that no device
decides by a rounding of its own.

Source: `pack_image_features` of transformers' LlavaNextModel and LlavaOnevisionModel.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from inbol_jax.errors import InbolError


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


def image_layout(
    size: tuple[int, int],
    resolutions: Sequence[tuple[int, int]],
    tile: tuple[int, int],
    max_tiles: int | None,
) -> Layout:
    """Returns the layout of an image.

    Args:
      size: height and width of the image in pixels.
      resolutions: heights and widths that it may be scaled to.
      tile: pixels, and features, per side of a tile.
      max_tiles: features of more tiles than so are scaled down.
    Raises:
      InbolError: if nothing would be left of the image.
    """
    from transformers.image_processing_utils import select_best_resolution  # slow to import

    (height, width), (pixels, side) = size, tile
    # An image of 40 x 60 pixels, 1 x 2 tiles, side = 4. It is scaled to the height of the tiles and
    # is then 4 x 6 features large, in the middle of 4 x 8; one column on each side is padding:
    #     . a b c | d e f .
    #     . g h i | j k l .          tokens: 16 of the whole image, then a b c d e f <end>
    #     . m n o | p q r .                  g h i j k l <end>, m n o p q r <end>, s t u v w x <end>
    #     . s t u | v w x .
    best = select_best_resolution(size, resolutions)
    rows, columns = best[0] // pixels, best[1] // pixels
    high, wide = rows * side, columns * side
    # As much padding on one side as on the other: in all an even number.
    if width / height > wide / high:
        high -= (high - int(round(height * (wide / width), 7))) // 2 * 2
    else:
        wide -= (wide - int(round(width * (high / height), 7))) // 2 * 2
    scaled = high, wide
    if max_tiles is not None:
        # By how much each side has too many features; what is almost right is left as it is.
        ratio = math.sqrt(high * wide / (max_tiles * side**2))
        if ratio > 1.1:
            scaled = int(high // ratio), int(wide // ratio)
            if not all(scaled):
                raise InbolError(f"an image of {width} x {height} pixels is too thin")
    return Layout(rows, columns, high, wide, *scaled)
