"""The outcome of a response: correct, wrong or refused."""

from inbol_jax.records import VQAExample
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.refusal import is_refusal


def outcome(example: VQAExample, text: str) -> str:
    """Returns "correct", "wrong" or "refused", by the example's own metric.

    A refusal is never correct and never wrong. To a Type 3 question every other response is wrong,
    also if annotators ventured an answer (VizWiz has such questions).
    """
    if is_refusal(text):
        return "refused"
    if example.answerable is False or not example.answers:
        return "wrong"
    return "correct" if score(text, example.answers, example.metric) >= CORRECT_AT else "wrong"
