"""Options of `inbol world export`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from inbol_jax.defaults import Bounded, Bounds, NumRows, Seed
from inbol_jax.errors import InbolError
from inbol_jax.world.splits import Split


@dataclasses.dataclass(frozen=True)
class ExportConfig(Bounded):
    """Write a split of the embedded world as a VQA dataset: images and data.jsonl."""

    out: Path
    """Folder to write."""
    split: Split = Split.TRAIN
    """Part of the world. No two of them share a scene or a glyph."""
    n: NumRows = 1000
    """Answerable questions. `ood_kinds` has none; there it is the number of Type 3 questions."""
    type3: Annotated[float | None, Bounds(0, 100)] = None
    """Type 3 questions per answerable question. The default is 0.5; it is 0 for the split train,
    whose Type 3 questions come from `inbol extrinsic`, and for ood_knowledge."""
    seed: Seed = 0
    """Another seed gives other scenes; the splits stay apart."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split is Split.PRETRAIN:
            raise InbolError(
                "--split pretrain is an endless stream; benchmarks/pretrain.py reads it"
            )

    @property
    def type3_per_answerable(self) -> float:
        """`type3`, or its default."""
        if self.type3 is not None:
            return self.type3
        return 0.0 if self.split in (Split.TRAIN, Split.OOD_KNOWLEDGE) else 0.5
