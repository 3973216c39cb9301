"""Options of `inbol build`."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.construction.templates import RefusalMix
from inbol_jax.defaults import Bounded, Bounds, NumSamples, Seed
from inbol_jax.errors import InbolError
from inbol_jax.records import PairKind

PAIR_KINDS = {str(kind): kind.number for kind in PairKind}


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
    refusal_mix: tuple[tuple[str, float], ...] = ()
    """Several of these sets with their shares, instead of --templates: one 0.5 reason 0.5."""
    estimator: str = "accuracy"
    """Estimator of the confidence: "accuracy" against the gold answers, "consistency" or
    "likelihood" of the samples, or "p-true"."""
    negatives: Path | None = None
    """Confidence store of the same questions, a .jsonl file or a folder of them. Its incorrect
    responses become the rejected ones instead of the records' own. Give a store that was sampled
    from the IDK-IT model, from which CA-DPO starts."""
    pairs_per_kind: NumSamples = 1  # no two share their incorrect response
    """Maximum number of pairs of each kind per question. No two of them are alike."""
    max_refusals: Annotated[float, Bounds(above=0, most=1)] = 0.6
    """The largest share of refusals among the instructions. The questions of surplus ones are left
    out, as many of Type 2 as of Type 3 in proportion; 1 keeps all. --type-shares is instead of
    it."""
    type_shares: tuple[tuple[int, float], ...] = ()
    """Shares of the types among the questions that instructions and pairs are made of (3 0.2: a
    fifth of them is Type 3). Surplus questions are left out. Mixed ones have no type and stay. A
    question may give several pairs, so the shares of pairs differ."""
    pair_shares: tuple[tuple[str, float], ...] = ()
    """Shares of the kinds of pairs: correct_over_refusal, correct_over_incorrect,
    refusal_over_incorrect, refusal_over_answer."""
    partial: bool = False
    """Use unfinished stores as they are."""
    seed: Seed = 0
    """Seed of the choice of refusals, of incorrect responses, and of what is left out for the
    shares."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refusal_mix and self.templates != BuildConfig.templates:
            raise InbolError("--refusal-mix and --templates: give one of them")
        if self.type_shares and self.max_refusals != BuildConfig.max_refusals:
            raise InbolError("--type-shares and --max-refusals: give one of them")
        _ = self.refusals  # raises if it cannot be
        _check_shares("--type-shares", self.type_shares, (1, 2, 3))
        _check_shares("--pair-shares", self.pair_shares, tuple(PAIR_KINDS))

    @property
    def refusals(self) -> RefusalMix:
        """The refusals that `templates` or `refusal_mix` names."""
        return RefusalMix(self.refusal_mix or ((self.templates, 1.0),))


def _check_shares(
    option: str, shares: Sequence[tuple[Any, float]], groups: tuple[Any, ...]
) -> None:
    """Refuses unknown and repeated groups, and shares that cannot be met."""
    names = ", ".join(map(str, groups))
    for group, share in shares:
        if group not in groups:
            raise InbolError(f"{option} {group}: choose among {names}")
        if not 0 <= share <= 1:
            raise InbolError(f"{option} {group} {share}: a share between 0 and 1 is needed")
    named = {group for group, _ in shares}
    if len(named) < len(shares):
        raise InbolError(f"{option}: one of {names} is there twice")
    total = math.fsum(share for _, share in shares)
    if total > 1 + 1e-6 or (named == set(groups) and total < 1 - 1e-6):
        raise InbolError(
            f"{option}: the shares add up to {total:g}; they must add up to 1, or to less if some "
            "groups are not named"
        )
