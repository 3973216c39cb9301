import pytest
from made_predictions import good_and_bad, prediction

from inbol_jax.artifacts import write_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.metrics import summarise
from inbol_jax.evaluation.prediction import OUTCOMES, Prediction, read_predictions

FORCED = {"prediction": "red", "outcome": "wrong", "logprob": -1.5, "logodds": 0.5, "margin": 0.25}
LINE = {
    "id": "q1",
    "dataset": "test",
    "domain": "in_domain",
    "model": "base",
    "images": ["1.png"],
    "question": "What colour is it?",
    "answers": ["red"],
    "type": None,
    "kind": "colour",
    "confidence": 0.5,
    "prediction": "red",
    "outcome": "correct",
    "forced": FORCED,
    "consistency": 0.5,
    "p_true": 0.0,
}


def test_a_line_keeps_its_columns():
    read = Prediction.from_json(LINE)
    assert (read.kind, read.prediction) == ("colour", "red")
    assert {name: value for name, value in read.to_json().items() if name in LINE} == LINE


def test_predictions_are_the_same_when_read_from_disk(tmp_path):
    made = good_and_bad(8)
    made.append(prediction(98, "correct", images=("a.png", "b.png"), options=("red", "blue")))
    made.append(prediction(99, "correct", images=()))
    write_jsonl(tmp_path / "predictions.jsonl", (p.to_json() for p in made), {})
    read = read_predictions(tmp_path / "predictions.jsonl")
    assert read == made
    assert summarise(read) == summarise(made)


def test_impossible_lines_are_named(tmp_path):
    write_jsonl(tmp_path / "p.jsonl", [LINE, LINE | {"forced": FORCED | {"outcome": "dunno"}}], {})
    with pytest.raises(InbolError, match=r"p.jsonl:2: Invalid enum value 'dunno' - at `\$.forced"):
        read_predictions(tmp_path / "p.jsonl")


def test_columns_of_the_dataset_may_hold_anything():
    line = LINE | {"pair": 0, "kind": None, "colours": 3}
    assert (Prediction.from_json(line).pair, Prediction.from_json(line).kind) == ("0", "")


def test_user_value_is_the_table_of_the_method():
    for type in (1, 2, None):
        assert [prediction(1, o, type).user_value for o in OUTCOMES] == [1, 0, -1]
    assert [prediction(1, o, 3).user_value for o in OUTCOMES] == [-1, 1, -1]
