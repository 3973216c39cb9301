"""Preference pairs (Figure 3): correct, incorrect and refusal responses of a question, paired by what the user would rather have."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from inbol_jax.records import BoundaryRecord, PairKind, Preference, Response
from inbol_jax.refusal.templates import pick_refusal


def make_preferences(records: Iterable[BoundaryRecord], templates: Sequence[str], seed: int) -> Iterator[Preference]:
    """Up to three pairs a question; which kinds there are follows from what was sampled.

    A question that can be answered gives correct > refusal and correct > incorrect where some sample was correct, and
    refusal > incorrect where some was wrong: Mixed questions give all three, weighted by their confidence in the loss. Type 3
    gives refusal > answer. The incorrect response is drawn in proportion to how often the model gave it.
    Depends on each record alone, not on their order.
    """
    for record in records:
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}:{record.id}".encode()).digest()[:8], "big"))
        refusal = pick_refusal(f"{seed}:{record.id}", templates)
        incorrect = _draw(record.incorrect, rng)
        pairs: list[tuple[str, str | None, PairKind]] = []
        if record.type == 3:
            pairs.append((refusal, incorrect, PairKind.REFUSAL_OVER_ANSWER))
        else:
            pairs.append((refusal, incorrect, PairKind.REFUSAL_OVER_INCORRECT))
            if record.n_correct:
                correct = record.correct[0].text
                pairs += [(correct, refusal, PairKind.CORRECT_OVER_REFUSAL), (correct, incorrect, PairKind.CORRECT_OVER_INCORRECT)]
        for chosen, rejected, kind in pairs:
            if rejected is not None and chosen != rejected:
                yield Preference(record.id, record.image, record.question, chosen, rejected, kind, record.confidence, record.type)


def _draw(responses: Sequence[Response], rng: np.random.Generator) -> str | None:
    sampled = [r for r in responses if r.count and r.text]
    if not sampled:
        return None
    weights = np.array([r.count for r in sampled], float)
    return sampled[int(rng.choice(len(sampled), p=weights / weights.sum()))].text
