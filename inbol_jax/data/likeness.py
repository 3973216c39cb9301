"""Pictures that two sets share: with equal pixels, or encoded or scaled anew."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from inbol_jax.data.images import pixel_hash

SIDE = 16
# From this correlation of thumbnails on, two pictures count as one. Crops of one photograph that
# were saved as JPEG of quality 30 to 75 and scaled by 0.5 to 1.28 correlate with themselves at
# 0.993 or more, and with each other at 0.970 or less.
ALIKE = 0.99
_BLOCK = 1 << 14  # pictures of the gallery that are compared at once


class Appearance(NamedTuple):
    """What a picture is recognised by."""

    pixel_hash: bytes
    thumbnail: np.ndarray
    """f16[SIDE^2], grey, of mean 0 and length 1; all 0 for a blank picture. Empty if not needed."""


def appearance(image: Image.Image, *, thumbnail: bool = True) -> Appearance:
    """The appearance of an image that `load_image` has read."""
    empty = np.zeros(0, np.float16)
    return Appearance(pixel_hash(image), _thumbnail(image) if thumbnail else empty)


def _thumbnail(image: Image.Image) -> np.ndarray:
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.float32).ravel()
    grey = grey - grey.mean()
    length = np.linalg.norm(grey)
    if length < 2 * SIDE:  # a standard deviation below two grey levels is noise
        return np.zeros(SIDE * SIDE, np.float16)
    return (grey / length).astype(np.float16)


class Match(NamedTuple):
    """A picture of another set."""

    dataset: str
    image: str
    likeness: float  # 1 if the pixels are equal, else the correlation of the thumbnails


class Gallery:
    """The pictures among which others are looked for. Each takes about 700 bytes."""

    def __init__(self) -> None:
        self._by_pixels: dict[bytes, int] = {}
        self._names: list[tuple[str, str]] = []
        self._thumbnails: list[np.ndarray] = []

    def add(self, dataset: str, pictures: Mapping[str, Appearance]) -> None:
        """Adds pictures of a set, by name. Of pictures with equal pixels, the first is kept."""
        for image, look in pictures.items():
            if look.pixel_hash not in self._by_pixels:
                self._by_pixels[look.pixel_hash] = len(self._names)
                self._names.append((dataset, image))
                self._thumbnails.append(look.thumbnail)

    def find(self, pictures: Mapping[str, Appearance]) -> dict[str, Match]:
        """The match of each picture that has one: equal pixels, else the most alike."""
        if not (pictures and self._names):
            return {}
        likeness, nearest = self._nearest([look.thumbnail for look in pictures.values()])
        matches = {}
        for i, (image, look) in enumerate(pictures.items()):
            equal = self._by_pixels.get(look.pixel_hash)
            if equal is not None:
                matches[image] = Match(*self._names[equal], 1.0)
            elif likeness[i] >= ALIKE:
                rounded = round(min(float(likeness[i]), 0.9999), 4)  # 1 stands for equal pixels
                matches[image] = Match(*self._names[nearest[i]], rounded)
        return matches

    def _nearest(self, thumbnails: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """f32[n], the largest correlation with a picture of the gallery, and i64[n], its index."""
        ours = np.array(thumbnails, np.float32)
        likeness = np.zeros(len(ours), np.float32)
        nearest = np.zeros(len(ours), np.int64)
        for start in range(0, len(self._names), _BLOCK):
            block = np.array(self._thumbnails[start : start + _BLOCK], np.float32)
            correlations = ours @ block.T  # [n, block]
            largest = correlations.max(1)
            nearest = np.where(largest > likeness, start + correlations.argmax(1), nearest)
            likeness = np.maximum(likeness, largest)
        return likeness, nearest
