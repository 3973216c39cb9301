"""Scenes of one to four objects on a 2 x 2 grid, and their pictures."""

import dataclasses
import functools
import zlib

import numpy as np
from PIL import Image, ImageDraw

from inbol_jax.world.glyphs import N_GLYPHS, SIZES, load_glyphs

IMAGE_SIZE = 48  # pixels
CELL = IMAGE_SIZE // 2
COLORS = {
    "red": (0.85, 0.10, 0.10), "green": (0.10, 0.60, 0.15), "blue": (0.10, 0.20, 0.85), "yellow": (0.95, 0.85, 0.10),
    "orange": (0.98, 0.55, 0.05), "purple": (0.50, 0.10, 0.60), "cyan": (0.10, 0.80, 0.85), "pink": (0.98, 0.55, 0.75),
    "brown": (0.50, 0.30, 0.10), "black": (0.05, 0.05, 0.05), "white": (0.99, 0.99, 0.99),
}  # fmt: skip
COLOR_NAMES = tuple(COLORS)
SHAPES = (
    "circle",
    "square",
    "triangle",
    "diamond",
    "star",
    "cross",
    "ring",
    "heart",
    "hexagon",
    "crescent",
)
PATTERNS = ("plain", "striped", "dotted", "checked")
OBJECT_SIZES = ("small", "big")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SYMBOL = "symbol"  # what an object that is a glyph is called


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """An object: a shape, or a glyph where `glyph >= 0` (always big and plain). The other fields index the tuples above."""

    glyph: int
    shape: int
    color: int
    pattern: int
    size: int
    place: int

    @property
    def noun(self) -> str:
        return SYMBOL if self.glyph >= 0 else SHAPES[self.shape]

    @property
    def color_name(self) -> str:
        return COLOR_NAMES[self.color]


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """Objects in different places and of different shapes; only the first can be a glyph. `noise`: standard deviation of the pixels."""

    things: tuple[Thing, ...]
    noise: float

    @property
    def glyph(self) -> Thing | None:
        return self.things[0] if self.things[0].glyph >= 0 else None

    def bucket(self, n: int = 20) -> int:
        """A hash of what can be seen into [0, n), the same on every machine: splits own buckets, so that no scene is in two of them.

        The order of the objects and the shape behind a glyph cannot be seen.
        """
        seen = sorted(
            dataclasses.astuple(t if t.glyph < 0 else dataclasses.replace(t, shape=0))
            for t in self.things
        )
        return zlib.crc32(np.array(seen, np.int16).tobytes()) % n


def sample_scene(rng: np.random.Generator, glyph: int | None) -> Scene:
    """A random scene, with `glyph` as its first object where one is given."""
    n = int(rng.integers(1, 5))
    places = rng.permutation(4)[:n]
    shapes = rng.permutation(len(SHAPES))[:n]
    colors = rng.integers(len(COLORS), size=n)
    patterns = rng.integers(len(PATTERNS), size=n)
    sizes = rng.integers(2, size=n)
    things = [
        Thing(-1, int(shapes[i]), int(colors[i]), int(patterns[i]), int(sizes[i]), int(places[i]))
        for i in range(n)
    ]
    if glyph is not None:
        things[0] = dataclasses.replace(things[0], glyph=glyph, pattern=0, size=1)
    strength = rng.random()  # a bit over half of the pictures are clear, a quarter hard, a fifth near the limit of what can be seen
    low, high = (0.0, 0.1) if strength < 0.55 else (0.1, 0.5) if strength < 0.8 else (0.5, 1.2)
    return Scene(tuple(things), float(rng.uniform(low, high)))


