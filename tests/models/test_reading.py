"""Reading weights: every spelling of the keys, and what is said about files that are broken."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch_reference import (
    SPELLINGS,
    assert_same_logits,
    edit_config,
    load,
    random_torch,
    refusal,
    shards,
    torch_base,
)

from inbol_jax.models import save_pretrained
from inbol_jax.models.config import load_config
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.reading import load_params

Q_PROJ = "language_model.model.layers.1.self_attn.q_proj.weight"
PATCHES = "vision_tower.embeddings.patch_embedding.weight"
NORM = "language_model.model.norm.weight"


def edit_weights(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_keys(llava_pair, spelling, tmp_path):
    _, folder = llava_pair
    shutil.copy(folder / "config.json", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    renamed = {SPELLINGS[spelling](key): value for key, value in tensors.items()}
    assert (renamed.keys() == tensors.keys()) == (spelling == "as written")
    save_file(renamed, tmp_path / "model.safetensors")
    shapes = param_shapes(load_config(folder))
    jax.tree.map(
        np.testing.assert_array_equal, load_params(tmp_path, shapes), load_params(folder, shapes)
    )


def test_buffers_of_old_checkpoints_are_passed_over(llava_pair, tmp_path):
    _, folder = llava_pair
    shutil.copy(folder / "config.json", tmp_path)
    buffers = {
        "vision_tower.vision_model.embeddings.position_ids": np.arange(5)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
    }
    save_file(load_file(folder / "model.safetensors") | buffers, tmp_path / "model.safetensors")
    load(tmp_path)


def test_a_head_stored_beside_the_embedding_it_is_tied_to(tmp_path):
    """Some checkpoints hold it twice; and some hold another one, although their config says, or its
    default, that it is tied. transformers reads this."""
    name = "clip qwen2 tied, list of features"
    model, key = random_torch(name), "language_model.lm_head.weight"
    model.save_pretrained(tmp_path)
    plain, tensors = load(tmp_path), load_file(tmp_path / "model.safetensors")
    head = tensors["language_model.model.embed_tokens.weight"]
    save_file(tensors | {key: head}, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).variables, plain.variables)
    save_file(tensors | {key: head[::-1].copy()}, tmp_path / "model.safetensors")
    own = load(tmp_path)
    assert not own.config.text.tie_word_embeddings
    assert_same_logits(own, torch_base(tmp_path))
    save_pretrained(own, tmp_path / "export")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "export").variables, own.variables)


def test_a_missing_key_is_named(broken):
    edit_weights(broken, lambda tensors: tensors.pop(Q_PROJ))
    message = refusal(broken)
    assert Q_PROJ in message
    assert "1 keys missing" in message
    assert "model.safetensors" in message


def test_an_unknown_key_is_named(broken):
    key = "language_model.model.layers.7.extra.weight"
    edit_weights(broken, lambda tensors: tensors.update({key: np.zeros(2, np.float32)}))
    assert f"1 unknown ['{key}']" in refusal(broken)


def test_one_parameter_under_two_names(broken):
    twin = SPELLINGS["modules"](Q_PROJ)
    edit_weights(broken, lambda tensors: tensors.update({twin: tensors[Q_PROJ]}))
    message = refusal(broken)
    assert Q_PROJ in message
    assert twin in message
    assert "same parameter" in message


RESHAPES = {"short": lambda x: x[:-1], "flat": lambda x: x.reshape(-1), "deeper": lambda x: x[None]}


@pytest.mark.parametrize("how", RESHAPES)
@pytest.mark.parametrize("key", [Q_PROJ, PATCHES, NORM])
def test_a_wrong_shape_is_named(broken, how, key):
    if (how, key) == ("flat", NORM):
        return  # a vector is flat
    reshape = RESHAPES[how]
    edit_weights(
        broken, lambda tensors: tensors.update({key: np.ascontiguousarray(reshape(tensors[key]))})
    )
    message = refusal(broken)
    assert key in message
    assert "shape" in message


def test_config_and_weights_that_disagree(broken):
    edit_config(broken, {"text_config": {"vocab_size": 51}})
    message = refusal(broken)
    assert "(50, 24)" in message
    assert "(51, 24)" in message


@pytest.mark.parametrize(
    "kept",
    [0, 5, 100, 4000, -1],
    ids=["empty", "length cut", "header cut", "tensors cut", "last byte cut"],
)
def test_truncated_weights(broken, kept):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    message = refusal(broken)
    assert str(file) in message
    assert "not a readable safetensors file" in message


def test_weights_that_are_something_else(broken):
    (broken / "model.safetensors").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    assert "not a readable safetensors file" in refusal(broken)


def test_missing_files(broken, tmp_path):
    (broken / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(broken)
    (broken / "model.safetensors.index.json").write_text("{}")
    assert "not an index of safetensors files" in refusal(broken)
    (broken / "config.json").unlink()
    assert "config.json is missing" in refusal(broken)
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


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


@pytest.mark.parametrize("value", [5, None, "x" * 5000, {"a": "b"}])
def test_an_index_with_names_that_are_none(split, value):
    (split / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": value}}))
    assert "model.safetensors.index.json: not an index" in refusal(split)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_links_out_of_the_folder(broken, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_bytes((broken / name).read_bytes() if (broken / name).is_file() else b"{}")
    (broken / name).unlink(missing_ok=True)
    (broken / name).symlink_to(outside)
    assert f"{broken / name} is a link out of the checkpoint's folder" in refusal(broken)


def test_links_of_a_hub_cache(broken, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0123", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(broken, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    (tmp_path / "linked").symlink_to(snapshot)
    assert load(tmp_path / "linked").fingerprint == load(broken).fingerprint


def test_shapes_are_compared_before_a_weight_is_read(broken, monkeypatch):
    monkeypatch.setattr("inbol_jax.models.reading._place", None)
    edit_config(broken, {"text_config": {"vocab_size": 1 << 20, "intermediate_size": 1 << 20}})
    assert "config.json says" in refusal(broken)
