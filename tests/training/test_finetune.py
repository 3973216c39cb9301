"""Both stages with and without adapters, resumed exactly, and on files that they cannot read."""

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
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

from inbol_jax.artifacts import fingerprint, meta_path, write_json
from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import load_pretrained
from inbol_jax.training import parallel
from inbol_jax.training.ca_dpo import ca_dpo
from inbol_jax.training.config import SftConfig
from inbol_jax.training.finetune import names_of_settings, run_settings
from inbol_jax.training.sft import sft


def test_adapters_through_both_stages(data, micro, tmp_path):
    """IDK-IT makes them, CA-DPO goes on with them; the base stays as it is, and the reference is
    what CA-DPO starts from.
    """
    first = run_sft(
        data,
        micro.path,
        tmp_path / "sft",
        lora_trainable=("multi_modal_projector",),
        **LORA | {"epochs": 10},
    )
    assert (first / "adapter_config.json").exists()
    assert not (first / "model.safetensors").exists()
    trained = load_pretrained(first, dtype=jnp.float32)
    before, after = flat(micro.variables), flat(trained.variables)
    changed = {path for path in before if (before[path] != after[path]).any()}
    assert changed == {path for path in before if path.startswith("params/multi_modal_projector/")}
    assert all(after[path].any() for path in after if path.endswith("/b")), (
        "every adapter has learnt"
    )
    assert metrics_of(tmp_path / "sft")[-1]["loss"] < metrics_of(tmp_path / "sft")[0]["loss"]

    second = dpo(
        data, first, tmp_path / "dpo", learning_rate=5e-3, epochs=4, batch_size=16, beta=0.5
    )
    rows = metrics_of(tmp_path / "dpo")
    assert rows[-1]["reward_margin"] > 0.2
    config = json.loads((second / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)
    assert Path(config["base_model_name_or_path"]) == micro.path.resolve()
    assert flat(load_pretrained(second, dtype=jnp.float32).variables).keys() == after.keys()


def test_the_margin_over_the_reference_starts_at_zero(data, micro, tmp_path):
    first = run_sft(data, micro.path, tmp_path / "sft", **LORA)
    dpo(data, first, tmp_path / "dpo", learning_rate=1e-12, batch_size=16)
    assert metrics_of(tmp_path / "dpo")[0]["reward_margin"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_rank": 4}, "has adapters"),
        ({"wise_ft_alpha": 0.9}, "--wise-ft-alpha 0.9 mixes whole models"),
        ({"frozen": ("projector",)}, "--frozen projector: with adapters"),
    ],
)
def test_options_that_do_not_go_with_adapters(data, micro, tmp_path, options, words):
    first = run_sft(data, micro.path, tmp_path / "sft", **LORA | {"epochs": 1})
    with pytest.raises(InbolError, match=words):
        run_sft(data, first, tmp_path / "again", **options)


def test_a_folder_that_cannot_take_the_model_is_refused_before_training(data, micro, tmp_path):
    run_sft(data, micro.path, tmp_path, batch_size=16)
    subprocess.run(["rm", "-r", str(tmp_path / "checkpoints")], check=True)
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
    names = ("--sead", "--learning-rate", "lora_rank", "mesh")
    with pytest.raises(InbolError, match=r"--resume-anyway sead: choose among .*weight_decay, "):
        run(stage_config(stage, data, micro, out, resume_anyway=names))
    with pytest.raises(InbolError, match="its chat template writes the question 0 times"):
        run(stage_config(stage, data, micro, out, model=untold))


