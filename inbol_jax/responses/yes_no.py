"""Yes or no, as a response says it."""

from collections.abc import Sequence

from inbol_jax.responses.vqa_accuracy import normalize_answer


def read_yes_no(text: str) -> str | None:
    """Reads "yes" or "no" in a response ("There is no dog."); None if it says neither.

    The first word decides, or else the only one of the two in it, or else "not" or "there is".
    """
    words = normalize_answer(text).split()
    mentioned = [word for word in ("yes", "no") if word in words]
    if words and words[0] in mentioned:
        return words[0]
    if len(mentioned) == 1:
        return mentioned[0]
    if "not" in words or any(word.endswith("n't") for word in words):
        return "no"
    return "yes" if words[:2] in (["there", "is"], ["there", "are"]) else None


def yes_no_score(prediction: str, answers: Sequence[str]) -> float:
    """1 if the response and a gold answer both say yes, or both say no; else 0."""
    reading = read_yes_no(prediction)
    return float(reading is not None and reading in map(read_yes_no, answers))
