"""Adapters: against PEFT in both directions, merged, left out, and what a wrong one says."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from torch_reference import (
    CLOSE,
    edit_config,
    load,
    make_batch,
    our_logits,
    random_torch,
    torch_logits,
)
from transformers import LlavaForConditionalGeneration

from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig, load_pretrained, save_pretrained
from inbol_jax.models.llava import Llava
from inbol_jax.models.lora import init_lora, target_modules, trainable_params

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # PEFT asks transformers so

FAMILIES = (
    "clip llama biases, linear rope, full, relu",
    "siglip qwen2 window above, full, ragged patches",
    "clip mistral window",
)
OPTIONS = {
    "names": {"target_modules": ["q_proj", "v_proj", "linear_1"]},
    "pattern, rsLoRA": {
        "target_modules": r".*language_model.*\.(k_proj|down_proj)",
        "use_rslora": True,
    },
    "ranks of their own": {"target_modules": ["o_proj", "up_proj"], "rank_pattern": {"o_proj": 2}},
    "projector whole": {
        "target_modules": ["gate_proj"],
        "modules_to_save": ["multi_modal_projector"],
    },
}


@pytest.fixture(params=FAMILIES, scope="module")
def base(request, tmp_path_factory):
    """A random model of transformers and its folder."""
    folder = tmp_path_factory.mktemp("base")
    random_torch(request.param).save_pretrained(folder)
    return folder


def torch_base(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder).eval()


def randomise(model):
    """Every trained parameter matters: PEFT starts with B at zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.15)
    return model.eval()


def with_adapters(folder, config, scale=0.1):
    """A base with adapters of ours that do something."""
    checkpoint = load(folder)
    lora = init_lora(checkpoint.variables["params"], config, jax.random.key(0))
    lora = jax.tree.map(
        lambda x: x + scale * jax.random.normal(jax.random.key(x.size), x.shape), lora
    )
    model = Llava(checkpoint.config, jnp.float32, config)
    return dataclasses.replace(checkpoint, model=model, variables=checkpoint.variables | {"lora": lora})


@pytest.fixture
def batch(base):
    config = load(base).config
    return make_batch(config, [config.num_image_tokens + 4, config.num_image_tokens + 9])


def close(checkpoint, model, batch):
    counts = batch["attention_mask"] == 1
    np.testing.assert_allclose(
        our_logits(checkpoint, batch)[counts], torch_logits(model, batch)[counts], **CLOSE
    )


# --- PEFT's files


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_adapters_that_peft_trained(base, batch, options, tmp_path):
    model = randomise(
        peft.get_peft_model(torch_base(base), peft.LoraConfig(r=4, lora_alpha=12, **options))
    )
    model.save_pretrained(tmp_path)
    checkpoint = load_pretrained(base, dtype=jnp.float32, adapters=tmp_path)
    close(checkpoint, model, batch)
    without = our_logits(
        dataclasses.replace(checkpoint, variables={"params": load(base).variables["params"]}), batch
    )
    assert np.abs(without - our_logits(checkpoint, batch)).max() > 1e-2, "the adapters do nothing"
    # Through our files and back.
    save_pretrained(checkpoint, tmp_path / "ours")
    close(load_pretrained(tmp_path / "ours", dtype=jnp.float32), model, batch)


