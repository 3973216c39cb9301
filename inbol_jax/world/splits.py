"""Splits of the world that share no scene, and, but for pre-training, no glyph."""

import dataclasses
import enum


class Split(enum.StrEnum):
    """`OOD_KINDS`: Type 3 kinds held out of training. `OOD_STYLE`: another rendering and another noise."""

    PRETRAIN = "pretrain"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    OOD_KINDS = "ood_kinds"
    OOD_STYLE = "ood_style"

    @property
    def buckets(self) -> range:
        """Of `Scene.bucket`, out of twenty."""
        return _PLAN[self].buckets

    @property
    def glyphs(self) -> tuple[int, ...]:
        """Glyph ranks, modulo twenty, that the split may show."""
        return _PLAN[self].glyphs


@dataclasses.dataclass(frozen=True)
class _Plan:
    buckets: range
    glyphs: tuple[int, ...]


_PLAN = {
    Split.PRETRAIN: _Plan(
        range(10), tuple(range(20))
    ),  # experience decides what is known, so it sees every glyph
    Split.TRAIN: _Plan(range(10, 14), (0, 2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18)),
    Split.VALIDATION: _Plan(range(14, 15), (1, 11)),
    Split.TEST: _Plan(range(15, 18), (3, 7, 13, 17)),
    Split.OOD_KINDS: _Plan(range(18, 19), (9,)),
    Split.OOD_STYLE: _Plan(range(19, 20), (19,)),
}
