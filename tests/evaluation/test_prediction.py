import json

import pytest
from made import good_and_bad, prediction

from inbol_jax.artifacts import write_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.metrics import summarise
from inbol_jax.evaluation.prediction import Prediction, read_predictions

LINE = {
    "id": "q1",
    "dataset": "test",
    "domain": "in_domain",
    "model": "base",
    "image": "1.png",
    "question": "What colour is it?",
    "answers": ["red"],
    "type": None,
    "kind": "colour",
    "confidence": 0.5,
    "prediction": "red",
    "outcome": "correct",
}


@pytest.mark.parametrize("line", [LINE, LINE | {"metric": "yes_no"}])
def test_a_line_keeps_its_columns_and_their_order(line):
    read = Prediction.from_json(line)
    assert json.dumps(read.to_json()) == json.dumps(line)
    assert (read.question_kind, read.response) == ("colour", "red")


def test_predictions_are_the_same_when_read_from_disk(tmp_path):
    made = good_and_bad(8)
    write_jsonl(tmp_path / "predictions.jsonl", (p.to_json() for p in made), {})
    read = read_predictions(tmp_path / "predictions.jsonl")
    assert read == made
    assert summarise(read) == summarise(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "dunno"}, "'dunno' is none of correct"),
        ({"type": 4}, "type 4 is none of 1"),
        ({"domain": "../x"}, "none of in_domain"),
        ({"question": 7}, "a text was expected"),
        ({"answers": ["red", None]}, "a text was expected"),
        ({"answers": None}, "not a line of predictions.jsonl"),
        ({"confidence": "high"}, "'high' is no number"),
        ({"surplus": 1}, "not a line of predictions.jsonl .*surplus"),
    ],
)
def test_impossible_lines_are_named(change, message):
    with pytest.raises(InbolError, match=f"prediction 'q1'.*{message}"):
        Prediction.from_json(LINE | change)


def test_a_missing_column_is_named():
    with pytest.raises(InbolError, match=r"prediction 'q1'.*'image'"):
        Prediction.from_json({column: v for column, v in LINE.items() if column != "image"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"outcome": "dunno"}, "'dunno'"),
        ({"outcome": "wrong", "type": 4}, "type 4"),
        ({"outcome": "wrong", "domain": "../x"}, "none of in_domain"),
    ],
)
def test_no_impossible_prediction_can_be_made(fields, message):
    with pytest.raises(InbolError, match=message):
        prediction(1, **fields)
