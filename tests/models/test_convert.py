"""`inbol convert`: what it writes, what --verify notices, and what it refuses."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from torch_reference import CLOSE, load, make_batch, our_logits, with_adapters

from inbol_jax.cli import main
from inbol_jax.models import save_pretrained


def test_convert_merges_and_verifies(sound, tmp_path, capsys):
    adapter, out = tmp_path / "adapter", tmp_path / "out"
    save_pretrained(with_adapters(sound), adapter)
    options = ["--merge-lora", "--verify"]
    assert main(["convert", str(adapter), str(out), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"parameters of float32 -> .*out \(0\.\d MB\)", lines[0])
    assert re.search(r"logits differ by \d.*e-0[5-9] of their spread .* 100\.0%", lines[1])
    batch = make_batch(load(sound).config, [9, 9])
    expected = our_logits(load(adapter), batch)
    np.testing.assert_allclose(our_logits(load(out), batch), expected, **CLOSE)


def test_convert_changes_the_dtype(sound, tmp_path):
    adapter, out = tmp_path / "adapter", tmp_path / "low"
    save_pretrained(with_adapters(sound), adapter)
    options = ["--merge-lora", "--dtype", "bfloat16", "--verify"]
    assert main(["convert", str(adapter), str(out), *options]) == 0
    tensors = load_file(out / "model.safetensors")
    assert {x.dtype for x in tensors.values()} == {jnp.dtype(jnp.bfloat16)}


def test_convert_keeps_adapters_alone_and_counts_them(sound, tmp_path, capsys):
    checkpoint = with_adapters(sound)
    save_pretrained(checkpoint, tmp_path / "adapter")
    assert main(["convert", str(tmp_path / "adapter"), str(tmp_path / "same"), "--verify"]) == 0
    assert (tmp_path / "same/adapter_config.json").exists()
    count = sum(x.size for x in jax.tree.leaves(checkpoint.variables["lora"]))
    assert capsys.readouterr().out.startswith(f"{count:,} parameters of adapters -> ")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_verify_notices(sound, tmp_path, capsys, monkeypatch, dtype):
    """One layer's norm lost, the smallest of all parameters."""

    def save_wrongly(checkpoint, path, **options):
        params = jax.tree.map(lambda x: x, dict(checkpoint.variables["params"]))
        params["language_model"]["layers_0"]["input_layernorm"]["scale"] *= 0
        wrong = dataclasses.replace(checkpoint, variables={"params": params})
        save_pretrained(wrong, path, **options)

    monkeypatch.setattr("inbol_jax.models.loading.save_pretrained", save_wrongly)
    assert main(["convert", str(sound), str(tmp_path / "out"), "--verify", "--dtype", dtype]) == 2
    assert "does not compute what" in capsys.readouterr().err


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
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
