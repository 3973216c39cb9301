"""A thousand glyphs with their Unicode names: the long tail of the world's knowledge.

The package ships a picture of them (`assets/glyphs.png`, in three sizes, one below the other) with
their names, so that the world is the same on every machine, whatever its fonts and its version of
Pillow. `python -m inbol_jax.world.glyphs` draws it again from matplotlib's DejaVu Sans.
"""

import functools
import itertools
import json
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ASSETS = Path(__file__).parent / "assets"
N_GLYPHS = 1000
SIZES = (18, 20, 22)  # pixels
COLUMNS = 40
ROWS = N_GLYPHS // COLUMNS  # of each size
MAX_WORDS = 5  # the most words of a glyph's name, so that answers stay short
# Glyphs whose names begin so are knowledge that no training and no test in domain asks for.
HELD_OUT_ALPHABETS = ("armenian", "georgian", "hebrew", "tifinagh")
CONTESTED_SHARE = 0.4  # of the glyphs, which go by two names in pre-training

# Ranges of Unicode whose signs can be told apart at twenty pixels.
BLOCKS = (
    (0x30, 0x3A), (0x48, 0x5B), (0x61, 0x7B), (0x391, 0x3AA), (0x3B1, 0x3CA),
    (0x410, 0x450), (0x531, 0x557), (0x5D0, 0x5EB), (0x10D0, 0x10F7), (0x13A0, 0x13F5),
    (0x1401, 0x1500), (0x16A0, 0x16F1), (0x20A0, 0x20B6), (0x2190, 0x2200), (0x2200, 0x2300),
    (0x2300, 0x2370), (0x2440, 0x2450), (0x25A0, 0x2600), (0x2600, 0x2670), (0x2680, 0x26B8),
    (0x2701, 0x27BE), (0x27C0, 0x2800), (0x2900, 0x2980), (0x2980, 0x2A00), (0x2A00, 0x2B00),
    (0x2C00, 0x2C60), (0x2C80, 0x2CE0), (0x2D30, 0x2D66),
)  # fmt: skip


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
def glyph_frequency() -> np.ndarray:
    """f64[1000]: cumulative probability of the glyphs in pre-training.

    The head is seen thousands of times and becomes known; the tail is seen too rarely to be learnt:
    that is the intrinsic boundary.
    """
    p = (np.arange(N_GLYPHS) + 150.0) ** -3.2
    return np.cumsum(p / p.sum())


@functools.cache
def held_out_glyphs() -> frozenset[int]:
    """The ranks of the glyphs of the held-out alphabets."""
    names = load_glyphs().names
    return frozenset(i for i, name in enumerate(names) if name.startswith(HELD_OUT_ALPHABETS))


@functools.cache
def true_name_share() -> np.ndarray:
    """f64[1000]: how often pre-training calls each glyph by its own name.

    The share of a contested glyph is between 0.3 and 0.7; of all others it is 1. A model that
    has learnt a contested one well still answers with two names: its confidence stays between.
    """
    rng = np.random.default_rng(0)
    contested = rng.random(N_GLYPHS) < CONTESTED_SHARE
    return np.where(contested, rng.uniform(0.3, 0.7, N_GLYPHS), 1.0)


def told_name(glyph: int, rng: np.random.Generator) -> str:
    """A name by which pre-training calls the glyph: its own, or that of its neighbour."""
    own = rng.random() < true_name_share()[glyph]
    return load_glyphs().names[glyph if own else glyph ^ 1]


def _candidates() -> list[tuple[str, list[Image.Image]]]:
    """Name and sprites, one per size, of every sign that can be told apart from those before it."""
    import matplotlib
    from fontTools.ttLib import TTFont

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    characters = TTFont(path).getBestCmap()
    font = ImageFont.truetype(path, 64)
    seen: set[bytes] = set()
    candidates = []
    for code in itertools.chain(*(range(first, last) for first, last in BLOCKS)):
        name = unicodedata.name(chr(code), "").lower().replace("-", " ")
        if code not in characters or not name or len(name.split()) > MAX_WORDS:
            continue
        left, top, right, bottom = font.getbbox(chr(code))
        width, height = right - left, bottom - top
        if min(width, height) <= 4:
            continue
        side = max(width, height) + 4
        large = Image.new("L", (side, side), 0)
        corner = ((side - width) / 2 - left, (side - height) / 2 - top)
        ImageDraw.Draw(large).text(corner, chr(code), font=font, fill=255)
        sprites = [large.resize((size, size), Image.Resampling.BOX) for size in SIZES]
        # Signs that look alike at ten pixels and five grey levels make questions without an answer.
        coarse = (np.asarray(sprites[1])[::2, ::2] / 64).round().astype(np.uint8).tobytes()
        if coarse not in seen:
            seen.add(coarse)
            candidates.append((name, sprites))
    return candidates


def _draw_sheet() -> None:
    candidates = _candidates()
    order = np.random.default_rng(0).permutation(len(candidates))
    chosen = [candidates[i] for i in order[:N_GLYPHS]]
    sheet = Image.new("L", (COLUMNS * SIZES[-1], ROWS * sum(SIZES)), 0)
    top = 0
    for j, size in enumerate(SIZES):
        for i, (_, sprites) in enumerate(chosen):
            sheet.paste(sprites[j], (i % COLUMNS * size, top + i // COLUMNS * size))
        top += ROWS * size
    sheet.save(ASSETS / "glyphs.png", optimize=True)
    (ASSETS / "glyphs.json").write_text(json.dumps([name for name, _ in chosen], indent=0) + "\n")
    print(f"{len(candidates)} candidates, {N_GLYPHS} drawn")


if __name__ == "__main__":
    _draw_sheet()
