"""Preference pairs (Figure 3): correct, incorrect and refusal responses, paired by class."""

from collections.abc import Sequence

import numpy as np

from inbol_jax.artifacts import hash64
from inbol_jax.prompts import Prompt
from inbol_jax.records import Boundary, BoundaryRecord, PairKind, Preference, Response
from inbol_jax.taught_refusals import pick_refusal

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
    record: BoundaryRecord, prompt: Prompt, templates: str, seed: int
) -> list[Preference]:
    """The pairs of the record's class, one of each kind, as far as there are responses for them.

    An incorrect response is drawn in proportion to how often it was given.
    """
    key = f"{seed}:{record.id}"
    # By the key of the question's instruction: both teach the same refusal.
    refusal = pick_refusal(templates, key, record.type, pictured=bool(record.images))
    correct = record.correct[0].text if record.correct else ""
    wrong = _draw(record.incorrect, key)
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
    pairs = ((kind, *sides[kind]) for kind in kinds)
    return [
        Preference(**question, chosen=chosen, rejected=rejected, kind=kind)
        for kind, chosen, rejected in pairs
        if chosen and rejected and chosen != rejected
    ]


def _draw(responses: Sequence[Response], key: str) -> str:
    """One of the responses that were given, in proportion to its count; empty if there is none."""
    given = [r for r in responses if r.count and r.text]
    if not given:
        return ""
    weights = np.array([r.count for r in given], float)
    chosen = np.random.default_rng(hash64(key)).choice(len(given), p=weights / weights.sum())
    return given[chosen].text
