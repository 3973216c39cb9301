"""Preference pairs (Figure 3): correct, incorrect and refusal responses, paired by class."""

from collections.abc import Sequence

import numpy as np

from inbol_jax.artifacts import hash64
from inbol_jax.construction.templates import RefusalMix
from inbol_jax.prompts import Prompt
from inbol_jax.records import Boundary, BoundaryRecord, PairKind, Preference, Response

# Figure 3 pairs responses "based on the confidence classification of each question"; which pairs
# each class gets is our decision. A correct response to an Unknown question is never preferred:
# that would teach to guess, above all by the NLL term of CA-DPO.
PAIRS_OF_CLASS: dict[Boundary, tuple[PairKind, ...]] = {
    Boundary.KNOWN: (PairKind.CORRECT_OVER_REFUSAL, PairKind.CORRECT_OVER_INCORRECT),
    Boundary.MIXED: (
        PairKind.CORRECT_OVER_REFUSAL,
        PairKind.CORRECT_OVER_INCORRECT,
        PairKind.REFUSAL_OVER_INCORRECT,
    ),
    Boundary.UNKNOWN: (PairKind.REFUSAL_OVER_INCORRECT,),
}


def make_preferences(
    record: BoundaryRecord,
    prompt: Prompt,
    refusals: RefusalMix,
    seed: int,
    *,
    pairs_per_kind: int = 1,
    incorrect: Sequence[Response] | None = None,
) -> list[Preference]:
    """The pairs of the record's class, as far as there are responses for them.

    Incorrect responses are drawn in proportion to how often they were given.

    Args:
      pairs_per_kind: the most pairs of each kind; no two of them are alike.
      incorrect: the incorrect responses to draw from, instead of the record's own.
    """
    key = f"{seed}:{record.id}"
    rng = np.random.default_rng(hash64(key))
    # The first refusal has the key of the question's instruction: both teach the same one.
    keys = [key, *(f"{key}:{i}" for i in range(1, pairs_per_kind))]
    refusal = [refusals.pick(key, record.type, pictured=bool(record.images)) for key in keys]
    correct = [record.correct[0].text] * pairs_per_kind if record.correct else []
    wrong = _draw(record.incorrect if incorrect is None else incorrect, rng, pairs_per_kind)
    sides = {
        PairKind.CORRECT_OVER_REFUSAL: (correct, refusal),
        PairKind.CORRECT_OVER_INCORRECT: (correct, wrong),
        PairKind.REFUSAL_OVER_INCORRECT: (refusal, wrong),
        PairKind.REFUSAL_OVER_ANSWER: (refusal, wrong),
    }
    kinds = PAIRS_OF_CLASS[record.boundary]
    if record.type == 3:
        kinds = (PairKind.REFUSAL_OVER_ANSWER,)
    question = {name: getattr(record, name) for name in ("id", "images", "confidence", "type")}
    question["question"] = prompt.text(record)
    return [
        Preference(**question, chosen=chosen, rejected=rejected, kind=kind)
        for kind in kinds
        # There are as many pairs as the shorter side has responses; equal pairs count once.
        for chosen, rejected in dict.fromkeys(zip(*sides[kind], strict=False))
        if chosen and rejected and chosen != rejected
    ]


def _draw(responses: Sequence[Response], rng: np.random.Generator, n: int) -> list[str]:
    """Up to n different responses, each in proportion to its count among those that are left."""
    left = [r for r in responses if r.count and r.text]
    drawn = []
    while left and len(drawn) < n:
        weights = np.array([r.count for r in left], float)
        chosen = int(rng.choice(len(left), p=weights / weights.sum()))
        drawn.append(left.pop(chosen).text)
    return drawn