@functools.cache
def _shape_alpha(shape: str, pixels: int) -> np.ndarray:
    """f32[pixels, pixels]: the shape's coverage, drawn eight times as large and averaged down."""
    scale = 8
    n = pixels * scale
    image = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(image)
    centre, radius = n / 2, n / 2 - 1

    def star(points: int, inner: float) -> list[tuple[float, float]]:
        angles = -np.pi / 2 + 2 * np.pi * np.arange(points) / points
        radii = np.where(np.arange(points) % 2, inner * radius, radius)
        return list(
            zip(centre + radii * np.cos(angles), centre + radii * np.sin(angles), strict=True)
        )

    match shape:
        case "circle":
            draw.ellipse([1, 1, n - 1, n - 1], fill=255)
        case "square":
            draw.rectangle([n * 0.08, n * 0.08, n * 0.92, n * 0.92], fill=255)
        case "triangle":
            draw.polygon([(centre, 1), (n - 1, n - 1), (1, n - 1)], fill=255)
        case "diamond":
            draw.polygon(star(4, 1), fill=255)
        case "star":
            draw.polygon(star(10, 0.42), fill=255)
        case "cross":
            draw.rectangle([n * 0.36, 0, n * 0.64, n], fill=255)
            draw.rectangle([0, n * 0.36, n, n * 0.64], fill=255)
        case "ring":
            draw.ellipse([1, 1, n - 1, n - 1], fill=255)
            draw.ellipse([n * 0.28, n * 0.28, n * 0.72, n * 0.72], fill=0)
        case "heart":
            t = np.linspace(0, 2 * np.pi, 100)
            x = 16 * np.sin(t) ** 3 / 17
            y = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17
            draw.polygon(list(zip(centre + x * radius, centre - y * radius, strict=True)), fill=255)
        case "hexagon":
            draw.polygon(star(6, 1), fill=255)
        case "crescent":
            draw.ellipse([1, 1, n - 1, n - 1], fill=255)
            draw.ellipse([n * 0.3, -n * 0.05, n * 1.1, n * 0.75], fill=0)
    return np.asarray(image, np.float32).reshape(pixels, scale, pixels, scale).mean((1, 3)) / 255


_Y, _X = np.mgrid[: SIZES[-1], : SIZES[-1]]
_PATTERN_LIGHT = np.stack(
    [np.ones_like(_X), _Y % 4 < 2, 1 - ((_Y % 4 < 2) & (_X % 4 < 2)), (_Y // 3 + _X // 3) % 2],
    dtype=np.float32,
    casting="unsafe",
)


def render(scene: Scene, rng: np.random.Generator, *, sketch: bool = False) -> np.ndarray:
    """u8[48, 48, 3]: the scene's picture; position within the cell, size, tint and background are drawn from `rng`.

    Args:
      sketch: the other rendering of the out-of-domain set: outlines on a shaded ground, under salt and pepper instead of Gaussian noise.
    """
    image = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    image[:] = rng.uniform(0.45, 0.8)
    if sketch:
        image += np.linspace(-0.1, 0.1, IMAGE_SIZE, dtype=np.float32)[:, None, None]
    glyphs = load_glyphs()
    for thing in scene.things:
        color = np.float32(COLORS[thing.color_name]) + rng.normal(0, 0.05, 3).astype(np.float32)
        if thing.glyph >= 0:
            pixels = SIZES[rng.integers(len(SIZES))]
            alpha = glyphs.alpha[pixels][thing.glyph]
            paint = color
        else:
            pixels = int(rng.integers(10, 13) if thing.size == 0 else rng.integers(18, 21))
            alpha = _shape_alpha(SHAPES[thing.shape], pixels)
            if sketch:
                inside = np.pad(alpha, 2)
                inside = np.minimum.reduce(
                    [
                        inside[2 + dy : 2 + dy + pixels, 2 + dx : 2 + dx + pixels]
                        for dy, dx in _CROSS
                    ]
                )
                alpha = alpha * (1 - 0.65 * inside)
            light = _PATTERN_LIGHT[thing.pattern][:pixels, :pixels, None]
            dark = (
                color + 0.45 if thing.color_name == "black" else color * 0.35
            )  # a black thing's pattern must be lighter, not darker
            paint = color * light + dark * (1 - light)
        y = thing.place // 2 * CELL + int(rng.integers(0, CELL - pixels + 1))
        x = thing.place % 2 * CELL + int(rng.integers(0, CELL - pixels + 1))
        patch = image[y : y + pixels, x : x + pixels]
        patch += alpha[:, :, None] * (paint - patch)
    if sketch:
        salt = rng.random((IMAGE_SIZE, IMAGE_SIZE), np.float32)
        share = 0.12 * scene.noise
        image[salt < share] = 0
        image[salt > 1 - share] = 1
    else:
        image += rng.standard_normal(image.shape, np.float32) * scene.noise
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


_CROSS = ((0, 0), (0, -2), (0, 2), (-2, 0), (2, 0))


def sample_glyph(rng: np.random.Generator, cumulative: np.ndarray) -> int:
    """A glyph's rank from a cumulative distribution over `N_GLYPHS`."""
    return min(int(np.searchsorted(cumulative, rng.random())), N_GLYPHS - 1)
