"""Whether the gold answers of a question score right when they are given as responses."""

from collections import Counter

from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.responses.vqa_accuracy import answer_key

# Why gold answers do not score right, by metric.
_CAUSES = {
    "vqa": "answers are alternatives, not ten votes (import --metric inclusion)",
    "yes_no": "gold answer neither yes nor no (import --metric inclusion)",
    "choice": "gold answer reads as no option, or as another one",
}


def fault_of_gold(example: VQAExample) -> str | None:
    """Why a gold answer of a question does not score right, None if all of them do.

    Every alternative is asked; of votes, for the metric `vqa`, the most frequent one. A question
    without gold answers and one of Type 3 have nothing to score.
    """
    answers = [answer for answer in example.answers if answer.strip()]
    if example.answerable is False or not answers:
        return None
    if example.metric == "vqa":
        votes = Counter(map(answer_key, answers))
        answers = [max(answers, key=lambda answer: votes[answer_key(answer)])]
    outcomes = {outcome(example, answer) for answer in answers}
    if "refused" in outcomes:
        return "gold answer reads as a refusal"
    cause = _CAUSES.get(example.metric, "gold answer does not score")
    return cause if "wrong" in outcomes else None
