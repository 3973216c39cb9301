"""The outcome of a response: correct, wrong or refused."""

import re

from inbol_jax.records import VQAExample
from inbol_jax.responses.choices import choice_score, read_choice
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.refusal import is_refusal

_YES_NO = ({"yes"}, {"no"}, {"yes", "no"})  # what all gold answers of such a question are
# A clause that asks for yes or no, unless the question has an "or": "Is the dog brown or black?"
_ASKS_YES_NO = re.compile(
    r"(?:^|[,;:])\s*(?:is|are|was|were|am|do|does|did|can|could|will|would|has|have|had|should)\b"
    r"(?! you (?:please )?(?:describe|explain|guess|identify|know|name|read|say|tell)\b)",
    re.IGNORECASE,
)
_OR = re.compile(r"\bor\b(?! not\b)", re.IGNORECASE)
# That no option is right: the right response to a question without a right option.
_NO_OPTION = re.compile(
    r"\b(?:none of (?:the|these|those)(?: (?:above|options|choices|answers)|[.!]*$)"
    r"|no(?:ne| (?:correct|right|valid) (?:option|answer|choice))\b(?! of)"
    r"|(?:all|the|these)(?: of the)?(?: given| provided)? (?:options|choices|answers)"
    r" (?:are|seem)(?: all)? (?:incorrect|wrong|irrelevant|incompatible)"
    r"|image and (?:the )?question are (?:irrelevant|incompatible|unrelated)"
    r"|(?:image|question) is (?:irrelevant|incompatible|unrelated))",
    re.IGNORECASE,
)


def premise_of(question: str, metric: str) -> str:
    """The question, if to deny what it takes for granted refuses it, should it be of Type 3; empty
    if it asks for yes or no, which a denial answers.
    """
    asks = _ASKS_YES_NO.search(question) and not _OR.search(question)
    return "" if asks or metric == "yes_no" else question


def outcome(example: VQAExample, text: str) -> str:
    """Returns "correct", "wrong" or "refused", by the example's own metric.

    A refusal is never correct and never wrong. To a Type 3 question every other response is wrong,
    also if annotators ventured an answer (VizWiz has such questions); to deny what such a question
    takes for granted refuses it ("There is no boat." of the boat's colour). To a yes/no question a
    response that only says what the image does not show is an answer: no.

    Who chooses an option does not refuse, whatever its words ("D. It cannot be told"), unless the
    question is of Type 3. There, saying that no option is right is a refusal as well, and so is
    a gold answer that was not offered: the "F" of MM-UPD, for none of the above.
    """
    yes_no = example.metric == "yes_no" or set(map(str.lower, example.answer_texts)) in _YES_NO
    type3, said = example.answerable is False, text
    chosen = read_choice(text, example.options) if example.options else None
    if chosen is not None:
        said = example.options[chosen] if type3 else ""
    premise = premise_of(example.question, example.metric) if type3 else ""
    if is_refusal(said, yes_no and not type3, premise):
        return "refused"
    if type3 and example.options:
        none = chosen is None and choice_score(text, example.answers) >= CORRECT_AT
        if none or _NO_OPTION.search(said):
            return "refused"
    if type3 or not example.answers:
        return "wrong"
    about = example.answers, example.metric, example.options, example.question
    right = score(text, *about) >= CORRECT_AT
    return "correct" if right else "wrong"


def user_value(outcome: str, type3: bool = False) -> int:
    """What a response is worth to the user. This is our definition, not the paper's.

    A correct response is worth +1, a refusal 0 and a wrong response -1. To a question that the
    image cannot answer (Type 3) a refusal is worth +1 and anything else -1. Its mean is T.
    """
    if type3:
        return 1 if outcome == "refused" else -1
    return {"correct": 1, "refused": 0, "wrong": -1}[outcome]