@pytest.mark.parametrize("rslora", [False, True])
def test_adapters_of_ours_in_peft(base, batch, rslora, tmp_path):
    config = LoraConfig(
        rank=3,
        alpha=5.0,
        rslora=rslora,
        dropout=0.5,
        targets=("q_proj", r"mlp\.\w+", "linear_2"),
        trainable=("linear_1",),
    )
    checkpoint = with_adapters(base, config)
    params = dict(checkpoint.variables["params"])
    params["multi_modal_projector"] = jax.tree.map(
        lambda x: x + 0.05, params["multi_modal_projector"]
    )
    params["multi_modal_projector"]["linear_2"] = checkpoint.variables["params"][
        "multi_modal_projector"
    ]["linear_2"]
    checkpoint = dataclasses.replace(checkpoint, variables=checkpoint.variables | {"params": params})
    save_pretrained(checkpoint, tmp_path)
    model = peft.PeftModel.from_pretrained(torch_base(base), tmp_path).eval()
    close(checkpoint, model, batch)
    saved = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert saved == set(peft.get_peft_model_state_dict(model)), (
        "no key more or less than PEFT itself saves"
    )
    assert not (tmp_path / "config.json").exists()
    again = load_pretrained(tmp_path, dtype=jnp.float32)
    assert again.model.lora == dataclasses.replace(
        config, targets=again.model.lora.targets, trainable=again.model.lora.trainable
    )
    np.testing.assert_array_equal(our_logits(again, batch), our_logits(checkpoint, batch))


def test_adapters_of_older_transformers(base, batch, tmp_path):
    """Trained when its modules had other names."""
    model = randomise(
        peft.get_peft_model(torch_base(base), peft.LoraConfig(r=4, target_modules=["q_proj"]))
    )
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    old = {
        key.replace("model.model.language_model.", "model.language_model.model.").replace(
            "model.model.vision_tower.", "model.vision_tower.vision_model."
        ): x
        for key, x in tensors.items()
    }
    assert not old.keys() & tensors.keys()
    save_file(old, tmp_path / "adapter_model.safetensors")
    close(load_pretrained(base, dtype=jnp.float32, adapters=tmp_path), model, batch)


def test_merged_adapters_are_a_model(base, batch, tmp_path):
    checkpoint = with_adapters(base, LoraConfig(rank=2, alpha=4.0))
    save_pretrained(checkpoint, tmp_path, merge_adapters=True)
    merged = load(tmp_path)
    assert "lora" not in merged.variables
    np.testing.assert_allclose(our_logits(merged, batch), our_logits(checkpoint, batch), **CLOSE)
    close(checkpoint, torch_base(tmp_path), batch)


# --- which modules, how they start, what they do


def test_targets(base):
    params = load(base).variables["params"]
    decoder = target_modules(params, LoraConfig())
    assert {path.split("/")[0] for path in decoder} == {"language_model"}
    assert {path.split("/")[-1] for path in decoder} == {
        f"{m}_proj" for m in ("q", "k", "v", "o", "gate", "up", "down")
    }
    assert len(decoder) == 7 * 2
    both = target_modules(params, LoraConfig(targets=("q_proj",)))
    assert {path.split("/")[0] for path in both} == {"language_model", "vision_tower"}
    assert target_modules(params, LoraConfig(targets=(r"layers\.0\.mlp\.up_proj",))) == [
        "language_model/layers_0/mlp/up_proj"
    ]
    whole = LoraConfig(targets=("linear_1", "linear_2"), trainable=("linear_1",))
    assert target_modules(params, whole) == ["multi_modal_projector/linear_2"]
    assert {path.split("/")[1] for path in trainable_params(params, whole)} == {"linear_1"}
    assert all(
        path.startswith("multi_modal")
        for path in trainable_params(params, LoraConfig(trainable=("multi_modal_projector",)))
    )


@pytest.mark.parametrize(
    "options", [{"targets": ("nowhere",)}, {"targets": ("norm",)}, {"trainable": ("proj",)}]
)
def test_modules_that_are_not_there(base, options):
    with pytest.raises(InbolError, match=r"'(nowhere|norm|proj)'"):
        init_lora(
            load(base).variables["params"], LoraConfig(**options), jax.random.key(0)
        ) or trainable_params({}, LoraConfig(**options))


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"dropout": 1.0}, {"targets": ()}, {"targets": ("(",)}]
)
def test_options_that_cannot_be_meant(options):
    with pytest.raises(InbolError):
        LoraConfig(**options)


