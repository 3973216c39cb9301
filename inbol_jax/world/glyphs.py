"""A thousand glyphs with their Unicode names: the long tail of the world's knowledge.

The package ships a picture of them (`assets/glyphs.png`, in three sizes, one below the other) with
their names, so that the world is the same on every machine, whatever its fonts and its version of
Pillow. `python benchmarks/glyph_sheet.py` draws it again from matplotlib's DejaVu Sans.
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ASSETS = Path(__file__).parent / "assets"
N_GLYPHS = 1000
SIZES = (18, 20, 22)  # pixels
COLUMNS = 40
ROWS = N_GLYPHS // COLUMNS  # of each size
MAX_WORDS = 5  # the most words of a glyph's name, so that answers stay short
# Glyphs whose names begin so are knowledge that no training and no test in domain asks for.
HELD_OUT_ALPHABETS = ("armenian", "georgian", "hebrew", "tifinagh")


class Glyphs(NamedTuple):
    """The glyphs, most frequent first."""

    names: tuple[str, ...]  # Unicode names in lower case
    alpha: dict[int, np.ndarray]  # by size, the coverage of pixels, f32[1000, size, size] in [0, 1]


@functools.cache
def load_glyphs() -> Glyphs:
    """The shipped glyphs, read once."""
    names = json.loads((ASSETS / "glyphs.json").read_text())
    with Image.open(ASSETS / "glyphs.png") as image:
        sheet = np.asarray(image)  # u8[ROWS * (18 + 20 + 22), COLUMNS * 22]
    alpha, top = {}, 0
    for size in SIZES:
        block = sheet[top : top + ROWS * size, : COLUMNS * size]
        # [rows, y, columns, x] -> [rows, columns, y, x] -> [glyphs, y, x]
        sprites = block.reshape(ROWS, size, COLUMNS, size).transpose(0, 2, 1, 3)
        alpha[size] = sprites.reshape(N_GLYPHS, size, size).astype(np.float32) / 255
        top += ROWS * size
    return Glyphs(tuple(names), alpha)


@functools.cache
def held_out_glyphs() -> frozenset[int]:
    """The ranks of the glyphs of the held-out alphabets."""
    names = load_glyphs().names
    return frozenset(i for i, name in enumerate(names) if name.startswith(HELD_OUT_ALPHABETS))
