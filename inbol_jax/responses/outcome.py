"""The outcome of a response: correct, wrong or refused."""

from inbol_jax.records import VQAExample
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.refusal import is_refusal

_YES_NO = ({"yes"}, {"no"}, {"yes", "no"})  # what all gold answers of such a question are


def outcome(example: VQAExample, text: str) -> str:
    """Returns "correct", "wrong" or "refused", by the example's own metric.

    A refusal is never correct and never wrong. To a Type 3 question every other response is wrong,
    also if annotators ventured an answer (VizWiz has such questions). To a yes/no question a
    response that only says what the image does not show is an answer: no.
    """
    yes_no = example.metric == "yes_no" or set(map(str.lower, example.answers)) in _YES_NO
    if is_refusal(text, yes_no and example.answerable is not False):
        return "refused"
    if example.answerable is False or not example.answers:
        return "wrong"
    return "correct" if score(text, example.answers, example.metric) >= CORRECT_AT else "wrong"
