"""Checkpoints as a whole: dtypes, the hub's cache, meshes, adapters, fingerprints, `convert`."""

import json
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from torch_reference import CLOSE, edit_config, load, make_batch, our_logits, refusal, with_adapters
from transformers import LlavaForConditionalGeneration
from virtual_devices import run_on_devices

from inbol_jax.cli import main
from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig, load_pretrained, save_pretrained
from inbol_jax.models.loading import find_checkpoint


def test_nothing_is_said_of_torch_which_is_not_needed():
    program = (
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *more: name != 'torch' and find(name, *more) or None\n"
        "import inbol_jax.models, transformers\n"
        "assert not transformers.utils.is_torch_available()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_config_says_what_the_weights_are(sound, tmp_path, dtype):
    """transformers reads weights into the dtype of the config, so that must be the new one."""
    half = shutil.copytree(sound, tmp_path / "half")
    edit_config(half, {"dtype": "float16", "text_config": {"torch_dtype": "float16"}})
    out = tmp_path / "out"
    assert main(["convert", str(half), str(out), "--dtype", dtype]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == config["text_config"]["dtype"] == dtype
    assert {str(x.dtype) for x in load_file(out / "model.safetensors").values()} == {dtype}
    model = LlavaForConditionalGeneration.from_pretrained(out)
    assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [("float32", "float32"), ("float16", "bfloat16"), ("bfloat16", "bfloat16")],
)
def test_the_dtype_is_float32_for_float32_checkpoints_alone(sound, tmp_path, stored, dtype):
    """By default, which is "auto"."""
    shutil.copytree(sound, tmp_path / "copy")
    edit_config(tmp_path / "copy", {"dtype": stored})
    checkpoint = load_pretrained(tmp_path / "copy")
    assert checkpoint.model.dtype == dtype
    assert checkpoint.model.attention == "xla"  # on a CPU
    assert {x.dtype for x in jax.tree.leaves(checkpoint.variables)} == {jnp.dtype(dtype)}


def test_convert_merges_adapters_or_keeps_them_alone(sound, tmp_path, capsys):
    adapter, out = str(tmp_path / "adapter"), str(tmp_path / "out")
    save_pretrained(with_adapters(sound), adapter)
    assert main(["convert", adapter, out, "--merge-lora"]) == 0
    assert re.search(r"float32 of .*adapter -> .*out \(0\.\d MB\)", capsys.readouterr().out)
    batch = make_batch(load(sound).config, [9, 9])
    expected = our_logits(load(adapter), batch)
    np.testing.assert_allclose(our_logits(load(out), batch), expected, **CLOSE)
    assert main(["convert", adapter, str(tmp_path / "same")]) == 0
    assert (tmp_path / "same/adapter_config.json").exists()
    assert capsys.readouterr().out.startswith("adapters of ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{sound}", "{out}", "--merge-lora"], "holds no adapters"),
        (["{sound}", "{sound}"], "is where the model was loaded from"),
        (["{sound}", "{sound}/inside"], "is where the model was loaded from"),
        (["{out}", "{out}2"], "config.json is missing"),
        (["{sound}"], "DST"),
    ],
)
def test_conversions_that_cannot_be_meant(sound, tmp_path, capsys, arguments, words):
    assert main(["convert", *(a.format(sound=sound, out=tmp_path / "out") for a in arguments)]) == 2
    assert words in capsys.readouterr().err


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
    options = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert options["base_model_name_or_path"] == "someone/tiny-llava"
    assert load(tmp_path / "adapter").path == repo / "snapshots/0123456789"
    message = refusal("someone/else")
    assert "someone/else is no folder here, and as a model id of the Hugging Face hub " in message
    assert "hub it cannot be loaded" in message
    assert "is not a checkpoint folder" in refusal(tmp_path / "nowhere")


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
pixels = random.normal(size=(8, 1, 3, 16, 16)).astype(np.float32)
batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "pixel_values": pixels}
run = jax.jit(one.model.apply)
expected = np.asarray(run(one.variables, batch))
for sizes in ((1, 2, 4), (2, 2, 2)):
    mesh = make_mesh(*sizes)
    checkpoint = load_pretrained(folder, dtype=jnp.float32, mesh=mesh, adapters=adapter)
    jax.tree.map(np.testing.assert_array_equal, dict(checkpoint.variables), dict(one.variables))
    flat = flatten_dict(dict(checkpoint.variables["params"]), sep="/")
    kernel = flat["language_model/layers_0/mlp/up_proj/kernel"]
    part = (kernel.shape[0] // sizes[1], kernel.shape[1] // sizes[2])
    assert kernel.addressable_shards[0].data.shape == part, kernel.sharding
logits = run(checkpoint.variables, shard_batch(batch, mesh))
np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)
print("same on every mesh")
"""


def test_on_any_mesh(sound, tmp_path):
    save_pretrained(with_adapters(sound), tmp_path / "adapter")
    done = run_on_devices(ON_A_MESH, sound, tmp_path / "adapter")
    assert done.stdout.strip().endswith("same on every mesh"), done.stderr[-3000:]


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
    other = with_adapters(base, LoraConfig(rank=2, targets=("q_proj",)), scale=0.2)
    save_pretrained(other, tmp_path / "b")
    prints = {
        load_pretrained(base).fingerprint,
        load_pretrained(saved).fingerprint,
        load_pretrained(tmp_path / "b").fingerprint,
    }
    assert len(prints) == 3


def test_a_bias_of_generation_goes_with_the_adapters_that_have_it(base, saved, tmp_path):
    before = load(saved)
    file = saved / "generation_config.json"
    generation = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(generation | {"sequence_bias": [[[4], 1.5]]}))
    biased = load(saved)
    assert biased.config.sequence_bias == biased.model.config.sequence_bias == (((4,), 1.5),)
    assert before.config.sequence_bias == load(base).config.sequence_bias == ()
    assert biased.fingerprint != before.fingerprint
    for name, merge in (("merged", True), ("copy", False)):
        save_pretrained(biased, tmp_path / name, merge_adapters=merge)
        assert load(tmp_path / name).config.sequence_bias == (((4,), 1.5),)


def test_other_files_in_the_folder_are_none_of_the_checkpoint(sound, tmp_path):
    """Such as those of a run whose --out lies in it; every file that transformers reads counts."""
    folder = shutil.copytree(sound, tmp_path / "model")
    before = load(folder).fingerprint
    for name in ("predictions.json", "other.safetensors", "page.jinja", "notes.txt"):
        (folder / name).write_text("{}")
    (folder / "out").mkdir()
    assert load(folder).fingerprint == before
    save_pretrained(load(folder), tmp_path / "copy")
    assert not (tmp_path / "copy/predictions.json").exists()
    for name in ("tokenizer.json", "chat_template.jinja", "preprocessor_config.json"):
        (folder / name).write_text("{}")
        assert load(folder).fingerprint != before
        (folder / name).unlink()