def test_new_adapters_change_nothing_and_learn(base, batch):
    config = LoraConfig(rank=2, alpha=4.0, targets=("o_proj", r"layers\.0\.mlp\.fc2"))
    checkpoint = with_adapters(base, config, scale=0.0)
    lora = checkpoint.variables["lora"]
    plain = load(base)
    np.testing.assert_array_equal(our_logits(checkpoint, batch), our_logits(plain, batch))
    for path, x in flatten_dict(dict(lora), sep="/").items():
        bound = x.shape[0] ** -0.5
        assert (
            (np.abs(x).max() <= bound and np.std(x) > 0.4 * bound)
            if path.endswith("/a")
            else not x.any()
        )
    one = init_lora(
        plain.variables["params"], LoraConfig(rank=2, targets=("o_proj",)), jax.random.key(0)
    )
    for path, x in flatten_dict(one, sep="/").items():
        np.testing.assert_array_equal(
            x, flatten_dict(dict(lora), sep="/")[path], "one target less changes no other's start"
        )

    def loss(lora):
        return checkpoint.model.apply(checkpoint.variables | {"lora": lora}, batch).var()

    for path, x in flatten_dict(dict(jax.jit(jax.grad(loss))(lora)), sep="/").items():
        assert bool(x.any()) == path.endswith("/b"), path  # a has no effect while b is zero
    with pytest.raises(ValueError, match="LoraConfig"):
        plain.model.apply(checkpoint.variables, batch)


def test_dropout(base, batch):
    """It acts where it gets a key, differently with another, and keeps the mean."""
    config = LoraConfig(rank=2, alpha=4.0, dropout=0.5, targets=("down_proj",))
    checkpoint = with_adapters(
        base, config, scale=0.01
    )  # small: logits are then nearly linear in what is dropped
    run = jax.jit(lambda key: checkpoint.model.apply(checkpoint.variables, batch, rngs={"dropout": key}))
    keys = jax.random.split(jax.random.key(0), 64)
    noisy = np.stack([run(key) for key in keys])
    still = our_logits(checkpoint, batch)
    assert np.abs(noisy[0] - noisy[1]).max() > 1e-4
    np.testing.assert_array_equal(noisy[0], run(keys[0]))
    np.testing.assert_allclose(noisy.mean(0), still, atol=4 * noisy.std(0).max() / 8)
    np.testing.assert_array_equal(still, our_logits(checkpoint, batch))


# --- adapters that do not fit


@pytest.fixture
def saved(base, tmp_path):
    save_pretrained(
        with_adapters(base, LoraConfig(rank=2, targets=("q_proj",))), tmp_path / "adapter"
    )
    return tmp_path / "adapter"


