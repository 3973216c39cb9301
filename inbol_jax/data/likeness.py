"""Pictures of one set found again in another: by their pixels, or by their looks where they were encoded or scaled anew."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from inbol_jax.data.images import pixel_hash

SIDE = 16
# Correlation of two thumbnails from which pictures count as one. Crops of one photograph, saved as JPEG of quality 30 to 75 and scaled
# by 0.5 to 1.28, correlate with themselves at 0.993 or more, and with each other at 0.970 or less.
ALIKE = 0.99
_BLOCK = 1 << 14  # pictures of the other set that are compared with at a time


class Looks(NamedTuple):
    """What a picture is known by: `pixel_hash`, and f16[SIDE^2], its thumbnail in grey with mean 0 and length 1 (0 for a blank picture)."""

    pixels: bytes
    thumbnail: np.ndarray


def looks(image: Image.Image) -> Looks:
    """Of an image of `load_image`."""
    grey = np.asarray(
        image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32
    ).ravel()
    grey -= grey.mean()
    length = np.linalg.norm(grey)
    blank = length < 2 * SIDE  # a standard deviation of two grey levels: noise
    return Looks(
        pixel_hash(image),
        np.zeros(SIDE * SIDE, np.float16) if blank else (grey / length).astype(np.float16),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A picture of another set.

    Attributes:
      dataset, image: which one.
      likeness: 1 where the pixels are equal, else the correlation of the thumbnails.
    """

    dataset: str
    image: str
    likeness: float


class Gallery:
    """The pictures that others are looked for among; about 700 bytes each."""

    def __init__(self) -> None:
        self._by_pixels: dict[bytes, int] = {}
        self._names: list[tuple[str, str]] = []
        self._thumbnails: list[np.ndarray] = []

    def add(self, dataset: str, images: Sequence[str], seen: Sequence[Looks]) -> None:
        """Adds pictures of a set; of equal ones the first counts."""
        for image, look in zip(images, seen, strict=True):
            if look.pixels not in self._by_pixels:
                self._by_pixels[look.pixels] = len(self._names)
                self._names.append((dataset, image))
                self._thumbnails.append(look.thumbnail)

    def find(self, seen: Sequence[Looks]) -> list[Match | None]:
        """For each picture the one with equal pixels, else the most alike, None where none is."""
        if not (seen and self._names):
            return [None] * len(seen)
        best, where = np.zeros(len(seen), np.float32), np.zeros(len(seen), np.int64)
        ours = np.array([look.thumbnail for look in seen], np.float32)
        for start in range(0, len(self._names), _BLOCK):
            likeness = ours @ np.array(self._thumbnails[start : start + _BLOCK], np.float32).T
            at = likeness.argmax(1)
            found = np.take_along_axis(likeness, at[:, None], 1)[:, 0]
            best, where = (
                np.where(found > best, found, best),
                np.where(found > best, start + at, where),
            )
        matches: list[Match | None] = []
        for look, likeness, index in zip(seen, best.tolist(), where.tolist(), strict=True):
            if (same := self._by_pixels.get(look.pixels)) is not None:
                matches.append(Match(*self._names[same], 1.0))
            else:
                matches.append(
                    Match(*self._names[index], round(min(likeness, 0.9999), 4))
                    if likeness >= ALIKE
                    else None
                )
        return matches
