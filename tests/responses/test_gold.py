import pytest

from inbol_jax.records import VQAExample
from inbol_jax.responses.gold import fault_of_gold

ALIASES = ("US", "USA", "United States", "America")


@pytest.mark.parametrize(
    ("answers", "columns", "fault"),
    [
        (ALIASES, {}, None),
        (ALIASES, {"metric": "vqa"}, "answers are alternatives"),
        (("red",) * 7 + ("blue",) * 3, {"metric": "vqa"}, None),
        (("red", "Red.", "RED", "blue"), {"metric": "vqa"}, None),
        (("a red car",), {"metric": "yes_no"}, "neither yes nor no"),
        (("yes",), {"metric": "yes_no"}, None),
        (("twelve",), {"metric": "numeric"}, None),
        (("unanswerable",), {}, "reads as a refusal"),
        (("red", "I don't know"), {}, "reads as a refusal"),
        (("B",), {"metric": "choice", "options": ("red", "blue")}, None),
        (("-5",), {"metric": "choice", "options": ("5", "-5")}, None),
        (("B",), {"metric": "choice", "options": ("B", "A")}, "another one"),
        (("green",), {"metric": "choice", "options": ("red", "blue")}, "no option"),
        (("green",), {"answerable": False}, None),
        ((), {}, None),
        (("", "red"), {}, None),
    ],
)
def test_gold_answers_are_asked_by_the_question_s_own_metric(answers, columns, fault):
    found = fault_of_gold(VQAExample("q", ("a.png",), "Which?", answers, **columns))
    assert fault in found if fault else found is None, found