def refusal(*arguments, **options):
    with pytest.raises(InbolError) as caught:
        load_pretrained(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_adapter_of_another_base(base, saved, tmp_path):
    other = load(base)
    params = jax.tree.map(lambda x: x + 0.1, other.variables["params"])
    save_pretrained(dataclasses.replace(other, variables={"params": params}), tmp_path / "other")
    message = refusal(tmp_path / "other", adapters=saved)
    assert "another base model" in message
    assert str(saved / "adapter_model.safetensors") in message
    tensors = load_file(saved / "adapter_model.safetensors")
    save_file(
        tensors, saved / "adapter_model.safetensors"
    )  # as PEFT writes it: it does not say which base it is for
    load_pretrained(tmp_path / "other", adapters=saved)
    for change, words in (
        (lambda key, x: (key.replace("layers.0", "layers.7"), x), "belongs to no parameter"),
        (lambda key, x: (key, np.concatenate([x, x], 1 if "lora_A" in key else 0)), "has shape"),
        (lambda key, x: (key.replace("lora_A", "lora_C"), x), "belongs to no parameter"),
    ):
        save_file(
            dict(change(key, x) for key, x in tensors.items()), saved / "adapter_model.safetensors"
        )
        assert words in refusal(base, adapters=saved)
    save_file(
        {key: x for key, x in tensors.items() if "lora_A" in key},
        saved / "adapter_model.safetensors",
    )
    assert "do not fit together" in refusal(base, adapters=saved)
    save_file(
        {key: x for key, x in tensors.items() if "layers.0" not in key},
        saved / "adapter_model.safetensors",
    )
    assert "is missing: adapter_config.json names it as a target" in refusal(base, adapters=saved)
    whole = {
        "base_model.model.model.multi_modal_projector.linear_1.weight": load_file(
            base / "model.safetensors"
        )
    }
    whole = {key: x["multi_modal_projector.linear_1.weight"] for key, x in whole.items()}
    save_file(tensors | whole, saved / "adapter_model.safetensors")
    assert "not among modules_to_save" in refusal(base, adapters=saved)
    save_file(tensors, saved / "adapter_model.safetensors")
    edit_config(saved, {"modules_to_save": ["multi_modal_projector"]}, "adapter_config.json")
    assert "is missing: adapter_config.json says that it was trained whole" in refusal(
        base, adapters=saved
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"something_new": 1}, "something_new = 1"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"r": "two"}, "not a LoRA configuration"),
        ({"r": 0}, "rank of at least 1"),
        ({"lora_alpha": ...}, "lora_alpha"),
    ],
)
def test_adapters_of_another_kind(base, saved, change, words):
    edit_config(saved, change, "adapter_config.json")
    message = refusal(base, adapters=saved)
    assert words in message
    assert "adapter_config.json" in message


def test_damaged_adapters(base, saved, tmp_path):
    file = saved / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert "not a readable safetensors file" in refusal(base, adapters=saved)
    file.unlink()
    assert f"{file} is missing" in refusal(base, adapters=saved)
    file.write_bytes(whole)
    edit_config(saved, {"base_model_name_or_path": None}, "adapter_config.json")
    assert "base_model_name_or_path is missing" in refusal(saved)
    edit_config(saved, {"base_model_name_or_path": str(tmp_path / "gone")}, "adapter_config.json")
    assert str(tmp_path / "gone") in refusal(saved)
    assert "adapter_config.json is missing" in refusal(base, adapters=tmp_path / "gone")


def test_a_base_beside_its_adapter(base, saved, batch, tmp_path):
    """A relative path starts from the adapter's folder, so that both can be moved together."""
    expected = our_logits(load(saved), batch)
    (tmp_path / "moved").symlink_to(base)
    edit_config(saved, {"base_model_name_or_path": "../moved"}, "adapter_config.json")
    np.testing.assert_array_equal(our_logits(load(saved), batch), expected)


def test_a_folder_holds_an_adapter_or_a_model(base, saved, tmp_path):
    checkpoint = load(saved)
    other = tmp_path / "other"
    save_pretrained(checkpoint, other)
    save_pretrained(checkpoint, other, merge_adapters=True)
    assert not (other / "adapter_config.json").exists()
    assert json.loads((other / "config.json").read_text())["model_type"] == "llava"
    assert "lora" not in load(other).variables
    save_pretrained(load(base), tmp_path / "whole")
    with pytest.raises(InbolError, match="holds a whole model"):
        save_pretrained(checkpoint, tmp_path / "whole")
    with pytest.raises(InbolError, match="is where the model was loaded from"):
        save_pretrained(load(base), base)


def test_two_adapters_have_two_fingerprints(base, saved, tmp_path):
    save_pretrained(
        with_adapters(base, LoraConfig(rank=2, targets=("q_proj",)), scale=0.2), tmp_path / "b"
    )
    prints = {
        load_pretrained(base).fingerprint,
        load_pretrained(saved).fingerprint,
        load_pretrained(tmp_path / "b").fingerprint,
    }
    assert len(prints) == 3
