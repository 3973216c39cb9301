"""Checkpoints in several files, on a mesh, from the hub's cache; and `inbol convert`."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch_reference import CLOSE, edit_config, load, make_batch, our_logits, torch_logits
from transformers import LlavaForConditionalGeneration

from inbol_jax.cli import main
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig, load_pretrained, save_pretrained
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import find_checkpoint
from inbol_jax.models.lora import init_lora
from inbol_jax.models.writing import parse_size
from inbol_jax.sharding import make_mesh


@pytest.fixture
def split(sound, tmp_path):
    """A checkpoint in several files."""
    save_pretrained(load(sound), tmp_path / "split", max_shard_size="20KB")
    return tmp_path / "split"


def refusal(*arguments, **options):
    with pytest.raises(InbolError) as caught:
        load_pretrained(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shards(folder):
    return sorted(folder.glob("model-*.safetensors"))


# --- files


def test_several_files_are_one_checkpoint(sound, split):
    files = shards(split)
    assert len(files) > 3
    assert not (split / "model.safetensors").exists()
    assert all(
        sum(x.nbytes for x in load_file(f).values()) <= 20_000 or len(load_file(f)) == 1
        for f in files
    )
    index = json.loads((split / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(
        x.nbytes for f in files for x in load_file(f).values()
    )
    one, many = load(sound), load(split)
    jax.tree.map(np.testing.assert_array_equal, dict(one.variables), dict(many.variables))
    model, report = LlavaForConditionalGeneration.from_pretrained(split, output_loading_info=True)
    assert {name: found for name, found in report.items() if found} == {}
    batch = make_batch(one.config, [9, 9])
    np.testing.assert_allclose(our_logits(many, batch), torch_logits(model.eval(), batch), **CLOSE)


def test_files_of_an_earlier_save_do_not_stay(sound, split):
    checkpoint = load(sound)
    save_pretrained(checkpoint, split, max_shard_size="40KB")
    named = set(
        json.loads((split / "model.safetensors.index.json").read_text())["weight_map"].values()
    )
    assert {f.name for f in shards(split)} == named
    save_pretrained(checkpoint, split)
    assert shards(split) == []
    assert sorted(p.name for p in split.glob("model*")) == ["model.safetensors"]
    save_pretrained(checkpoint, split, max_shard_size="20KB")
    assert not (split / "model.safetensors").exists()
    jax.tree.map(np.testing.assert_array_equal, dict(load(split).variables), dict(checkpoint.variables))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_config_says_what_the_weights_are(sound, tmp_path, dtype):
    """transformers reads weights into the dtype of the config: float16 there would round bfloat16 away."""
    shutil.copytree(sound, tmp_path / "half")
    edit_config(tmp_path / "half", {"dtype": "float16", "text_config": {"torch_dtype": "float16"}})
    save_pretrained(load_pretrained(tmp_path / "half", dtype=dtype), tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["dtype"] == config["text_config"]["dtype"] == dtype
    assert {str(x.dtype) for x in load_file(tmp_path / "out/model.safetensors").values()} == {dtype}
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}
    assert load_pretrained(tmp_path / "out", dtype="auto").model.dtype == dtype
    assert load_pretrained(tmp_path / "half", dtype="auto").model.dtype == jnp.bfloat16


def test_a_head_stored_beside_the_embedding_it_is_tied_to(tmp_path):
    """Some checkpoints hold it twice; transformers reads the embedding."""
    shutil.copytree(TINY, tmp_path / "tied")
    tensors = load_file(TINY / "model.safetensors")
    save_file(
        tensors | {"language_model.lm_head.weight": np.ones((1080, 160), np.float32)},
        tmp_path / "tied/model.safetensors",
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        dict(load(tmp_path / "tied").variables),
        dict(load(TINY).variables),
    )


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("200 MiB", 200 * 2**20), ("1000", 1000), ("3kb", 3000)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5XB", "-1GB", "1.5e3"])
def test_sizes_that_are_none(text):
    with pytest.raises(InbolError, match="is not a size"):
        parse_size(text)


def test_a_missing_shard(split):
    shards(split)[1].unlink()
    message = refusal(split)
    assert shards(split)[0].name.replace("00001-of", "00002-of") in message
    assert "is missing" in message


def test_a_truncated_shard(split):
    file = shards(split)[-1]
    file.write_bytes(file.read_bytes()[:-1])
    message = refusal(split)
    assert str(file) in message
    assert "not a readable safetensors file" in message


def test_a_shard_with_other_tensors(split):
    first, second = shards(split)[:2]
    shutil.copy(first, second)
    assert "are the same parameter" in refusal(split)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/hostname", "sub/model.safetensors"]
)
def test_an_index_that_leaves_the_folder(split, name):
    index = split / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = name
    index.write_text(json.dumps(content))
    assert f"{name!r} is not a file name" in refusal(split)


def test_weights_of_a_type_that_holds_no_floats(split):
    file = shards(split)[0]
    save_file({key: x.astype(np.int8) for key, x in load_file(file).items()}, file)
    assert "is of type I8" in refusal(split)


# --- the hub, by its cache on this machine


def test_a_hub_id(sound, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repo = tmp_path / "models--someone--tiny-llava"
    shutil.copytree(sound, repo / "snapshots/0123456789")
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("0123456789")
    assert find_checkpoint("someone/tiny-llava") == repo / "snapshots/0123456789"
    jax.tree.map(
        np.testing.assert_array_equal,
        dict(load("someone/tiny-llava").variables),
        dict(load(sound).variables),
    )
    # An adapter names its base by the hub's id, which PEFT knows as well.
    save_pretrained(with_adapters("someone/tiny-llava"), tmp_path / "adapter")
    assert (
        json.loads((tmp_path / "adapter/adapter_config.json").read_text())[
            "base_model_name_or_path"
        ]
        == "someone/tiny-llava"
    )
    assert load(tmp_path / "adapter").path == repo / "snapshots/0123456789"
    message = refusal("someone/else")
    assert (
        "someone/else is no folder here, and as a model id of the Hugging Face hub it cannot be loaded"
        in message
    )
    assert "is not a checkpoint folder" in refusal(tmp_path / "nowhere")


# --- a mesh

ON_A_MESH = """
import sys
import jax, jax.numpy as jnp, numpy as np
from flax.traverse_util import flatten_dict
from inbol_jax.models import load_pretrained
from inbol_jax.sharding import make_mesh, shard_batch
folder, adapter = sys.argv[1:]
one = load_pretrained(folder, dtype=jnp.float32, adapters=adapter)
random = np.random.default_rng(0)
ids = random.integers(4, 50, (8, 9)).astype(np.int32)
ids[:, 1:5] = one.config.image_token_id
batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "pixel_values": random.normal(size=(8, 1, 3, 16, 16)).astype(np.float32)}
run = jax.jit(one.model.apply)
expected = np.asarray(run(one.variables, batch))
for sizes in ((8, 1, 1), (2, 2, 2), (1, 8, 1), (1, 2, 4), (1, 1, 8)):
    mesh = make_mesh(*sizes)
    checkpoint = load_pretrained(folder, dtype=jnp.float32, mesh=mesh, adapters=adapter)
    jax.tree.map(np.testing.assert_array_equal, dict(checkpoint.variables), dict(one.variables))
    flat = flatten_dict(dict(checkpoint.variables["params"]), sep="/")
    kernel = flat["language_model/layers_0/mlp/up_proj/kernel"]
    assert kernel.addressable_shards[0].data.shape == (kernel.shape[0] // sizes[1], kernel.shape[1] // sizes[2]), kernel.sharding
    np.testing.assert_allclose(run(checkpoint.variables, shard_batch(batch, mesh)), expected, atol=1e-4, rtol=1e-4)
print("same on every mesh")
"""


def with_adapters(folder, scale=0.1):
    checkpoint, config = load(folder), LoraConfig(rank=2, alpha=3.0)
    lora = init_lora(checkpoint.variables["params"], config, jax.random.key(0))
    lora = jax.tree.map(lambda x: x + scale, lora)
    return dataclasses.replace(
        checkpoint,
        model=Llava(checkpoint.config, jnp.float32, config),
        variables=checkpoint.variables | {"lora": lora},
    )


def test_on_any_mesh(sound, tmp_path):
    save_pretrained(with_adapters(sound), tmp_path / "adapter")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_A_MESH, str(sound), str(tmp_path / "adapter")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("same on every mesh"), done.stderr[-3000:]


@pytest.mark.parametrize("sizes", [(2, 1, 1), (-1, -1, 1), (0, 1, 1), (1, 1, 3)])
def test_meshes_that_do_not_fit(sizes):
    with pytest.raises(InbolError, match=r"does not fit 1 devices"):
        make_mesh(*sizes)


# --- inbol convert


def test_convert_merges_splits_and_verifies(sound, tmp_path, capsys):
    save_pretrained(with_adapters(sound), tmp_path / "adapter")
    out = tmp_path / "out"
    assert (
        main(
            [
                "convert",
                str(tmp_path / "adapter"),
                str(out),
                "--merge-lora",
                "--max-shard-size",
                "30KB",
                "--verify",
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"parameters of float32 -> .*out \(0\.\d MB\)", lines[0])
    assert re.search(r"logits differ by \d.*e-0[5-9] of their spread .* 100\.0%", lines[1])
    assert len(shards(out)) > 1
    batch = make_batch(load(sound).config, [9, 9])
    np.testing.assert_allclose(
        our_logits(load(out), batch), our_logits(load(tmp_path / "adapter"), batch), **CLOSE
    )
    # In bfloat16, and as adapters alone.
    assert (
        main(
            [
                "convert",
                str(tmp_path / "adapter"),
                str(tmp_path / "low"),
                "--merge-lora",
                "--dtype",
                "bfloat16",
                "--verify",
            ]
        )
        == 0
    )
    assert {x.dtype for x in load_file(tmp_path / "low/model.safetensors").values()} == {
        jnp.dtype(jnp.bfloat16)
    }
    assert main(["convert", str(tmp_path / "adapter"), str(tmp_path / "same"), "--verify"]) == 0
    assert (tmp_path / "same/adapter_config.json").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_verify_notices(sound, tmp_path, capsys, monkeypatch, dtype):
    """One layer's norm lost, the smallest of all parameters."""

    def save_wrongly(checkpoint, path, **options):
        params = jax.tree.map(lambda x: x, dict(checkpoint.variables["params"]))
        params["language_model"]["layers_0"]["input_layernorm"]["scale"] *= 0
        save_pretrained(dataclasses.replace(checkpoint, variables={"params": params}), path, **options)

    monkeypatch.setattr("inbol_jax.models.loading.save_pretrained", save_wrongly)
    assert main(["convert", str(sound), str(tmp_path / "out"), "--verify", "--dtype", dtype]) == 2
    assert "does not compute what" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{sound}", "{out}", "--merge-lora"], "holds no adapters"),
        (["{sound}", "{sound}"], "is the source itself"),
        (["{sound}", "{out}", "--max-shard-size", "many"], "is not a size"),
        (["{out}", "{out}2"], "config.json is missing"),
        (["{sound}"], "DST"),
    ],
)
def test_conversions_that_cannot_be_meant(sound, tmp_path, capsys, arguments, words):
    assert main(["convert", *(a.format(sound=sound, out=tmp_path / "out") for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
