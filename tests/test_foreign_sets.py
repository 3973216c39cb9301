"""From raw files to a report, by the commands of docs/own-test-set.md, on sets that nobody here
drew: questions with options, about two pictures, and about text alone go through every stage.
"""

import json
import re
import shlex
from pathlib import Path

import pytest
from foreign_sets import write_charts, write_digits

from inbol_jax.artifacts import read_jsonl, write_jsonl
from inbol_jax.cli import main
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.evaluation.prediction import read_predictions
from inbol_jax.prompts import BARE
from inbol_jax.records import BoundaryRecord, Instruction
from inbol_jax.training.config import SftConfig
from inbol_jax.training.sft import sft

PAGE = Path(__file__).parent.parent / "docs/own-test-set.md"


def commands(block):
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def train_a_model_that_knows_something(base, model):
    """Puts it where the page has the user's own model: it knows a third of the answers."""
    data = load_dataset_folder(Path("sets/train"))
    lessons = [
        Instruction(images=e.images, question=BARE.text(e), response=e.answers[0])
        for e in data.examples[::3]
    ]
    write_jsonl(Path("lessons.jsonl"), (x.to_json() for x in lessons), {"images": "raw"})
    options = {"epochs": 60, "learning_rate": 5e-3, "batch_size": len(lessons), "buckets": 1}
    options |= {"data": Path("lessons.jsonl"), "out": Path("base"), "model": base}
    sft(SftConfig.from_options(**options))
    Path("base/model").rename(model)


@pytest.mark.usefixtures("one_length")
@pytest.mark.parametrize("draw", [write_charts, pytest.param(write_digits, marks=pytest.mark.slow)])
def test_from_raw_files_to_a_report(micro, tmp_path, monkeypatch, draw, capsys):
    monkeypatch.chdir(tmp_path)
    draw(Path("raw"), {"train": 8, "test": 3})
    first, *others = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for words in commands(first):
        assert main(words[1:]) == 0, words
    train_a_model_that_knows_something(micro.path, "my-model")
    capsys.readouterr()
    for words in (words for block in others for words in commands(block)):
        once = ["--epochs", "1", "--buckets", "1"] if words[1] in ("sft", "dpo") else []
        assert main([*words[1:], *once]) == 0, words
    said = capsys.readouterr().out

    examples = {e.id: e for e in load_dataset_folder(Path("sets/test")).examples}
    predictions = read_predictions(Path("run/eval/predictions.jsonl"))
    assert {p.model for p in predictions} == {"base", "idk_it", "ca_dpo"}
    asked = {p.id: p for p in predictions if p.dataset == "test"}
    assert asked.keys() == examples.keys()
    assert all(p.images == examples[p.id].images for p in asked.values())
    assert any(p.options for p in asked.values())
    records = list(read_jsonl(Path("run/records.jsonl"), BoundaryRecord.from_json))
    lines = {x.id: x for x in read_jsonl(Path("run/instructions.jsonl"), Instruction.from_json)}
    chosen = [record for record in records if record.options and record.id in lines]
    assert chosen
    assert all(lines[record.id].question == BARE.text(record) for record in chosen)
    if draw is write_charts:
        assert {len(p.images) for p in asked.values()} == {0, 1, 2}
        assert {len(record.images) for record in records} == {0, 1, 2}
        assert "15 questions about several images, or none, are left out" in said
        report = Path("run/eval/report.html").read_text()
        assert "A. the first; B. the second" in report
    assert json.loads(Path("run/eval/metrics.json").read_text())["models"].keys() == {
        "base",
        "idk_it",
        "ca_dpo",
        "always_refuse",
        "oracle",
    }
