"""Splits of the world. No two of them share a scene; all but pre-training share no glyph either."""

import enum
from typing import NamedTuple


class Split(enum.StrEnum):
    """The parts of the world.

    `ood_kinds` asks Type 3 questions of kinds that training never sees; `ood_style` draws in
    another style, with another noise.
    """

    PRETRAIN = "pretrain"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    OOD_KINDS = "ood_kinds"
    OOD_STYLE = "ood_style"

    @property
    def buckets(self) -> range:
        """The twentieths of all scenes that the split owns, by `Scene.bucket`."""
        return _PARTS[self].buckets

    @property
    def glyphs(self) -> tuple[int, ...]:
        """The twentieths of all glyphs that the split may show: their ranks modulo twenty."""
        return _PARTS[self].glyphs


class _Part(NamedTuple):
    buckets: range
    glyphs: tuple[int, ...]


_PARTS = {
    # Pre-training sees every glyph: how often it sees one decides whether the model knows it.
    Split.PRETRAIN: _Part(range(10), tuple(range(20))),
    Split.TRAIN: _Part(range(10, 14), (0, 2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18)),
    Split.VALIDATION: _Part(range(14, 15), (1, 11)),
    Split.TEST: _Part(range(15, 18), (3, 7, 13, 17)),
    Split.OOD_KINDS: _Part(range(18, 19), (9,)),
    Split.OOD_STYLE: _Part(range(19, 20), (19,)),
}
