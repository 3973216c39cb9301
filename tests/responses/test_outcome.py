import pytest

from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome

TEN = ("red",) * 10
IMAGE = ("a.png",)
MOST_SAY_NO = ("No",) * 9 + ("yes",)
NOT_SHOWN = "The dog's leash is not visible."


@pytest.mark.parametrize(
    ("example", "text", "expected"),
    [
        (VQAExample("q", IMAGE, "Which?", TEN), "red", "correct"),
        (VQAExample("q", IMAGE, "Which?", TEN), "blue", "wrong"),
        (VQAExample("q", IMAGE, "Which?", TEN), "I don't know", "refused"),
        (
            VQAExample("q", IMAGE, "How many?", ("200",), metric="numeric"),
            "about 204",
            "correct",
        ),
        (VQAExample("q", IMAGE, "How many?", ("200",), metric="numeric"), "214", "wrong"),
        # Nothing is correct without gold answers, nor on Type 3, whatever annotators answered.
        (VQAExample("q", IMAGE, "Which?"), "red", "wrong"),
        (VQAExample("q", IMAGE, "Which?", TEN, answerable=False), "red", "wrong"),
        (VQAExample("q", IMAGE, "Which?", TEN, answerable=False), "unanswerable", "refused"),
        (VQAExample("q", IMAGE, "Which?", answerable=False), "", "wrong"),
        # A refusal is never correct, even if it is the gold answer.
        (VQAExample("q", IMAGE, "Which?", ("unanswerable",) * 10), "unanswerable", "refused"),
        # In a yes/no set, what is not shown is answered: no.
        (VQAExample("q", IMAGE, "A dog?", ("no",), metric="yes_no"), NOT_SHOWN, "correct"),
        (VQAExample("q", IMAGE, "A dog?", ("yes",), metric="yes_no"), NOT_SHOWN, "wrong"),
        (
            VQAExample("q", IMAGE, "A dog?", ("No",) * 5 + ("yes",), metric="vqa"),
            NOT_SHOWN,
            "wrong",
        ),
        (
            VQAExample("q", IMAGE, "A dog?", ("no",), metric="yes_no"),
            "I can't tell.",
            "refused",
        ),
        (VQAExample("q", IMAGE, "Whose?", TEN), NOT_SHOWN, "refused"),
        (VQAExample("q", IMAGE, "A dog?", ("no",), answerable=False), NOT_SHOWN, "refused"),
    ],
)
def test_outcome(example, text, expected):
    assert outcome(example, text) == expected


NO_BOAT = "There is no boat in the image."


@pytest.mark.parametrize(
    ("question", "answers", "answerable", "metric", "expected"),
    [
        ("What colour is the boat?", (), False, "vqa", "refused"),
        ("Is the boat red or blue?", (), False, "vqa", "refused"),
        ("Can you tell me the boat's name?", (), False, "vqa", "refused"),
        # Where the question can be answered, the denial is an answer, and a wrong one.
        ("What colour is the boat?", TEN, True, "vqa", "wrong"),
        ("What colour is the boat?", ("no boat",), True, "vqa", "wrong"),
        # To a yes/no question it is an answer: no.
        ("Is there a boat behind the wall?", (), False, "vqa", "wrong"),
        ("In this image, is the boat red or not?", (), False, "vqa", "wrong"),
        ("The boat is red?", (), False, "yes_no", "wrong"),
        ("Is there a boat?", ("no",), True, "yes_no", "correct"),
    ],
)
def test_who_denies_the_premise_refuses_a_question_of_type_3(
    question, answers, answerable, metric, expected
):
    example = VQAExample("q", IMAGE, question, answers, answerable, metric=metric)
    assert outcome(example, NO_BOAT) == expected


def choice(answers, *options, answerable=True):
    about = {"answerable": answerable, "metric": "choice", "options": options}
    return VQAExample("q", IMAGE, "Which?", answers, **about)


KNOWN = choice(("B",), "red", "It cannot be determined")
ABSENT = choice((), "red", "blue", answerable=False)
TOLD = choice(("F",), "red", "blue", answerable=False)
OFFERED = choice(("C",), "red", "blue", "None of the above", answerable=False)


@pytest.mark.parametrize(
    ("example", "text", "expected"),
    [
        # Who chooses an option answers, whatever its words; who cannot tell between them refuses.
        (KNOWN, "B", "correct"),
        (KNOWN, "It cannot be determined.", "correct"),
        (KNOWN, "A", "wrong"),
        (KNOWN, "I cannot tell whether it is red.", "refused"),
        (KNOWN, "None of the above", "wrong"),
        (choice(("A",), "yes", "no"), "I can't tell.", "refused"),
        (choice(("B",), "yes", "no"), NOT_SHOWN, "correct"),
        (choice((), "red", "blue", answerable=None), "A", "wrong"),
        # On Type 3 no option is right, which is a refusal; an option that says so is one too.
        (ABSENT, "A", "wrong"),
        (ABSENT, "F. None of the above", "refused"),
        (ABSENT, "All options are incorrect.", "refused"),
        (ABSENT, "The image and question are irrelevant.", "refused"),
        (ABSENT, "I don't know.", "refused"),
        (ABSENT, "green", "wrong"),
        (ABSENT, "None of the people wear red.", "wrong"),
        (OFFERED, "C", "refused"),
        (OFFERED, "none of the above", "refused"),
        (OFFERED, "B. blue", "wrong"),
        (VQAExample("q", IMAGE, "Which?", (), False), "None of the above", "wrong"),
        # Nor is a gold answer that is not offered: what to say where no option is right.
        (TOLD, "F", "refused"),
        (TOLD, "(f)", "refused"),
        (TOLD, "B", "wrong"),
        (ABSENT, "F", "wrong"),
    ],
)
def test_outcome_of_multiple_choice(example, text, expected):
    assert outcome(example, text) == expected
