"""Writing checkpoints: in one file or several, over what is there, and sizes of shards."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from torch_reference import CLOSE, load, make_batch, our_logits, shards, torch_logits
from transformers import LlavaForConditionalGeneration

from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.models import save_pretrained
from inbol_jax.models.writing import parse_size, save_params


def test_several_files_are_one_checkpoint(sound, split):
    files = shards(split)
    assert len(files) > 3
    assert not (split / "model.safetensors").exists()
    total = 0
    for tensors in map(load_file, files):
        size = sum(x.nbytes for x in tensors.values())
        assert size <= 20_000 or len(tensors) == 1
        total += size
    index = json.loads((split / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == total
    one, many = load(sound), load(split)
    jax.tree.map(np.testing.assert_array_equal, dict(one.variables), dict(many.variables))
    model, report = LlavaForConditionalGeneration.from_pretrained(split, output_loading_info=True)
    assert not any(report.values())
    batch = make_batch(one.config, [9, 9])
    np.testing.assert_allclose(our_logits(many, batch), torch_logits(model.eval(), batch), **CLOSE)


def test_files_of_an_earlier_save_do_not_stay(sound, split):
    checkpoint = load(sound)
    save_pretrained(checkpoint, split, max_shard_size="40KB")
    index = json.loads((split / "model.safetensors.index.json").read_text())
    assert {f.name for f in shards(split)} == set(index["weight_map"].values())
    save_pretrained(checkpoint, split)
    assert shards(split) == []
    assert sorted(p.name for p in split.glob("model*")) == ["model.safetensors"]
    save_pretrained(checkpoint, split, max_shard_size="20KB")
    assert not (split / "model.safetensors").exists()
    jax.tree.map(
        np.testing.assert_array_equal, dict(load(split).variables), dict(checkpoint.variables)
    )


def test_saving_takes_any_tree_of_the_model(tiny, tmp_path):
    save_params(tmp_path, tiny.variables["params"])
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    ours = load_file(TINY / "model.safetensors")
    written = load_file(tmp_path / "model.safetensors")
    assert ours.keys() == written.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("200 MiB", 200 * 2**20), ("1000", 1000), ("3kb", 3000)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5XB", "-1GB", "1.5e3"])
def test_sizes_that_are_none(text):
    with pytest.raises(InbolError, match="is not a size"):
        parse_size(text)
