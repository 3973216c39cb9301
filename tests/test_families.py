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


def last_loss(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in rows)
    return rows[0]["loss"], rows[-1]["loss"]


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
    lesson = tmp_path / "lesson.jsonl"
    lesson.write_text(
        "".join(
            json.dumps(
                {k: row[k] for k in ("id", "images", "question")}
                | {"response": row["answers"][0], "boundary": "known", "type": 1}
            )
            + "\n"
            for row in lines[:20]
        )
    )
    steps = ("--batch-size", 20, "--learning-rate", 1e-2)
    own = ("--data", lesson, "--images", train, "--model", start.path, "--frozen", "embed_tokens")
    epochs = 40 if family in ("smolvlm", "qwen3_vl") else 80  # some learn more slowly
    few = ("--batch-size", 10, "--learning-rate", 1e-2, "--buckets", 2)
    inbol(capsys, "sft", *own, "--out", run / "base", "--epochs", epochs, *few)
    first, last = last_loss(run / "base")
    assert last < first / 2
    base = run / "base/model"

    inbol(capsys, "extrinsic", "--data", train, "--out", run)
    inbol(capsys, "confidence", "--data", train, "--out", run, "--model", base)
    extrinsic = run / "extrinsic.jsonl"
    inbol(capsys, "confidence", "--data", extrinsic, "--out", run, "--model", base, "--p-true")
    stored = list(read_jsonl(run / "confidence/train.jsonl"))
    assert len(stored) == len(lines)
    inbol(capsys, "build", "--out", run)
    assert {row["boundary"] for row in read_jsonl(run / "records.jsonl")} > {"known"}

    data, out = run / "instructions.jsonl", run / "idk_it"
    inbol(capsys, "sft", "--data", data, "--model", base, "--out", out, "--lora-rank", 2, *steps)
    last_loss(out)
    data, model, out = run / "preferences.jsonl", out / "model", run / "ca_dpo"
    inbol(capsys, "dpo", "--data", data, "--model", model, "--out", out, "--epochs", 1, *steps)
    last_loss(out)
    once = ("--epochs", 1, "--batch-size", 20, "--n", 4)
    inbol(capsys, "rl", "--data", world / "test", "--model", base, "--out", run / "rl", *once)
    last_loss(run / "rl")

    models = ("base", base, "idk_it", model, "ca_dpo", out / "model", "rl", run / "rl/model")
    sets = ("--in-domain", world / "test", "--validation", train)
    inbol(capsys, "evaluate", *sets, "--out", run / "eval", "--models", *models)
    asked = list(read_jsonl(run / "eval/predictions.jsonl"))
    assert {row["model"] for row in asked} == set(models[::2])
    merged = run / "merged"
    inbol(capsys, "convert", out / "model", merged, "--merge-lora")
    assert load_config(merged) == load_config(start.path)


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
