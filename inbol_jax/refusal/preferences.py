"""Preference pairs (Figure 3): correct, incorrect and refusal responses of a question, paired by what the user would rather have."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from inbol_jax.records import Boundary, BoundaryRecord, PairKind, Preference, Response
from inbol_jax.refusal.templates import pick_refusal

# Figure 3 pairs responses "based on the confidence classification of each question"; which classes get which pairs is our decision.
# A correct response is never preferred on an Unknown question: it would teach to guess, the anchor of CA-DPO above all.
KINDS: dict[Boundary, tuple[PairKind, ...]] = {
    Boundary.KNOWN: (PairKind.CORRECT_OVER_REFUSAL, PairKind.CORRECT_OVER_INCORRECT),
    Boundary.MIXED: (PairKind.CORRECT_OVER_REFUSAL, PairKind.CORRECT_OVER_INCORRECT, PairKind.REFUSAL_OVER_INCORRECT),
    Boundary.UNKNOWN: (PairKind.REFUSAL_OVER_INCORRECT,),
}


def make_preferences(records: Iterable[BoundaryRecord], templates: Sequence[str], seed: int) -> Iterator[Preference]:
    """The pairs of each record's class, as far as the responses for them exist; Type 3 gives refusal > answer.

    The incorrect response is drawn in proportion to how often the model gave it. Depends on each record alone, not on their order.
    """
    for record in records:
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}:{record.id}".encode()).digest()[:8], "big"))
        correct = record.correct[0].text if record.correct else None
        incorrect = _draw(record.incorrect, rng)
        refusal = pick_refusal(f"{seed}:{record.id}", templates)
        sides = {
            PairKind.CORRECT_OVER_REFUSAL: (correct, refusal),
            PairKind.CORRECT_OVER_INCORRECT: (correct, incorrect),
            PairKind.REFUSAL_OVER_INCORRECT: (refusal, incorrect),
            PairKind.REFUSAL_OVER_ANSWER: (refusal, incorrect),
        }
        for kind in (PairKind.REFUSAL_OVER_ANSWER,) if record.type == 3 else KINDS[record.boundary]:
            chosen, rejected = sides[kind]
            if chosen and rejected and chosen != rejected:
                yield Preference(record.id, record.image, record.question, chosen, rejected, kind, record.confidence, record.type)


def _draw(responses: Sequence[Response], rng: np.random.Generator) -> str | None:
    sampled = [r for r in responses if r.count and r.text]
    if not sampled:
        return None
    weights = np.array([r.count for r in sampled], float)
    return sampled[int(rng.choice(len(sampled), p=weights / weights.sum()))].text
