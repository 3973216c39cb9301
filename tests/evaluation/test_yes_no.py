import pytest
from made_predictions import prediction
from msgspec.structs import replace

from inbol_jax.evaluation.yes_no import word_rule, yes_no_table
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome


def predictions(said, model="m", metric="yes_no"):
    """Predictions of (gold, response)."""
    made = []
    for i, (gold, text) in enumerate(said):
        example = VQAExample(str(i), ("a.png",), "Is there a dog?", (gold,), True, metric=metric)
        fields = {"dataset": "POPE", "model": model, "answers": (gold,), "metric": metric}
        made.append(prediction(i, outcome(example, text), prediction=text, **fields))
    return made


def test_refusing_what_is_wrong_does_not_pass_for_knowing():
    """If a model refuses its 20 wrong answers of 100, no answer has become correct, but F1 is 1."""
    right = [("yes", "yes"), ("no", "no")] * 40
    answering = predictions([*right, *[("yes", "no"), ("no", "yes")] * 10], "answers")
    refused = [("yes", "I don't know"), ("no", "I don't know")] * 10
    refusing = predictions([*right, *refused], "refuses")
    table = yes_no_table([*answering, *refusing])
    assert table.rows == [
        ("POPE, answers", "100", "80.0%", "20.0%", "0.0%", "0.800", "0.800"),
        ("POPE, refuses", "100", "80.0%", "0.0%", "20.0%", "1.000", f"{2 * 50 / 110:.3f}"),
    ]


def test_responses_in_sentences_and_neither():
    said = [("yes", "Yes, there is."), ("no", "There is no dog."), ("no", "a cat"), ("yes", "dog")]
    table = yes_no_table(predictions(said))
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
    assert yes_no_table(predictions([("yes", "yes")], metric="vqa")) is None
    [only] = predictions([("yes", "yes")])
    assert yes_no_table([only])
    assert yes_no_table([replace(only, answers=())]) is None
    assert yes_no_table([prediction(1, "correct", answers=("yes",), prediction="yes")]) is None
