"""Options of `inbol build`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.defaults import Bounded, Bounds, Seed
from inbol_jax.taught_refusals import refusals_of


@dataclasses.dataclass(frozen=True)
class BuildConfig(Bounded):
    """Turn sampled confidences into boundary records, IDK instructions and preference pairs."""

    out: Path
    """Reads OUT/confidence/*.jsonl; writes records.jsonl, instructions.jsonl and preferences.jsonl
    to OUT."""
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    """Confidence thresholds that separate Known, Mixed and Unknown."""
    templates: str = "one"
    """Refusals to teach: "one" (I don't know.), the four "short" ones, the "long" ones, those that
    give the "reason" which fits the type of the question, or "all"."""
    estimator: str = "accuracy"
    """Estimator of the confidence: "accuracy" against the gold answers, or "consistency" or
    "likelihood" of the samples."""
    max_refusals: Annotated[float, Bounds(above=0, most=1)] = 0.5
    """The largest share of refusals among the instructions. The questions of surplus ones are left
    out, as many of Type 2 as of Type 3 in proportion; 1 keeps all."""
    partial: bool = False
    """Use unfinished stores as they are."""
    seed: Seed = 0
    """Seed of the choice of refusals, of incorrect responses, and of what is left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refusals_of(self.templates)  # raises if there are none
