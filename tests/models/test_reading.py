"""Weights on disk: what is said about files that are broken, and checkpoints in several files."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch_reference import (
    CLOSE,
    SPELLINGS,
    edit_config,
    load,
    make_batch,
    our_logits,
    random_torch,
    refusal,
    shards,
    torch_logits,
)
from transformers import AutoModelForImageTextToText

from inbol_jax.models import save_pretrained
from inbol_jax.models.weights import TABLE

Q_PROJ = "language_model.model.layers.1.self_attn.q_proj.weight"
PATCHES = "vision_tower.embeddings.patch_embedding.weight"
NORM = "language_model.model.norm.weight"
EXTRA = "language_model.model.layers.7.extra.weight"
INDEX = "model.safetensors.index.json"
TIED = "clip llama tied, biases, linear rope, full"


def test_orders_undo_each_other():
    for row in TABLE.values():
        x = np.random.default_rng(0).normal(size=(5, 3, 2, 4, 6)[: len(row.order)])
        np.testing.assert_array_equal(row.to_hf(row.from_hf(x)), x)


def test_a_head_stored_beside_the_embedding_it_is_tied_to(tmp_path):
    """Some checkpoints hold it twice; and some hold another one, although their config says, or its
    default, that it is tied. transformers reads this."""
    model, key = random_torch(TIED), "language_model.lm_head.weight"
    model.save_pretrained(tmp_path)
    plain, tensors = load(tmp_path), load_file(tmp_path / "model.safetensors")
    head = tensors["language_model.model.embed_tokens.weight"]
    save_file(tensors | {key: head}, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).variables, plain.variables)
    save_file(tensors | {key: head[::-1].copy()}, tmp_path / "model.safetensors")
    own = load(tmp_path)
    assert not own.config.text.tie_word_embeddings
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path).state_dict()
    np.testing.assert_array_equal(theirs["lm_head.weight"].numpy(), head[::-1])
    save_pretrained(own, tmp_path / "export")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "export").variables, own.variables)


def changed(key, change):
    return lambda x: x | {key: np.ascontiguousarray(change(x[key]))}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda x: {k: v for k, v in x.items() if k != Q_PROJ}, f"1 keys missing ['{Q_PROJ}']"),
        (lambda x: x | {EXTRA: np.zeros(2, np.float32)}, f"1 unknown ['{EXTRA}']"),
        (lambda x: x | {SPELLINGS["modules"](Q_PROJ): x[Q_PROJ]}, "are the same parameter"),
        (changed(Q_PROJ, lambda x: x[:-1]), f"{Q_PROJ} has shape"),
        (changed(PATCHES, lambda x: x.reshape(-1)), f"{PATCHES} has shape"),
        (changed(NORM, lambda x: x[None]), f"{NORM} has shape"),
        (changed(NORM, lambda x: x.astype(np.int8)), "is of type I8"),
    ],
)
def test_tensors_that_do_not_fit_are_named(broken, edit, words):
    file = broken / "model.safetensors"
    save_file(edit(load_file(file)), file)
    message = refusal(broken)
    assert words in message
    assert str(file) in message


def test_shapes_are_compared_before_a_weight_is_read(broken, monkeypatch):
    monkeypatch.setattr("inbol_jax.models.reading._place", None)
    edit_config(broken, {"text_config": {"vocab_size": 1 << 20}})
    message = refusal(broken)
    assert "(50, 24), config.json says (1048576, 24)" in message


@pytest.mark.parametrize("kept", [0, 5, 4000, -1])
def test_truncated_weights(broken, kept):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert f"{file}: not a readable safetensors file" in refusal(broken)


def test_missing_files(broken, tmp_path):
    (broken / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(broken)
    for value in ({}, {"weight_map": {"a": 5}}, {"weight_map": {"a": None}}):
        (broken / INDEX).write_text(json.dumps(value))
        assert f"{INDEX}: not an index" in refusal(broken)
    (broken / "config.json").unlink()
    assert "config.json is missing" in refusal(broken)
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "gone.safetensors"])
def test_an_index_that_leaves_the_folder(split, name):
    content = json.loads((split / INDEX).read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = name
    (split / INDEX).write_text(json.dumps(content))
    assert f"{name} is missing: {INDEX} names it" in refusal(split)


def test_several_files_are_one_checkpoint(sound, split):
    files = shards(split)
    assert len(files) > 3
    assert not (split / "model.safetensors").exists()
    total = 0
    for tensors in map(load_file, files):
        size = sum(x.nbytes for x in tensors.values())
        assert size <= 20_000 or len(tensors) == 1
        total += size
    assert json.loads((split / INDEX).read_text())["metadata"]["total_size"] == total
    one, many = load(sound), load(split)
    jax.tree.map(np.testing.assert_array_equal, dict(one.variables), dict(many.variables))
    model, report = AutoModelForImageTextToText.from_pretrained(split, output_loading_info=True)
    assert not any(report.values())
    batch = make_batch(one.config, [9, 9])
    np.testing.assert_allclose(our_logits(many, batch), torch_logits(model.eval(), batch), **CLOSE)
    shutil.copy(files[0], files[1])
    assert "are the same parameter" in refusal(split)


def test_files_of_an_earlier_save_do_not_stay(sound, split):
    checkpoint = load(sound)
    save_pretrained(checkpoint, split, max_shard_size="40KB")
    index = json.loads((split / INDEX).read_text())
    assert {f.name for f in shards(split)} == set(index["weight_map"].values())
    save_pretrained(checkpoint, split)
    assert shards(split) == []
    assert sorted(p.name for p in split.glob("model*")) == ["model.safetensors"]


def test_links_of_a_hub_cache(broken, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0123", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(broken, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert load(snapshot).fingerprint == load(broken).fingerprint
