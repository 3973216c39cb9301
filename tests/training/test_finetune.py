"""Both stages with and without adapters, resumed exactly, and on files that they cannot read."""

import dataclasses
import itertools
import json
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from training_data import (
    LORA,
    STAGES,
    dpo,
    flat,
    instructions,
    metrics_of,
    preferences,
    run_sft,
    stage_config,
    weights_of,
    write_jsonl,
)

from inbol_jax.errors import InbolError
from inbol_jax.models.loading import load_pretrained
from inbol_jax.training import model, parallel


@pytest.fixture(scope="module")
def adapted(data, micro, tmp_path_factory):
    """The folder of IDK-IT with new adapters and a projector that is trained whole. Read-only."""
    out = tmp_path_factory.mktemp("adapted")
    options = LORA | {"lora_trainable": ("multi_modal_projector",), "logging_steps": 4}
    run_sft(data, micro.path, out, **options)
    return out


def test_adapters_through_both_stages(data, micro, adapted, tmp_path):
    """IDK-IT makes them, CA-DPO goes on with them; the base stays as it is, and the reference is
    what CA-DPO starts from.
    """
    first = adapted / "model"
    assert (first / "adapter_config.json").exists()
    assert not (first / "model.safetensors").exists()
    trained = load_pretrained(first, dtype=jnp.float32)
    before, after = flat(micro.variables), flat(trained.variables)
    changed = {path for path in before if (before[path] != after[path]).any()}
    assert changed == {path for path in before if path.startswith("params/multi_modal_projector/")}
    learnt = [after[path].any() for path in after if path.endswith("/b")]
    assert all(learnt), "every adapter has learnt"
    rows = metrics_of(adapted)
    assert rows[-1]["loss"] < rows[0]["loss"]

    options = {"learning_rate": 5e-3, "epochs": 8, "batch_size": 16, "beta": 0.5}
    second = dpo(data, first, tmp_path / "dpo", logging_steps=1, **options)
    start, *_, end = metrics_of(tmp_path / "dpo")
    assert start["reward_margin"] == pytest.approx(0, abs=1e-3)
    assert end["reward_margin"] > 0.2
    config = json.loads((second / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)
    assert Path(config["base_model_name_or_path"]) == micro.path.resolve()
    assert flat(load_pretrained(second, dtype=jnp.float32).variables).keys() == after.keys()
    for options, words in (({"lora_rank": 4}, "has adapters"), ({"frozen": ("x",)}, "--frozen x:")):
        with pytest.raises(InbolError, match=words):
            run_sft(data, first, tmp_path / "again", **options)


def test_a_folder_that_cannot_take_the_model_is_refused_before_training(data, micro, tmp_path):
    run_sft(data, micro.path, tmp_path, batch_size=16)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(InbolError, match="holds a whole model"):
        run_sft(data, micro.path, tmp_path, lora_rank=2)
    with pytest.raises(InbolError, match="is where the model was loaded from"):
        run_sft(data, tmp_path / "model", tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.usefixtures("unreadable_weights")
@pytest.mark.parametrize("stage", STAGES)
def test_what_needs_no_weights_is_refused_before_they_are_read(
    stage, data, micro, untold, tmp_path
):
    run, out = STAGES[stage][0], tmp_path / "out"
    with pytest.raises(InbolError, match="its chat template writes the question 0 times"):
        run(stage_config(stage, data, micro, out, model=untold))


@pytest.mark.parametrize(
    "rule",
    [{"sequence_bias": [[[7], 1.5]]}, {"refuse_below": {"logprob": -3.0, "refusal": "No."}}],
)
def test_a_calibrated_model_is_not_trained_further(rule, data, micro, tmp_path):
    shutil.copytree(micro.path, tmp_path / "start")
    file = tmp_path / "start/generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | rule))
    with pytest.raises(InbolError, match="holds a sequence_bias or refuse_below"):
        run_sft(data, tmp_path / "start", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_weights_that_are_not_finite_are_refused_by_name(data, micro, tmp_path):
    """Also if they are not trained, and before anything is written."""
    weights = {name: np.array(x) for name, x in weights_of(micro.path).items()}
    name = next(
        name for name in weights if "vision_tower" in name and name.endswith("q_proj.weight")
    )
    weights[name][0, 0] = np.nan
    shutil.copytree(micro.path, tmp_path / "start")
    save_file(weights, tmp_path / "start" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InbolError, match=r"--model .*vision_tower/.*q_proj/kernel are not finite"):
        run_sft(data, tmp_path / "start", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_weights_that_have_blown_up_are_not_saved(data, micro, tmp_path):
    """They are finite, and so was every loss: the last update made them."""
    options = {"learning_rate": 1e30, "batch_size": 16, "epochs": 2}
    with pytest.raises(InbolError, match=r"IDK-IT: no model is saved, .* as large as 1e\+30"):
        run_sft(data, micro.path, tmp_path, **options)
    assert (tmp_path / "checkpoints" / "2").is_dir()
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_float32_master_weights_keep_small_updates(data, micro, tmp_path, monkeypatch):
    """Updates too small for bfloat16 add up in float32; without master weights they are lost. What
    is saved is bfloat16 either way.
    """
    options = {"dtype": "bfloat16", "epochs": 8, "batch_size": 16, "learning_rate": 3e-5}
    start = {key: x.astype(jnp.bfloat16) for key, x in weights_of(micro.path).items()}
    moved = {}
    for masters in (True, False):
        if not masters:
            monkeypatch.setattr(model, "_to_float32", lambda x: x)
        found = weights_of(run_sft(data, micro.path, tmp_path / str(masters), **options))
        assert {x.dtype for x in found.values()} == {jnp.dtype(jnp.bfloat16)}
        keys = [key for key in start if "mlp.down_proj" in key]
        moved[masters] = np.mean([np.mean(found[key] != start[key]) for key in keys])
    assert moved[True] > 2 * moved[False]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_resumes_exactly(stage, data, micro, tmp_path, monkeypatch):
    """Six steps at once, and three that are interrupted and resumed, end in the same bytes."""
    run = STAGES[stage][0]
    whole = run(stage_config(stage, data, micro, tmp_path / "whole"))
    assert metrics_of(tmp_path / "whole")[-1]["step"] == 6
    shard, count = parallel.shard_batch, itertools.count(1)

    def interrupted(batch, mesh):
        if next(count) == 4:
            raise KeyboardInterrupt
        return shard(batch, mesh)

    monkeypatch.setattr(parallel, "shard_batch", interrupted)
    config = stage_config(stage, data, micro, tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert not (tmp_path / "broken" / "model").exists()
    monkeypatch.undo()
    for _ in range(2):  # and what is done is done
        resumed = run(config)
        files = [folder / "model.safetensors" for folder in (resumed, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "whole")
    # Where the images and the checkpoints lie is not what decides a run; the seed is.
    with pytest.raises(InbolError, match="made with --seed 0, and now --seed 1: choose"):
        run(dataclasses.replace(config, seed=1))


@pytest.mark.parametrize(
    ("stage", "change", "culprit"),
    [
        ("IDK-IT", {"response": ...}, "response"),
        ("IDK-IT", {"images": ["images/nowhere.png"]}, "nowhere.png"),
        ("IDK-IT", {"question": "What is <image>?"}, "placeholder"),
        ("IDK-IT", {"response": "It is an <image>."}, "placeholder"),
        ("CA-DPO", {"chosen": "red</s>"}, "special token"),
        ("CA-DPO", {"chosen": ...}, "chosen"),
        ("CA-DPO", {"kind": "correct_over_all"}, "correct_over_all"),
        ("CA-DPO", {"confidence": 1.5}, "confidence"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_lines_that_are_not_what_a_stage_reads(
    stage, change, culprit, micro, small_world, tmp_path
):
    (line,) = (instructions if stage == "IDK-IT" else preferences)(small_world, 1)
    line = {key: value for key, value in (line | change).items() if value is not ...}
    file = write_jsonl(tmp_path / "data" / STAGES[stage][2], [line], small_world / "train")
    with pytest.raises(InbolError) as caught:
        STAGES[stage][0](stage_config(stage, file.parent, micro, tmp_path))
    assert culprit in str(caught.value).replace(str(tmp_path), "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", STAGES)
def test_a_file_without_lines(stage, micro, small_world, tmp_path):
    file = write_jsonl(tmp_path / "data" / STAGES[stage][2], [], small_world / "train")
    with pytest.raises(InbolError, match=re.escape(str(file))):
        STAGES[stage][0](stage_config(stage, file.parent, micro, tmp_path))
