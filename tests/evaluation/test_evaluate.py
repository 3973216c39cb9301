"""The command with a stand-in for the models; tests/test_demo.py runs it with real ones."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from inbol_jax.artifacts import read_meta
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError, printable
from inbol_jax.evaluation import asking
from inbol_jax.evaluation import evaluate as module
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.evaluate import evaluate, predictions
from inbol_jax.evaluation.prediction import read_predictions
from inbol_jax.models.loading import checkpoint_config
from inbol_jax.records import Sample, SampledQuestion, VQAExample

# id -> gold answers (Type 3 has none) and what the base said in two samples
QUESTIONS = {
    "a": (["red"], ("correct", "correct")),
    "b": (["blue"], ("wrong", "correct")),
    "c": ([], ("wrong", "wrong")),
}


@pytest.fixture
def config(monkeypatch, tmp_path):
    """A dataset of three questions, and two models that always say "red"."""
    (tmp_path / "colours").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "colours" / "black.png")
    lines, store = [], []
    for id, (answers, outcomes) in QUESTIONS.items():
        example = VQAExample(id, "black.png", "What colour?", tuple(answers), bool(answers))
        samples = tuple(Sample("red", -1.0, 2, outcome) for outcome in outcomes)
        store.append(SampledQuestion(example, samples))
        lines.append(json.dumps(example.to_json() | {"kind": "colour"}) + "\n")
    (tmp_path / "colours" / "data.jsonl").write_text("".join(lines))

    def generate(checkpoint, examples, images, **options):
        for example in examples:
            yield [(example, [SimpleNamespace(text="red")])]

    def load_pretrained(folder, **options):
        return SimpleNamespace(fingerprint=str(folder), model=SimpleNamespace(dtype=np.dtype("f4")))

    monkeypatch.setattr(module, "estimate", lambda options: None)
    monkeypatch.setattr(module, "read_store", lambda file: store)
    monkeypatch.setattr(module, "load_pretrained", load_pretrained)
    monkeypatch.setattr(module, "checkpoint_config", load_pretrained)
    monkeypatch.setattr(asking, "generate", generate)
    return EvaluateConfig(
        in_domain=(tmp_path / "colours",),
        out=tmp_path / "out",
        models=(("base", tmp_path / "base"), ("tuned", tmp_path / "tuned")),
    )


def test_every_model_answers_every_question(config):
    metrics = evaluate(config)
    predicted = read_predictions(config.out / "predictions.jsonl")
    assert [p.model + p.id for p in predicted] == ["basea", "baseb", "basec"] + [
        f"tuned{id}" for id in QUESTIONS
    ]
    assert {(p.dataset, p.domain) for p in predicted} == {("colours", "in_domain")}
    assert {(p.kind, p.prediction) for p in predicted} == {("colour", "red")}
    base = [(p.type, p.confidence, p.outcome) for p in predicted[:3]]
    assert base == [(1, 1.0, "correct"), (None, 0.5, "wrong"), (3, 0.0, "wrong")]
    assert json.loads((config.out / "metrics.json").read_text()) == metrics.to_json()
    assert {d.diff for d in metrics.differences} == {0.0, None}
    assert list(metrics.seconds) == ["evaluation"]
    for name in ("report.html", "report.md", "figures/summary.png"):
        assert (config.out / name).is_file()


def test_what_was_answered_is_not_asked_again(config, monkeypatch):
    before = predictions(config)
    monkeypatch.setattr(asking, "generate", lambda *_, **__: pytest.fail("asked again"))
    assert predictions(config) == before


def test_what_changed_in_the_dataset_is_asked_or_scored_again(config, monkeypatch, capsys):
    """Answers: scored again. Question or image: asked again. Gone: dropped. Others: as they are."""
    predictions(config)
    asked, generate = [], asking.generate

    def counting(checkpoint, examples, *rest, **options):
        asked.append([example.id for example in examples])
        return generate(checkpoint, examples, *rest, **options)

    monkeypatch.setattr(asking, "generate", counting)
    data = config.in_domain[0] / "data.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]

    def changed():
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        asked.clear()
        return predictions(config)

    rows[1]["answers"], rows[2]["kind"] = ["red"], "shade"
    second = [p for p in changed() if p.model == "tuned"]
    assert [(p.id, p.outcome, p.kind) for p in second] == [
        ("a", "correct", "colour"),
        ("b", "correct", "colour"),
        ("c", "wrong", "shade"),
    ]
    assert asked == []
    assert "2 scored again, as answers or other columns" in capsys.readouterr().out
    rows[1]["question"] = "Which colour?"
    assert {p.question for p in changed() if p.id == "b"} == {"Which colour?"}
    assert asked == [["b"]] * 2
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(data.parent / "black.png")
    changed()
    assert asked == [["a", "b", "c"]] * 2
    del rows[0]
    assert [p.id for p in changed()] == ["b", "c"] * 2
    assert asked == []


def test_a_killed_evaluation_goes_on(config, monkeypatch):
    """The order of the predictions is that of the dataset, whatever was asked first."""
    before = predictions(config)
    file = config.out / "predictions" / "tuned" / "colours.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[2] + lines[0] + lines[1][:20])
    generate = asking.generate

    def only_b(checkpoint, examples, *rest, **options):
        assert [example.id for example in examples] == ["b"]
        return generate(checkpoint, examples, *rest, **options)

    monkeypatch.setattr(asking, "generate", only_b)
    assert predictions(config) == before


def test_answers_of_another_checkpoint_are_replaced(config, tmp_path):
    predictions(config)
    models = (*config.models[:1], ("tuned", tmp_path / "further"))
    predictions(dataclasses.replace(config, models=models))
    header = read_meta(config.out / "predictions" / "tuned" / "colours.jsonl")
    assert (header["model"], header["rows"]) == (str(tmp_path / "further"), 3)


def test_a_question_that_was_set_aside_while_sampling_is_left_out(config, monkeypatch):
    store = module.read_store(None)[1:]
    monkeypatch.setattr(module, "read_store", lambda file: store)
    assert [p.id for p in predictions(config)] == ["b", "c"] * 2


def test_curves_without_a_log_are_named(config, tmp_path):
    config = dataclasses.replace(config, curves=(("IDK-IT", tmp_path),))
    with pytest.raises(InbolError, match=r"--curves .*: the folder holds no metrics.jsonl"):
        predictions(config)
    (tmp_path / "metrics.jsonl").touch()
    assert predictions(config)


def test_two_datasets_of_one_name_are_refused(config, tmp_path):
    same = shutil.copytree(tmp_path / "colours", tmp_path / "other" / "colours")
    with pytest.raises(InbolError, match="two datasets are called colours"):
        predictions(dataclasses.replace(config, out_of_domain=(same,)))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"models": (("base", TINY), ("b", Path("gone")))}, "gone is not a checkpoint folder"),
        ({"out_of_domain": (Path("gone"),)}, "gone: no such file or folder"),
        ({"train": Path("gone")}, r"cannot read gone/records.jsonl"),
    ],
)
def test_what_is_missing_is_found_before_anything_is_sampled(config, monkeypatch, option, message):
    monkeypatch.setattr(module, "checkpoint_config", checkpoint_config)
    monkeypatch.setattr(module, "estimate", lambda _: pytest.fail("sampled first"))
    with pytest.raises(InbolError, match=message):
        predictions(dataclasses.replace(config, **option))


def test_training_records_that_are_none_are_found_before_anything_is_sampled(config, monkeypatch):
    (config.in_domain[0] / "records.jsonl").write_text('{"id": "a"}\n')
    monkeypatch.setattr(module, "estimate", lambda _: pytest.fail("sampled first"))
    with pytest.raises(InbolError, match=r"records\.jsonl:1: "):
        predictions(dataclasses.replace(config, train=config.in_domain[0]))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../../model", "a\\b", "a\x1b[2J", "é" * 51]
)
def test_a_model_is_not_called_what_a_file_cannot_be(name):
    with pytest.raises(InbolError, match=r"--models .* files are called by it") as error:
        EvaluateConfig((Path("a"),), Path("b"), models=((name, TINY),))
    assert printable(str(error.value)) == str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_domain": ()}, "--in-domain needs at least one"),
        ({"models": ()}, "--models needs at least one"),
        ({"models": (("a", Path("x")), ("a", Path("y")))}, "--models: two models have the same"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InbolError, match=message):
        EvaluateConfig(**({"in_domain": (Path("a"),), "out": Path("b")} | options))
