"""Adapters in PEFT's format: in both directions, and what is said about those that do not fit."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
from safetensors.numpy import load_file, save_file
from torch_reference import (
    assert_close,
    assert_reads_what_peft_trained,
    edit_config,
    load,
    our_logits,
    refusal,
    torch_base,
    with_adapters,
)

from inbol_jax.models import LoraConfig, load_pretrained, save_pretrained

# PEFT asks transformers for it
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
OPTIONS = {
    "ranks of their own": {
        "target_modules": ["o_proj", "up_proj", "linear_1"],
        "rank_pattern": {"o_proj": 2},
    },
    "pattern, rsLoRA, projector whole": {
        "target_modules": r".*language_model.*\.(k_proj|down_proj)",
        "use_rslora": True,
        "modules_to_save": ["multi_modal_projector"],
    },
}
FILE = "adapter_model.safetensors"


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_adapters_that_peft_trained(base, options, tmp_path):
    assert_reads_what_peft_trained(base, options, tmp_path)


def test_adapters_of_ours_in_peft(base, batch, tmp_path):
    config = LoraConfig(
        rank=3,
        alpha=5.0,
        rslora=True,
        targets=("q_proj", r"mlp\.\w+", "linear_2"),
        trainable=("linear_1",),
    )
    checkpoint = with_adapters(base, config)
    params = dict(checkpoint.variables["params"])
    projector = dict(params["multi_modal_projector"])
    projector["linear_1"] = jax.tree.map(lambda x: x + 0.05, projector["linear_1"])
    params["multi_modal_projector"] = projector
    variables = checkpoint.variables | {"params": params}
    checkpoint = dataclasses.replace(checkpoint, variables=variables)
    save_pretrained(checkpoint, tmp_path)
    model = peft.PeftModel.from_pretrained(torch_base(base), tmp_path).eval()
    assert_close(checkpoint, model, batch)
    # No key more or less than PEFT itself saves.
    assert set(load_file(tmp_path / FILE)) == set(peft.get_peft_model_state_dict(model))
    assert not (tmp_path / "config.json").exists()
    again = load_pretrained(tmp_path, dtype=jnp.float32)
    assert again.model.lora == dataclasses.replace(
        config, targets=again.model.lora.targets, trainable=again.model.lora.trainable
    )
    np.testing.assert_array_equal(our_logits(again, batch), our_logits(checkpoint, batch))


def test_adapters_of_older_transformers(base, saved):
    """Trained when its modules had other names."""
    expected, tensors, old = load(saved).variables["lora"], load_file(saved / FILE), {}
    for key, x in tensors.items():
        key = key.replace("model.model.language_model.", "model.language_model.model.")
        old[key.replace("model.model.vision_tower.", "model.vision_tower.vision_model.")] = x
    assert not old.keys() & tensors.keys()
    save_file(old, saved / FILE)
    found = load_pretrained(base, dtype="float32", adapters=saved).variables["lora"]
    jax.tree.map(np.testing.assert_array_equal, dict(found), dict(expected))


def test_an_adapter_of_another_base(base, saved, tmp_path):
    other = load(base)
    params = jax.tree.map(lambda x: x + 0.1, other.variables["params"])
    save_pretrained(dataclasses.replace(other, variables={"params": params}), tmp_path / "other")
    message = refusal(tmp_path / "other", adapters=saved)
    assert "another base model" in message
    assert str(saved / FILE) in message
    # As PEFT writes it, the file does not say which base it is for.
    save_file(load_file(saved / FILE), saved / FILE)
    load_pretrained(tmp_path / "other", adapters=saved)


def renamed(old, new):
    return lambda tensors: {key.replace(old, new): x for key, x in tensors.items()}


def doubled(tensors):
    axis = {key: 1 if "lora_A" in key else 0 for key in tensors}
    return {key: np.concatenate([x, x], axis[key]) for key, x in tensors.items()}


WHOLE = "base_model.model.model.multi_modal_projector.linear_1.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed("layers.0", "layers.7"), "is nothing that adapter_config.json names, or the"),
        (renamed("lora_A", "lora_C"), "is nothing that adapter_config.json names, or the"),
        (doubled, "do not fit the base"),
        (lambda x: {k: v for k, v in x.items() if "lora_A" in k}, "(missing: ["),
        (lambda x: {k: v for k, v in x.items() if "layers.0" not in k}, "does not hold what"),
        (lambda x: x | {WHOLE: np.zeros((24, 32), np.float32)}, f"{WHOLE} is nothing that"),
        (lambda x: {k: v[None] for k, v in x.items()}, "has shape"),
        (lambda x: {}, "does not hold what"),
    ],
)
def test_tensors_that_the_base_has_no_place_for(base, saved, change, words):
    save_file(change(load_file(saved / FILE)), saved / FILE)
    message = refusal(base, adapters=saved)
    assert words in message
    assert str(saved / FILE) in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"something_new": 1}, "something_new = 1"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"peft_type": ...}, "peft_type = None"),
        ({"r": "two"}, "not a LoRA configuration"),
        ({"r": 0}, "rank of at least 1"),
        ({"lora_alpha": ...}, "lora_alpha"),
        ({"modules_to_save": ["multi_modal_projector"]}, "does not hold what adapter_config.json"),
    ],
)
def test_adapters_of_another_kind(base, saved, change, words):
    edit_config(saved, change, "adapter_config.json")
    assert words in refusal(base, adapters=saved)


def test_damaged_adapters(base, saved, tmp_path):
    file = saved / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert "not a readable safetensors file" in refusal(base, adapters=saved)
    file.unlink()
    assert f"{file} is missing" in refusal(base, adapters=saved)
    file.write_bytes(whole)
    edit_config(saved, {"base_model_name_or_path": None}, "adapter_config.json")
    assert "base_model_name_or_path is missing" in refusal(saved)
    shutil.copytree(saved, tmp_path / "other")
    for name in ("gone", "other"):  # no folder, and itself an adapter
        edit_config(saved, {"base_model_name_or_path": str(tmp_path / name)}, "adapter_config.json")
        message = refusal(saved)
        assert f"base_model_name_or_path {tmp_path / name} is no checkpoint" in message
        assert f"by `inbol convert {tmp_path / name} DST --merge-lora`" in message
    assert "adapter_config.json is missing" in refusal(base, adapters=tmp_path / "gone")
