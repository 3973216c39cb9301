import importlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbol_jax.responses.inclusion import inclusion_score
from inbol_jax.responses.vqa_accuracy import exact_score

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("name", "precision", "recall"),
    [
        ("answers.tsv", 0.75, 0.95),
        ("answers_unseen.tsv", 0.7, 0.9),
        ("answers_model.tsv", 0.9, 0.95),
    ],
)
def test_precision_and_recall_on_labelled_responses(monkeypatch, name, precision, recall):
    monkeypatch.syspath_prepend(BENCHMARKS)
    labelled = importlib.import_module("answer_inclusion")
    rows = labelled.read(name)
    assert len(rows) > 130
    assert len({row.right for row in rows}) == 2
    shares = labelled.shares(rows)
    for share, floor in (("precision", precision), ("recall", recall)):
        hits, n = shares[share]
        assert hits / n >= floor, [row for row in rows if row.right != row.scored]


COLOURS = st.sampled_from(["red", "Sky Blue", "azul añil", "1,200", "twelve", "E. coli", "the end"])
RIGHT = (
    "{}",
    "{}.",
    "**{}**",
    "It is {}.",
    "It is {}, I think",
    "I believe it's {}",
    "The answer is {}.",
    "The color of the car is {}, not grey.",
    "Not grey but {}",
)
WRONG = (
    "It is not {}",
    "It isn't {}.",
    "Neither {} nor grey",
    "{} or grey",
    "grey or {}",
    "grey, {}",
    "{}, grey, brown",
    "Grey, not {}",
    "{} and grey",
    "grey\n{}",
    "I thought {} but it is grey",
    "",
)
QUESTION = "What color is the car?"


@given(COLOURS, st.lists(COLOURS, max_size=3), st.sampled_from(RIGHT))
def test_any_alternative_in_a_sentence_is_right(answer, others, sentence):
    said = sentence.format(answer)
    assert inclusion_score(said, [answer, *others], QUESTION) == 1
    assert inclusion_score(said, [*others, answer], QUESTION) == 1
    assert inclusion_score(said, ["green"], QUESTION) == 0


@given(COLOURS, st.sampled_from(WRONG))
def test_what_denies_lists_or_only_holds_an_answer_is_wrong(answer, sentence):
    assert inclusion_score(sentence.format(answer), [answer], QUESTION) == 0


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("The city lies in the South China Sea.", 0),
        ("It lies in China.", 1),
        ("Mainland China", 1),
        ("China Daily says so", 1),
    ],
)
def test_an_answer_within_a_longer_name_is_none(said, right):
    assert inclusion_score(said, ["China"], "In which country is Taizhou?") == right


@settings(max_examples=40)
@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=4), st.text(max_size=20))
def test_an_exact_match_is_right_and_scores_are_0_or_1(said, answers, question):
    value = inclusion_score(said, answers, question)
    assert value in (0, 1)
    assert value >= exact_score(said, answers)
    assert inclusion_score(said, answers[::-1], question) == value


@pytest.mark.parametrize(
    "piece", ["a ", "is ", "of ", "city of ", "( ", "red ", "one ", "the, ", " "]
)
def test_time_is_linear_in_the_length(piece):
    """Hours, if a sentence could be read in many ways."""
    assert inclusion_score(piece * 20_000 + "not red", ["red"], QUESTION) in (0, 1)


@pytest.mark.parametrize(
    ("said", "gold", "right"),
    [
        ("Yes, I see one.", "yes", 1),
        ("No.", "yes", 0),
        ("There is no dog.", "no", 1),
        ("Yes and no", "no", 0),
        ("not yes", "no", 0),
    ],
)
def test_yes_and_no_are_read_as_such(said, gold, right):
    assert inclusion_score(said, [gold], "Is there a dog?") == right
