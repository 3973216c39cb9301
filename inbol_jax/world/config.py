"""The splits of the world, and the options of `inbol world export`."""

import dataclasses
import enum
from collections.abc import Sequence
from pathlib import Path

from inbol_jax.defaults import Bounded, NumRows, Seed


class Split(enum.StrEnum):
    """The parts of the world. No two of them share a scene; all but pre-training share no glyph
    either.

    `ood_kinds` asks Type 3 questions of kinds that training never sees; `ood_style` draws in
    another style, with another noise; `ood_knowledge` asks for the names of glyphs of alphabets
    that no other split but pre-training shows (`glyphs.HELD_OUT_ALPHABETS`).

    Attributes:
      buckets: the twentieths of all scenes that the split owns, by `Scene.bucket`.
      glyphs: the twentieths of all glyphs that the split may show: their ranks modulo twenty.
      type3: Type 3 questions per answerable one; training has those of `inbol extrinsic`.
    """

    buckets: range
    glyphs: Sequence[int]
    type3: float

    # Pre-training sees every glyph: how often it sees one decides whether the model knows it.
    PRETRAIN = "pretrain", range(10), range(20), 0.0
    TRAIN = "train", range(10, 14), (0, 2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18), 0.0
    VALIDATION = "validation", range(14, 15), (1, 11), 0.5
    TEST = "test", range(15, 17), (3, 7, 13, 17), 0.5
    OOD_KNOWLEDGE = "ood_knowledge", range(17, 18), range(20), 0.0
    OOD_KINDS = "ood_kinds", range(18, 19), (9,), 0.5
    OOD_STYLE = "ood_style", range(19, 20), (19,), 0.5

    def __new__(cls, name: str, buckets: range, glyphs: Sequence[int], type3: float) -> "Split":
        split = str.__new__(cls, name)
        split._value_, split.buckets, split.glyphs, split.type3 = name, buckets, glyphs, type3
        return split


@dataclasses.dataclass(frozen=True)
class ExportConfig(Bounded):
    """Write a split of the embedded world as a VQA dataset: images and data.jsonl."""

    out: Path
    """Folder to write."""
    split: Split = Split.TRAIN
    """Part of the world. No two of them share a scene or a glyph."""
    n: NumRows = 1000
    """Questions. A third of them are of Type 3; of `train` and `ood_knowledge` none, and of
    `ood_kinds` all."""
    seed: Seed = 0
    """Another seed gives other scenes; the splits stay apart."""
