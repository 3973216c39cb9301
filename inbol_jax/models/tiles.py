"""Image tiles: how many an image becomes, what text stands around them, and their static numbers.

Processors of tiled images scale an image to whole tiles, cut these, and add the whole image as one
more tile. How many there are follows from the image's size: prompts are made before images are
read, and `processor.load_image_inputs` compares what they say with what the processor then does.
"""

from typing import NamedTuple


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


UNTILED = Grid()


def padded_tiles(count: int) -> int:
    """The static number of tiles that rows are padded to: at most four per octave, and the one of
    the whole image besides, so that grids with up to four tiles per side are not padded. Rows
    without an image have none."""
    # Without the whole: 4 x 4 tiles stay 16; 17 need steps of 4 and become 20; 33 become 40.
    step = max(1, 1 << (max(count - 2, 0)).bit_length() >> 3)
    return 1 + -(-(count - 1) // step) * step
