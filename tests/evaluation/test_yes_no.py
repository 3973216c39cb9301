import pytest

from inbol_jax.evaluation.yes_no import word_rule, yes_no_table
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome


def rows(said, model="m", metric="yes_no"):
    """Prediction rows of (gold, response)."""
    found = []
    for i, (gold, text) in enumerate(said):
        example = VQAExample(str(i), "a.png", "Is there a dog?", (gold,), True, metric=metric)
        row = {
            "id": example.id,
            "dataset": "POPE",
            "model": model,
            "answers": [gold],
            "prediction": text,
            "metric": metric,
        }
        found.append(row | {"outcome": outcome(example, text)})
    return found


def test_refusing_what_is_wrong_does_not_pass_for_knowing():
    """80 of 100 right: with the 20 wrong ones refused instead the usual F1 goes to 1, while no answer has become correct."""
    right = [("yes", "yes"), ("no", "no")] * 40
    answering = rows([*right, *[("yes", "no"), ("no", "yes")] * 10], "answers")
    refusing = rows([*right, *[("yes", "I don't know"), ("no", "I don't know")] * 10], "refuses")
    table = yes_no_table([*answering, *refusing])
    assert table.rows == [
        ("POPE, answers", "100", "80.0%", "20.0%", "0.0%", "0.800", "0.800"),
        (
            "POPE, refuses",
            "100",
            "80.0%",
            "0.0%",
            "20.0%",
            "1.000",
            f"{2 * 50 / (2 * 50 + 10):.3f}",
        ),
    ]


def test_responses_in_sentences_and_neither():
    table = yes_no_table(
        rows(
            [("yes", "Yes, there is."), ("no", "There is no dog."), ("no", "a cat"), ("yes", "dog")]
        )
    )
    assert table.rows[0][:6] == ("POPE, m", "4", "50.0%", "50.0%", "0.0%", "0.000")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("No, it is.", "no"),
        ("I do not. Yes", "no"),
        ("I don't know", "yes"),
        ("nothing", "yes"),
        ("", "yes"),
        ("NO", "yes"),
    ],
)
def test_the_word_rule_reads_as_it_was_published(text, read):
    assert word_rule(text) == read


def test_other_sets_are_left_out():
    assert yes_no_table(rows([("yes", "yes")], metric="vqa")) is None
    assert (
        yes_no_table(
            [{k: v for k, v in row.items() if k != "metric"} for row in rows([("yes", "yes")])]
        )
        is None
    )
    assert yes_no_table([row | {"answers": []} for row in rows([("yes", "yes")])]) is None
