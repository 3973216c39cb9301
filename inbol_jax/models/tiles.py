"""Image tiles: how many an image becomes, what text stands around them, and their static numbers.

transformers' image processors of this kind scale an image to whole tiles, cut these, and add the
whole image as one more tile. Here is the same arithmetic without pixels, as prompts are made before
images are read; `Checkpoint.image_inputs` compares what it says with what the processor does.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from inbol_jax.errors import InbolError

MAX_SIDE = 4096  # of an image, in transformers' processors of tiled images
MAX_TILES = 256  # that a processor may be told to cut an image into


class Grid(NamedTuple):
    """How an image is cut; (0, 0) if it is one tile, as in transformers."""

    rows: int = 0
    columns: int = 0
    whole: bool = True
    """Whether the whole image is one more tile."""
    tokens: int | None = None
    """Image tokens, if their number does not follow from that of tiles."""

    @property
    def tiles(self) -> int:
        """The number of tiles, the whole image included."""
        return self.rows * self.columns + self.whole

    def num_tokens(self, per_tile: int) -> int:
        """The number of image tokens; usually each tile has so many."""
        return self.tiles * per_tile if self.tokens is None else self.tokens


UNTILED = Grid()


def image_grid(processor: Any, width: int, height: int) -> Grid:
    """Returns how a checkpoint's processor cuts an image of so many pixels.

    Raises InbolError if it takes no image of these sides.
    """
    images = processor.image_processor
    if _is_native(processor):
        return _squares_of_patches(images, width, height)
    if hasattr(images, "do_image_splitting"):
        return tile_grid(images, width, height)
    if not hasattr(images, "crop_to_patches"):
        return UNTILED
    # The text of these has no rows.
    tiles = images.get_number_of_image_patches(height, width, processor.images_kwargs)
    return Grid(1, tiles - 1) if tiles > 1 else UNTILED


def tokens_per_tile(processor: Any) -> int:
    """Returns how many image tokens a processor writes for a tile."""
    if _is_native(processor):
        return 1
    names = ("image_seq_len", "image_seq_length")
    return next(getattr(processor, name) for name in names if hasattr(processor, name))


def _is_native(processor: Any) -> bool:
    """Whether images keep their sizes: each square of patches is one token and, here, one tile."""
    return hasattr(processor.image_processor, "merge_size")


def tile_grid(image_processor: Any, width: int, height: int) -> Grid:
    """Returns how an image processor of Idefics3's kind cuts an image of so many pixels.

    Source: `resize`, `resize_for_vision_encoder` and `split_images` of transformers'
    Idefics3ImageProcessor and SmolVLMImageProcessor.
    """
    # 800 x 400 pixels, longest edge 1456, tiles of 364: scaled to 1456 x 728, cut into 2 rows of 4.
    if not image_processor.do_image_splitting:
        return UNTILED
    size, tile = image_processor.size, image_processor.max_image_size["longest_edge"]
    if image_processor.do_resize and size.get("longest_edge"):
        width, height = _with_longest_side(width, height, size["longest_edge"])
    elif image_processor.do_resize:
        width, height = size["width"], size["height"]
    ratio = width / height
    # The longer side is rounded up to whole tiles. The other follows from it by the ratio of the
    # image, and is then rounded up itself.
    if width >= height:
        columns = math.ceil(width / tile)
        rows = math.ceil(int(columns * tile / ratio) / tile)
    else:
        rows = math.ceil(height / tile)
        columns = math.ceil(int(rows * tile * ratio) / tile)
    return Grid(rows, columns) if max(rows, columns) > 1 else UNTILED


def _with_longest_side(width: int, height: int, longest: int) -> tuple[int, int]:
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height += height % 2
    else:
        width, height = int(longest * ratio), longest
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    ratio = width / height
    if width >= height and width > MAX_SIDE:
        width, height = MAX_SIDE, int(MAX_SIDE / ratio)
    elif height > width and height > MAX_SIDE:
        width, height = int(MAX_SIDE * ratio), MAX_SIDE
    return max(width, 1), max(height, 1)


def _squares_of_patches(image_processor: Any, width: int, height: int) -> Grid:
    if image_processor.do_resize:
        try:
            patches = image_processor.get_number_of_image_patches(height, width)
        except ValueError as error:
            raise InbolError(f"an image of {width} x {height} pixels: {error}") from error
    else:
        patches = (height // image_processor.patch_size) * (width // image_processor.patch_size)
    return Grid(1, patches // image_processor.merge_size**2, whole=False)


def image_text(processor: Any, grid: Grid, token: str) -> str:
    """Returns what the processor writes around an image, with one image token per tile."""
    # Each family's processor reads one of these names.
    cut = {"rows": [[grid.rows]], "cols": [[grid.columns]]}
    cut |= {"num_patches": [grid.tiles], "num_crops": [grid.tiles - 1]}
    text = processor.replace_image_token(cut, 0)
    return text.replace(token * tokens_per_tile(processor), token)


def padded_tiles(count: int) -> int:
    """The static number of tiles that rows are padded to: at most four per octave, and the one of
    the whole image besides, so that grids with up to four tiles per side are not padded. Rows
    without an image have none."""
    # Without the whole: 4 x 4 tiles stay 16; 17 need steps of 4 and become 20; 33 become 40.
    step = max(1, 1 << (max(count - 2, 0)).bit_length() >> 3)
    return 1 + -(-(count - 1) // step) * step


def pad_tiles(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[tuple[int, ...], str]]
) -> dict[str, np.ndarray]:
    """Fills arrays up to the shapes of more tiles with zeros, which are unused images."""
    return {
        name: np.pad(x, [(0, size - have) for size, have in zip(shape, x.shape, strict=True)])
        for name, x in arrays.items()
        for shape, _ in (shapes[name],)
    }
