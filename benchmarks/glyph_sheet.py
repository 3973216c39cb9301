"""Draws the glyphs of the embedded world again, from matplotlib's DejaVu Sans:
`python benchmarks/glyph_sheet.py`. Another version of Pillow may draw other pixels, and so another
world.
"""

import itertools
import json
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from inbol_jax.world.glyphs import ASSETS, COLUMNS, MAX_WORDS, N_GLYPHS, ROWS, SIZES

# Ranges of Unicode whose signs can be told apart at twenty pixels.
BLOCKS = (
    (0x30, 0x3A), (0x48, 0x5B), (0x61, 0x7B), (0x391, 0x3AA), (0x3B1, 0x3CA),
    (0x410, 0x450), (0x531, 0x557), (0x5D0, 0x5EB), (0x10D0, 0x10F7), (0x13A0, 0x13F5),
    (0x1401, 0x1500), (0x16A0, 0x16F1), (0x20A0, 0x20B6), (0x2190, 0x2200), (0x2200, 0x2300),
    (0x2300, 0x2370), (0x2440, 0x2450), (0x25A0, 0x2600), (0x2600, 0x2670), (0x2680, 0x26B8),
    (0x2701, 0x27BE), (0x27C0, 0x2800), (0x2900, 0x2980), (0x2980, 0x2A00), (0x2A00, 0x2B00),
    (0x2C00, 0x2C60), (0x2C80, 0x2CE0), (0x2D30, 0x2D66),
)  # fmt: skip


def candidates_of_the_font() -> list[tuple[str, list[Image.Image]]]:
    """Name and sprites, one per size, of every sign that can be told apart from those before it."""
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


def draw_sheet() -> None:
    """Writes the picture and the names into the package."""
    candidates = candidates_of_the_font()
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
    draw_sheet()