def test_a_calibrated_model_is_not_trained_further(data, micro, tmp_path):
    shutil.copytree(micro.path, tmp_path / "start")
    file = tmp_path / "start/generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sequence_bias": [[[7], 1.5]]}))
    with pytest.raises(InbolError, match="holds a sequence_bias"):
        run_sft(data, tmp_path / "start", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("part", ["vision_tower", "language_model"])
def test_weights_that_are_not_finite_are_refused_by_name(data, micro, tmp_path, part):
    """Whether they are trained or not, and before anything is written."""
    weights = {name: np.array(x) for name, x in weights_of(micro.path).items()}
    name = next(name for name in weights if part in name and name.endswith("q_proj.weight"))
    weights[name][0, 0] = np.nan
    shutil.copytree(micro.path, tmp_path / "start")
    save_file(weights, tmp_path / "start" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InbolError, match=rf"--model .*{part}/.*q_proj/kernel are not finite"):
        run_sft(data, tmp_path / "start", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_weights_that_have_blown_up_are_not_saved(data, micro, tmp_path):
    """They are finite, and so was every loss: the last update made them."""
    options = {"learning_rate": 1e30, "batch_size": 16, "epochs": 2}
    with pytest.raises(InbolError, match=r"IDK-IT: no model is saved, .* as large as 1e\+30"):
        run_sft(data, micro.path, tmp_path, **options)
    assert (tmp_path / "checkpoints" / "2").is_dir()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_is_drawn_anew_on_another_number_of_devices(micro, data, dropout, monkeypatch):
    """So the run is another one; without dropout it is the same."""
    checkpoint = dataclasses.replace(
        micro, model=Llava(micro.config, lora=LoraConfig(rank=2, alpha=4.0, dropout=dropout))
    )
    config = SftConfig.from_options(data=data / "instructions.jsonl", out=data, parallel="pmap")
    fingerprints = set()
    for count in (1, 8):
        monkeypatch.setattr(jax, "device_count", lambda count=count: count)
        settings = run_settings(checkpoint, config, "IDK-IT", 8, None)
        assert settings.keys() <= names_of_settings(config)
        fingerprints.add(fingerprint(settings))
    assert len(fingerprints) == (2 if dropout else 1)


@pytest.mark.slow
def test_float32_master_weights_keep_small_updates(data, micro, tmp_path):
    """Updates too small for bfloat16 add up in float32; without master weights they are lost. What
    is saved is bfloat16 either way.
    """
    options = {
        "dtype": "bfloat16",
        "epochs": 8,
        "batch_size": 16,
        "learning_rate": 2e-5,
        "optimizer": "sgd",
        "schedule": "constant",
    }
    start = {key: x.astype(jnp.bfloat16) for key, x in weights_of(micro.path).items()}
    moved = {}
    for masters in (True, False):
        found = weights_of(
            run_sft(
                data,
                micro.path,
                tmp_path / str(masters),
                fp32_master_weights=masters,
                **options | {"optimizer": "adamw"},
            )
        )
        assert {x.dtype for x in found.values()} == {jnp.dtype(jnp.bfloat16)}
        moved[masters] = np.mean(
            [
                np.mean(np.asarray(found[key] != start[key]))
                for key in start
                if "mlp.down_proj" in key
            ]
        )
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
    resumed = run(config)
    assert (resumed / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "whole")
    # And what is done is done.
    run(config)
    assert (resumed / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    # Where the images and the checkpoints lie is not what decides a run; the seed is.
    with pytest.raises(InbolError, match=r"other settings .--seed 1, the folder's run has 0"):
        run(dataclasses.replace(config, seed=1))


def test_the_stages_build_on_each_other(data, micro, tmp_path):
    first = sft(stage_config("IDK-IT", data, micro, tmp_path / "sft", epochs=1))
    second = ca_dpo(
        stage_config(
            "CA-DPO", data, load_pretrained(first, dtype=jnp.float32), tmp_path / "dpo", epochs=1
        )
    )
    a, b, c = weights_of(micro.path), weights_of(first), weights_of(second)
    assert a.keys() == b.keys() == c.keys()
    assert any((b[key] != a[key]).any() for key in a)
    assert any((c[key] != b[key]).any() for key in a)


def broken_line(stage, world, **change):
    row = (instructions if stage == "IDK-IT" else preferences)(world, 1)[0] | change
    return {key: value for key, value in row.items() if value is not ...}


@pytest.mark.parametrize(
    ("stage", "change", "culprit"),
    [
        ("IDK-IT", {"response": ...}, "response"),
        ("IDK-IT", {"question": ...}, "question"),
        ("IDK-IT", {"image": ...}, "image"),
        ("IDK-IT", {"image": "images/nowhere.png"}, "nowhere.png"),
        ("IDK-IT", {"question": "What is <image>?"}, "placeholder"),
        ("IDK-IT", {"response": "It is an <image>."}, "placeholder"),
        ("CA-DPO", {"chosen": "red</s>"}, "special token"),
        ("IDK-IT", {"response": None}, "response"),
        ("CA-DPO", {"chosen": ...}, "chosen"),
        ("CA-DPO", {"kind": "correct_over_all"}, "correct_over_all"),
        ("CA-DPO", {"kind": ...}, "kind"),
        ("CA-DPO", {"image": "images/nowhere.png"}, "nowhere.png"),
        ("CA-DPO", {"confidence": "high"}, "confidence"),
        ("CA-DPO", {"confidence": 1.5}, "confidence"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_lines_that_are_not_what_a_stage_reads(
    stage, change, culprit, micro, small_world, tmp_path
):
    file = write_jsonl(
        tmp_path / "data" / STAGES[stage][2],
        [broken_line(stage, small_world, **change)],
        small_world / "train",
    )
    with pytest.raises(InbolError) as caught:
        STAGES[stage][0](stage_config(stage, file.parent, micro, tmp_path))
    assert culprit in str(caught.value).replace(str(tmp_path), "")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unreadable_weights")
@pytest.mark.parametrize("stage", STAGES)
def test_a_file_that_is_older_than_its_confidences(stage, data, micro, tmp_path):
    """As --data, and as --eval-data."""
    run, _, name = STAGES[stage]
    file = Path(shutil.copy(data / name, tmp_path))
    write_json(meta_path(file), {"command": "build", "inputs": "of before"})
    (tmp_path / "confidence").mkdir()
    (tmp_path / "confidence/train.jsonl").touch()
    for option in ("data", "eval_data"):
        with pytest.raises(InbolError, match="give `inbol build` again"):
            run(stage_config(stage, data, micro, tmp_path / "out", **{option: file}))


@pytest.mark.parametrize("stage", STAGES)
def test_a_file_without_lines(stage, micro, small_world, tmp_path):
    file = write_jsonl(tmp_path / "data" / STAGES[stage][2], [], small_world / "train")
    with pytest.raises(InbolError, match=re.escape(str(file))):
        STAGES[stage][0](stage_config(stage, file.parent, micro, tmp_path))
