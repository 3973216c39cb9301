"""Scenes of one to four objects on a 2 x 2 grid, and their pictures."""

import dataclasses
import functools
import zlib

import numpy as np
from PIL import Image, ImageDraw

from inbol_jax.world.glyphs import SIZES, load_glyphs

IMAGE_SIZE = 48  # pixels
CELL = IMAGE_SIZE // 2
COLORS = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.60, 0.15),
    "blue": (0.10, 0.20, 0.85),
    "yellow": (0.95, 0.85, 0.10),
    "orange": (0.98, 0.55, 0.05),
    "purple": (0.50, 0.10, 0.60),
    "cyan": (0.10, 0.80, 0.85),
    "pink": (0.98, 0.55, 0.75),
    "brown": (0.50, 0.30, 0.10),
    "black": (0.05, 0.05, 0.05),
    "white": (0.99, 0.99, 0.99),
}
COLOR_NAMES = tuple(COLORS)
SHAPES = (
    "circle", "square", "triangle", "diamond", "star",
    "cross", "ring", "heart", "hexagon", "crescent",
)  # fmt: skip
PATTERNS = ("plain", "striped", "dotted", "checked")
OBJECT_SIZES = ("small", "big")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SYMBOL = "symbol"  # noun of an object that is a glyph


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """An object: a glyph (always big and plain) if `glyph >= 0`, else a shape.

    `glyph` is the rank of a glyph; the other fields index the tuples above.
    """

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
    """Objects in different places and of different shapes; only the first can be a glyph."""

    things: tuple[Thing, ...]
    noise: float  # standard deviation of the noise on the pixels, whose range is 0 to 1

    @property
    def glyph(self) -> Thing | None:
        return self.things[0] if self.things[0].glyph >= 0 else None

    def bucket(self, n: int = 20) -> int:
        """A hash into [0, n) of what can be seen, the same on every machine.

        Each split owns buckets, so that no scene is in two of them. The order of the objects and
        the shape behind a glyph cannot be seen, and do not count.
        """
        visible = [t if t.glyph < 0 else dataclasses.replace(t, shape=0) for t in self.things]
        seen = map(dataclasses.astuple, visible)
        return zlib.crc32(np.array(sorted(seen), np.int16).tobytes()) % n


def sample_scene(rng: np.random.Generator, glyph: int | None) -> Scene:
    """A random scene, whose first object is `glyph` if one is given."""
    n = int(rng.integers(1, 5))
    places = rng.permutation(4)[:n].tolist()
    shapes = rng.permutation(len(SHAPES))[:n].tolist()
    colors = rng.integers(len(COLORS), size=n).tolist()
    patterns = rng.integers(len(PATTERNS), size=n).tolist()
    sizes = rng.integers(2, size=n).tolist()
    things = [
        Thing(-1, *fields) for fields in zip(shapes, colors, patterns, sizes, places, strict=True)
    ]
    if glyph is not None:
        things[0] = dataclasses.replace(things[0], glyph=glyph, pattern=0, size=1)
    # 55% of the pictures are clear, 25% are hard, 20% are near the limit of what can be seen.
    difficulty = rng.random()
    if difficulty < 0.55:
        noise = rng.uniform(0.0, 0.1)
    elif difficulty < 0.8:
        noise = rng.uniform(0.1, 0.5)
    else:
        noise = rng.uniform(0.5, 1.2)
    return Scene(tuple(things), float(noise))


@functools.cache
def _shape_alpha(shape: str, pixels: int) -> np.ndarray:
    """f32[pixels, pixels]: a shape's coverage of the pixels, drawn 8 times larger and averaged."""
    scale = 8
    n = pixels * scale
    image = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(image)
    centre, radius = n / 2, n / 2 - 1

    def star(points: int, inner: float) -> list[tuple[float, float]]:
        """Corners at equal angles, every second one at `inner` times the radius."""
        angles = -np.pi / 2 + 2 * np.pi * np.arange(points) / points
        radii = np.where(np.arange(points) % 2, inner * radius, radius)
        xs, ys = centre + radii * np.cos(angles), centre + radii * np.sin(angles)
        return list(zip(xs, ys, strict=True))

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
    blocks = np.asarray(image, np.float32).reshape(pixels, scale, pixels, scale)
    return blocks.mean((1, 3)) / 255


@functools.cache
def _pattern_light() -> np.ndarray:
    """f32[4, 22, 22]: 1 where a pattern shows the object's colour, 0 where it shows its shade."""
    y, x = np.mgrid[: SIZES[-1], : SIZES[-1]]
    striped = y % 4 < 2
    dotted = 1 - (striped & (x % 4 < 2))
    checked = (y // 3 + x // 3) % 2
    return np.stack([np.ones_like(x), striped, dotted, checked]).astype(np.float32)


def render(scene: Scene, rng: np.random.Generator, *, sketch: bool = False) -> np.ndarray:
    """u8[48, 48, 3]: the scene's picture.

    Background, tints, and sizes and positions in the cells are drawn from `rng`. A sketch, the
    style of the out-of-domain split, has outlines on a shaded ground, and salt-and-pepper noise.
    """
    image = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    image[:] = rng.uniform(0.45, 0.8)
    if sketch:
        image += np.linspace(-0.1, 0.1, IMAGE_SIZE, dtype=np.float32)[:, None, None]
    for thing in scene.things:
        alpha, paint = _sprite(thing, rng, sketch)
        pixels = len(alpha)
        y = thing.place // 2 * CELL + int(rng.integers(0, CELL - pixels + 1))
        x = thing.place % 2 * CELL + int(rng.integers(0, CELL - pixels + 1))
        patch = image[y : y + pixels, x : x + pixels]  # a view: what follows draws into the image
        patch += alpha[:, :, None] * (paint - patch)
    if sketch:
        salt = rng.random((IMAGE_SIZE, IMAGE_SIZE), np.float32)
        share = 0.12 * scene.noise
        image[salt < share] = 0
        image[salt > 1 - share] = 1
    else:
        image += rng.standard_normal(image.shape, np.float32) * scene.noise
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _sprite(thing: Thing, rng: np.random.Generator, sketch: bool) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of an object, f32[p, p], and its colours, f32[3] or f32[p, p, 3]."""
    color = np.float32(COLORS[thing.color_name]) + rng.normal(0, 0.05, 3).astype(np.float32)
    if thing.glyph >= 0:
        pixels = SIZES[rng.integers(len(SIZES))]
        return load_glyphs().alpha[pixels][thing.glyph], color
    pixels = int(rng.integers(10, 13) if thing.size == 0 else rng.integers(18, 21))
    alpha = _shape_alpha(SHAPES[thing.shape], pixels)
    if sketch:
        alpha = alpha * (1 - 0.65 * _inside(alpha))
    light = _pattern_light()[thing.pattern][:pixels, :pixels, None]
    # The pattern of a black object must be lighter than it, because it cannot be darker.
    shade = color + 0.45 if thing.color_name == "black" else color * 0.35
    return alpha, color * light + shade * (1 - light)


def _inside(alpha: np.ndarray) -> np.ndarray:
    """f32[p, p]: the coverage eroded by two pixels, which is the shape without its outline."""
    pixels = len(alpha)
    padded = np.pad(alpha, 2)
    corners = ((2, 2), (2, 0), (2, 4), (0, 2), (4, 2))
    return np.minimum.reduce([padded[y : y + pixels, x : x + pixels] for y, x in corners])
