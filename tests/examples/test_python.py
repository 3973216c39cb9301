"""The examples of the Python interface, run as scripts are."""

import json
import runpy
import sys
from pathlib import Path

from inbol_jax.data.vqa import load_dataset_folder

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_a_model_is_asked(small_world, monkeypatch, capsys):
    dataset = load_dataset_folder(small_world / "test")
    example = next(e for e in dataset.examples if e.answerable is not False)
    picture = dataset.root / example.images[0]
    about = ("--picture", picture, "--question", example.question)
    run(monkeypatch, "ask.py", *about, "--answers", example.answers[0])
    said = capsys.readouterr().out
    for part in ("refused: ", "chance of refusing: 0.", "ten samples: ", "confidence: "):
        assert part in said


def test_a_log_is_scored_and_what_it_lacks_is_said(small_world, tmp_path, monkeypatch, capsys):
    dataset = load_dataset_folder(small_world / "test")
    lines = [
        {
            "id": e.id,
            "prediction": e.answers[0] if e.answers else "I don't know.",
            "answers": ["nonsense"],
        }
        for e in dataset.examples[1:]
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(x) + "\n" for x in [*lines, {"id": "?", "prediction": ""}]))
    run(monkeypatch, "score_log.py", "--data", small_world / "test", "--log", log)
    said = capsys.readouterr().out
    assert "no question of the dataset: 1, the first is ?" in said
    assert f"no answer: 1, the first is {dataset.examples[0].id}" in said
    assert f"model all: n {len(lines)}, Acc" in said
    assert "T +1.000" in said
