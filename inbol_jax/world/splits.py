"""Splits of the world. No two of them share a scene; all but pre-training share no glyph either."""

import enum
from collections.abc import Sequence


class Split(enum.StrEnum):
    """The parts of the world.

    `ood_kinds` asks Type 3 questions of kinds that training never sees; `ood_style` draws in
    another style, with another noise; `ood_knowledge` asks for the names of glyphs of alphabets
    that no other split but pre-training shows (`glyphs.HELD_OUT_ALPHABETS`).

    Attributes:
      buckets: the twentieths of all scenes that the split owns, by `Scene.bucket`.
      glyphs: the twentieths of all glyphs that the split may show: their ranks modulo twenty.
    """

    buckets: range
    glyphs: Sequence[int]

    # Pre-training sees every glyph: how often it sees one decides whether the model knows it.
    PRETRAIN = "pretrain", range(10), range(20)
    TRAIN = "train", range(10, 14), (0, 2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18)
    VALIDATION = "validation", range(14, 15), (1, 11)
    TEST = "test", range(15, 17), (3, 7, 13, 17)
    OOD_KNOWLEDGE = "ood_knowledge", range(17, 18), range(20)
    OOD_KINDS = "ood_kinds", range(18, 19), (9,)
    OOD_STYLE = "ood_style", range(19, 20), (19,)

    def __new__(cls, name: str, buckets: range, glyphs: Sequence[int]) -> "Split":
        split = str.__new__(cls, name)
        split._value_, split.buckets, split.glyphs = name, buckets, glyphs
        return split
