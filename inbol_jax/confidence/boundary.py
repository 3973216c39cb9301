"""From counts of correct samples to Known, Mixed and Unknown, and to the standard record of Figure 2."""

import dataclasses

from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, BoundaryRecord


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Where the classes part (Figure 3). The values are our decision: the paper's captions name the symbols alone.

    Attributes:
      delta_k: Known from this confidence on.
      delta_uk: Unknown up to this confidence.
    """

    delta_k: float = 0.7
    delta_uk: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.delta_uk < self.delta_k <= 1:
            raise InbolError(
                f"thresholds need 0 <= delta-uk < delta-k <= 1, not {self.delta_uk} and {self.delta_k}"
            )


def classify(n_correct: float, n_samples: int, thresholds: Thresholds) -> Boundary:
    """The class of an answerable question; a confidence that is no count comes as that of one sample.

    With slack for rounding: 7 of 10 is Known at 0.7, whatever 0.7 is in binary.
    """
    slack = 1e-9 * n_samples
    if n_correct >= thresholds.delta_k * n_samples - slack:
        return Boundary.KNOWN
    if n_correct <= thresholds.delta_uk * n_samples + slack:
        return Boundary.UNKNOWN
    return Boundary.MIXED


def question_type(boundary: Boundary, *, answerable: bool | None) -> int | None:
    """1, 2 or 3 as in Figure 1 of the paper; None for Mixed."""
    return (
        3
        if answerable is False
        else {Boundary.KNOWN: 1, Boundary.UNKNOWN: 2, Boundary.MIXED: None}[boundary]
    )


def within_noise(record: BoundaryRecord, thresholds: Thresholds) -> bool:
    """Whether a threshold lies inside the Wilson interval: with as few samples the class could as well be the next one."""
    return any(record.wilson_low < t < record.wilson_high for t in dataclasses.astuple(thresholds))
