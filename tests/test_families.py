"""Checkpoints of the families beside LLaVA through every stage, on pictures of several sizes."""

import json
import math
import shutil

import numpy as np
import pytest
from torch_reference import asked, their_logits, torch_base

from inbol_jax.artifacts import json_line, read_jsonl
from inbol_jax.cli import main
from inbol_jax.data.images import load_image
from inbol_jax.models.families import load_config

SLOW = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("one_length")


@pytest.fixture(scope="module")
def world(small_world, tmp_path_factory):
    """A copy in which every third picture is cut: it becomes three tiles and not five, and to
    Qwen3-VL 8 tokens and not 16.
    """
    folder = shutil.copytree(small_world, tmp_path_factory.mktemp("cut") / "world")
    for split in ("train", "test"):
        images = sorted({row["images"][0] for row in read_jsonl(folder / split / "data.jsonl")})
        for name in images[::3]:
            picture = load_image(folder / split / name)
            picture.crop((0, 0, 48, 24)).save(folder / split / name)
    return folder


def inbol(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr()


@pytest.mark.parametrize(
    "family",
    [
        "smolvlm",
        *(pytest.param(x, marks=SLOW) for x in ("llava_next", "llava_onevision", "internvl")),
        *(pytest.param(x, marks=SLOW) for x in ("gemma3", "qwen2_5_vl", "qwen3_vl")),
    ],
)
def test_the_whole_pipeline(world, family, tmp_path, capsys, request):
    """First it learns a little, so that something is known."""
    start = request.getfixturevalue(family)
    run, train = tmp_path / "run", world / "train"
    lines = [row for row in read_jsonl(train / "data.jsonl") if row["answerable"]]
    lesson = [
        {key: row[key] for key in ("id", "images", "question")}
        | {"response": row["answers"][0], "boundary": "known", "type": 1}
        for row in lines[:20]
    ]
    (tmp_path / "lesson.jsonl").write_text("".join(map(json_line, lesson)))
    steps = ("--batch-size", 20, "--learning-rate", 1e-2)
    own = ("--data", tmp_path / "lesson.jsonl", "--images", train, "--model", start.path)
    own += ("--frozen", "embed_tokens", "--batch-size", 10, "--learning-rate", 1e-2)
    epochs = 40 if family in ("smolvlm", "qwen3_vl") else 80  # some learn more slowly
    inbol(capsys, "sft", *own, "--out", run / "base", "--epochs", epochs, "--buckets", 2)
    first, *_, last = (row["loss"] for row in read_jsonl(run / "base/metrics.jsonl"))
    assert last < first / 2
    base, extrinsic = run / "base/model", run / "extrinsic.jsonl"

    inbol(capsys, "extrinsic", "--data", train, "--out", run)
    inbol(capsys, "confidence", "--data", train, "--out", run, "--model", base)
    inbol(capsys, "confidence", "--data", extrinsic, "--out", run, "--model", base, "--p-true")
    assert len(list(read_jsonl(run / "confidence/train.jsonl"))) == len(lines)
    inbol(capsys, "build", "--out", run)
    assert {row["boundary"] for row in read_jsonl(run / "records.jsonl")} > {"known"}

    data, out = run / "preferences.jsonl", run / "ca_dpo"
    lora = ("--lora-rank", 2, "--epochs", 1, "--buckets", 1)
    inbol(capsys, "dpo", "--data", data, "--model", base, "--out", out, *lora, *steps)
    assert all(math.isfinite(row["loss"]) for row in read_jsonl(out / "metrics.jsonl"))
    models = ("base", base, "ca_dpo", out / "model")
    inbol(
        capsys, "evaluate", "--in-domain", world / "test", "--out", run / "e", "--models", *models
    )
    predicted = {row["model"] for row in read_jsonl(run / "e/predictions.jsonl")}
    assert predicted == {"base", "ca_dpo"}
    inbol(capsys, "convert", out / "model", run / "merged", "--merge-lora")
    assert load_config(run / "merged") == load_config(start.path)


def their_logprob(checkpoint, question, pictures):
    """The largest log-probability of a first token, by transformers alone."""
    batch = asked(checkpoint.processor, (question, pictures))
    logits = their_logits(torch_base(checkpoint.path), batch)[0, -1]
    return float((logits - np.logaddexp.reduce(logits)).max())


@pytest.mark.parametrize(
    "family",
    ["gemma3", *(pytest.param(x, marks=SLOW) for x in ("smolvlm", "internvl", "qwen3_vl"))],
)
def test_questions_about_several_images(world, family, tmp_path, capsys, request):
    """In both orders, and without any: the store has the log-probabilities that transformers gives
    to each question alone.
    """
    checkpoint = request.getfixturevalue(family)
    data = shutil.copytree(world / "train", tmp_path / "set")
    a, b, *_ = sorted({row["images"][0] for row in read_jsonl(data / "data.jsonl")})
    assert load_image(data / a).size != load_image(data / b).size
    asked = {"two": [a, b], "turned": [b, a], "none": []}
    rows = [
        {"id": name, "images": images, "question": "What color is it?", "answers": ["red"]}
        for name, images in asked.items()
    ]
    (data / "data.jsonl").write_text("".join(map(json_line, rows)))
    own = ("--data", data, "--out", tmp_path / "run", "--model", checkpoint.path)
    own += ("--prompt", "bare")
    inbol(capsys, "confidence", *own, "--n", 1, "--temperature", 0, "--max-new-tokens", 1)
    found = {r["id"]: r["logprobs"][0] for r in read_jsonl(tmp_path / "run/confidence/set.jsonl")}
    expected = {}
    for name, images in asked.items():
        pictures = [load_image(data / image) for image in images]
        expected[name] = their_logprob(checkpoint, "What color is it?", pictures)
    assert found == pytest.approx(expected, abs=2e-4)
    assert len({*found.values()}) == len(asked)  # none looks like another


def test_an_image_whose_tokens_do_not_fit_is_an_error_of_its_record(
    world, smolvlm, tmp_path, capsys
):
    """The others are asked; nothing is cut."""
    folder = shutil.copytree(smolvlm.path, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 58
    (folder / "config.json").write_text(json.dumps(config))
    options = ("--n", 2, "--max-new-tokens", 2, "--max-rejected", 1)
    own = ("--data", world / "train", "--out", tmp_path / "run", "--model", folder)
    own += ("--prompt", "bare")
    said = inbol(capsys, "confidence", *own, *options).out
    store = read_jsonl(tmp_path / "run/confidence/train.jsonl")
    stored = {row["id"] for row in store if row["set_aside"] is None}
    rows = [row for row in read_jsonl(world / "train/data.jsonl") if row["answerable"]]
    cut = {row["id"] for row in rows if load_image(world / "train" / row["images"][0]).height == 24}
    assert cut <= stored < {row["id"] for row in rows}
    assert "and the model was made for 58" in said
