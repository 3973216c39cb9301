"""Preference pairs (Figure 3): correct, incorrect and refusal responses of a question, paired by what the user would rather have."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from inbol_jax.construction.templates import RefusalMix
from inbol_jax.records import Boundary, BoundaryRecord, PairKind, Preference, Response

# Figure 3 pairs responses "based on the confidence classification of each question"; which classes get which pairs is our decision.
# A correct response is never preferred on an Unknown question: it would teach to guess, the anchor of CA-DPO above all.
KINDS: dict[Boundary, tuple[PairKind, ...]] = {
    Boundary.KNOWN: (PairKind.CORRECT_OVER_REFUSAL, PairKind.CORRECT_OVER_INCORRECT),
    Boundary.MIXED: (
        PairKind.CORRECT_OVER_REFUSAL,
        PairKind.CORRECT_OVER_INCORRECT,
        PairKind.REFUSAL_OVER_INCORRECT,
    ),
    Boundary.UNKNOWN: (PairKind.REFUSAL_OVER_INCORRECT,),
}


def make_preferences(
    records: Iterable[BoundaryRecord],
    refusals: RefusalMix,
    seed: int,
    *,
    pairs: int = 1,
    negatives: Callable[[BoundaryRecord], Sequence[Response]] | None = None,
) -> Iterator[Preference]:
    """The pairs of each record's class, as far as the responses for them exist; Type 3 gives refusal > answer.

    Incorrect responses are drawn in proportion to how often they were given. Depends on each record alone, not on their order.

    Args:
      pairs: of each kind a question, no two alike: with other incorrect responses or refusals as far as there are.
      negatives: the incorrect responses to draw from, where they are not the record's own (`negatives.Negatives`).
    """
    for record in records:
        key = f"{seed}:{record.id}"
        rng = np.random.default_rng(
            int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        )
        incorrect = _draw(record.incorrect if negatives is None else negatives(record), rng, pairs)
        # What can be said of the question itself keeps the key of its instruction: both teach the same refusal.
        said = [refusals.pick(f"{key}:{i}" if i else key, record.type) for i in range(pairs)]
        correct = [record.correct[0].text] * pairs if record.correct else []
        sides = {
            PairKind.CORRECT_OVER_REFUSAL: (correct, said),
            PairKind.CORRECT_OVER_INCORRECT: (correct, incorrect),
            PairKind.REFUSAL_OVER_INCORRECT: (said, incorrect),
            PairKind.REFUSAL_OVER_ANSWER: (said, incorrect),
        }
        for kind in (PairKind.REFUSAL_OVER_ANSWER,) if record.type == 3 else KINDS[record.boundary]:
            for chosen, rejected in dict.fromkeys(
                zip(*sides[kind], strict=False)
            ):  # as many as the shorter side has
                if chosen and rejected and chosen != rejected:
                    yield Preference(
                        record.id,
                        record.image,
                        record.question,
                        chosen,
                        rejected,
                        kind,
                        record.confidence,
                        record.type,
                    )


def _draw(responses: Sequence[Response], rng: np.random.Generator, n: int) -> list[str]:
    """Up to n different ones, each in proportion to its count among those that are left."""
    sampled = [r for r in responses if r.count and r.text]
    drawn = []
    while sampled and len(drawn) < n:
        weights = np.array([r.count for r in sampled], float)
        drawn.append(sampled.pop(int(rng.choice(len(sampled), p=weights / weights.sum()))).text)
    return drawn
