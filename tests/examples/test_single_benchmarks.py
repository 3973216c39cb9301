"""POPE's F1 and accuracy of pairs (MME, MM-UPD), against the official definitions."""

import runpy
from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_predictions import prediction

from inbol_jax.artifacts import write_jsonl
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples/single_benchmarks.py"))


def yes_no(said, model="m", metric="yes_no"):
    """Predictions of (gold, response)."""
    made = []
    for i, (gold, text) in enumerate(said):
        example = VQAExample(str(i), "a.png", "Is there a dog?", (gold,), True, metric=metric)
        fields = {"dataset": "POPE", "model": model, "answers": (gold,), "metric": metric}
        made.append(prediction(i, outcome(example, text), prediction=text, **fields))
    return made


def test_refusing_what_is_wrong_does_not_pass_for_knowing(tmp_path, capsys):
    """If a model refuses its 20 wrong answers of 100, no answer has become correct, but F1 is 1."""
    right = [("yes", "yes"), ("no", "no")] * 40
    answering = yes_no([*right, *[("yes", "no"), ("no", "yes")] * 10], "answers")
    refused = [("yes", "I don't know"), ("no", "I don't know")] * 10
    made = [*answering, *yes_no([*right, *refused], "refuses")]
    write_jsonl(tmp_path / "predictions.jsonl", (p.to_json() for p in made), {})
    EXAMPLE["main"](tmp_path / "predictions.jsonl")
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header[0] == "Set, model"
    assert rows == [
        ["POPE, answers", "100", "80.0%", "20.0%", "0.0%", "0.800", "0.800"],
        ["POPE, refuses", "100", "80.0%", "0.0%", "20.0%", "1.000", f"{2 * 50 / 110:.3f}"],
    ]


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
    assert EXAMPLE["word_rule"](text) == read


def test_other_sets_are_left_out():
    rows = EXAMPLE["yes_no_rows"]
    assert rows(yes_no([("yes", "yes")], metric="vqa")) == []
    [only] = yes_no([("yes", "yes")])
    assert rows([only])
    assert rows([msgspec.structs.replace(only, answers=())]) == []


def mme_scores(predictions):
    """{category: (acc, acc+)} as MME's evaluation defines them: any response but yes or no is
    wrong, and a picture counts if both of its questions are right."""
    categories = defaultdict(lambda: defaultdict(list))
    for p in predictions:
        said = p.prediction.lower()
        categories[p.kind][p.pair].append(said in ("yes", "no") and said == p.answers[0].lower())
    scores = {}
    for kind, pairs in categories.items():
        answers = [right for pair in pairs.values() for right in pair]
        scores[kind] = np.mean(answers), np.mean([all(pair) for pair in pairs.values()])
    return scores


def test_mme_agrees_with_its_definition():
    random = np.random.default_rng(0)
    predictions = []
    for i in range(60):
        gold, said = ("Yes", "No")[i % 2], ("Yes", "No", "I don't know")[random.integers(3)]
        outcome = "refused" if said[0] == "I" else "correct" if said == gold else "wrong"
        about = {"answers": (gold,), "prediction": said, "metric": "yes_no", "dataset": "MME"}
        about |= {"kind": ("OCR", "count")[i // 2 % 2], "pair": f"{i // 2}.png"}
        predictions.append(prediction(i, outcome, **about))
    rows = {name: cells for name, *cells in EXAMPLE["pair_rows"](predictions)}
    for kind, (acc, acc_plus) in mme_scores(predictions).items():
        assert rows[f"MME, base, {kind}"] == ["15", f"{acc:.1%}", f"{acc_plus:.1%}"]
    assert rows["MME, base, all"][0] == "30"
    assert len(rows) == 3


def test_dual_accuracy_needs_an_answer_and_a_refusal():
    """MM-UPD: a refusal is right only where there is no answer."""

    def pair(name, standard, unanswerable):
        about = {"pair": name, "kind": ""}
        return [
            prediction(f"{name}s", standard, **about),
            prediction(f"{name}u", unanswerable, type=3, **about),
        ]

    predictions = pair("1", "correct", "refused") + pair("2", "correct", "wrong")
    predictions += pair("3", "refused", "refused") + pair("4", "wrong", "wrong")
    predictions += pair("5", "correct", "refused")[:1]  # its partner was set aside
    predictions.append(prediction(9, "correct"))
    rows = EXAMPLE["pair_rows"]
    assert rows(predictions) == [("in_domain, base, all", "4", "50.0%", "25.0%")]
    assert rows(predictions[-2:]) == []
