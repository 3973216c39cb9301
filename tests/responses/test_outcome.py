import pytest

from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome

TEN = ("red",) * 10
NOT_SHOWN = "The dog's leash is not visible."


@pytest.mark.parametrize(
    ("example", "text", "expected"),
    [
        (VQAExample("q", "a.png", "Which?", TEN), "red", "correct"),
        (VQAExample("q", "a.png", "Which?", TEN), "blue", "wrong"),
        (VQAExample("q", "a.png", "Which?", TEN), "I don't know", "refused"),
        (VQAExample("q", "a.png", "How many?", ("200",), metric="numeric"), "about 204", "correct"),
        (VQAExample("q", "a.png", "How many?", ("200",), metric="numeric:0.01"), "204", "wrong"),
        # Nothing is correct without gold answers, nor on Type 3, whatever annotators answered.
        (VQAExample("q", "a.png", "Which?"), "red", "wrong"),
        (VQAExample("q", "a.png", "Which?", TEN, answerable=False), "red", "wrong"),
        (VQAExample("q", "a.png", "Which?", TEN, answerable=False), "unanswerable", "refused"),
        # A refusal is never correct, even if it is the gold answer.
        (VQAExample("q", "a.png", "Which?", ("unanswerable",) * 10), "unanswerable", "refused"),
        # In a yes/no set, what is not shown is answered: no.
        (VQAExample("q", "a.png", "A dog?", ("no",), metric="yes_no"), NOT_SHOWN, "correct"),
        (VQAExample("q", "a.png", "A dog?", ("yes",), metric="yes_no"), NOT_SHOWN, "wrong"),
        (VQAExample("q", "a.png", "A dog?", ("No",) * 9 + ("yes",)), NOT_SHOWN, "wrong"),
        (VQAExample("q", "a.png", "A dog?", ("no",), metric="yes_no"), "I can't tell.", "refused"),
        (VQAExample("q", "a.png", "Whose?", TEN), NOT_SHOWN, "refused"),
        (VQAExample("q", "a.png", "A dog?", ("no",), answerable=False), NOT_SHOWN, "refused"),
    ],
)
def test_outcome(example, text, expected):
    assert outcome(example, text) == expected
