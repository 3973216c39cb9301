"""The weight table in both directions, and what a broken checkpoint or config says."""

import json
import shutil

import jax
import numpy as np
import pytest
import transformers
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from torch_reference import RANDOM, SPELLINGS, edit_config, load, random_torch

from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.models.config import load_config
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.reading import load_params
from inbol_jax.models.weights import TABLE, module_name, path_pattern, table_row
from inbol_jax.models.writing import save_params


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_keys(random_pair, spelling, tmp_path):
    _, folder = random_pair
    shutil.copy(folder / "config.json", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    renamed = {SPELLINGS[spelling](key): value for key, value in tensors.items()}
    assert (renamed.keys() == tensors.keys()) == (spelling == "as written")
    save_file(renamed, tmp_path / "model.safetensors")
    shapes = param_shapes(load_config(folder))
    jax.tree.map(
        np.testing.assert_array_equal, load_params(tmp_path, shapes), load_params(folder, shapes)
    )


def test_buffers_of_old_checkpoints_are_passed_over(random_pair, tmp_path):
    _, folder = random_pair
    shutil.copy(folder / "config.json", tmp_path)
    buffers = {
        "vision_tower.vision_model.embeddings.position_ids": np.arange(5)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
    }
    save_file(load_file(folder / "model.safetensors") | buffers, tmp_path / "model.safetensors")
    load(tmp_path)


def paths_of(config):
    return flatten_dict(dict(param_shapes(config)), sep="/")


def test_the_table_is_a_bijection(random_pair, tiny):
    _, folder = random_pair
    for config in (load_config(folder), tiny.config):
        paths = paths_of(config)
        assert len({table_row(path).key for path in paths}) == len(paths)
    written = {SPELLINGS["hub"](key) for key in load_file(folder / "model.safetensors")}
    assert written == {table_row(path).key for path in paths_of(load_config(folder))}


def test_no_row_of_the_table_is_idle(tmp_path):
    used = set()
    for case in RANDOM:
        random_torch(case).save_pretrained(tmp_path)
        paths = paths_of(load_config(tmp_path))
        used |= {row.path for row in TABLE for path in paths if path_pattern(row.path).fullmatch(path)}
    assert used == {row.path for row in TABLE}


def test_orders_undo_each_other():
    for row in TABLE:
        x = np.random.default_rng(0).normal(size=(5, 3, 2, 4)[: len(row.order)])
        np.testing.assert_array_equal(row.to_hf(row.from_hf(x)), x)


def test_modules_have_transformers_own_names(random_pair):
    model, folder = random_pair
    names = {name for name, _ in model.named_modules()}
    assert {module_name(path) for path in paths_of(load_config(folder))} <= names


def test_a_path_outside_the_table_is_named():
    with pytest.raises(InbolError, match="language_model/adapter/scale matches 0 rows"):
        table_row("language_model/adapter/scale")


def test_saving_takes_any_tree_of_the_model(tiny, tmp_path):
    save_params(tmp_path, tiny.variables["params"])
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    ours = load_file(TINY / "model.safetensors")
    written = load_file(tmp_path / "model.safetensors")
    assert ours.keys() == written.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)


def edit_weights(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(folder):
    with pytest.raises(InbolError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


Q_PROJ = "language_model.model.layers.1.self_attn.q_proj.weight"


def test_a_missing_key_is_named(broken):
    edit_weights(broken, lambda tensors: tensors.pop(Q_PROJ))
    message = refusal(broken)
    assert Q_PROJ in message
    assert "1 keys missing" in message
    assert "model.safetensors" in message


def test_an_unknown_key_is_named(broken):
    edit_weights(
        broken,
        lambda tensors: tensors.update(
            {"language_model.model.layers.7.extra.weight": np.zeros(2, np.float32)}
        ),
    )
    assert "1 unknown ['language_model.model.layers.7.extra.weight']" in refusal(broken)


def test_one_parameter_under_two_names(broken):
    twin = SPELLINGS["modules"](Q_PROJ)
    edit_weights(broken, lambda tensors: tensors.update({twin: tensors[Q_PROJ]}))
    message = refusal(broken)
    assert Q_PROJ in message
    assert twin in message
    assert "same parameter" in message


RESHAPES = {"short": lambda x: x[:-1], "flat": lambda x: x.reshape(-1), "deeper": lambda x: x[None]}
PATCHES, NORM = "vision_tower.embeddings.patch_embedding.weight", "language_model.model.norm.weight"
WRONG_SHAPES = [
    (how, key)
    for how in RESHAPES
    for key in (Q_PROJ, PATCHES, NORM)
    if (how, key) != ("flat", NORM)
]  # a vector is flat


@pytest.mark.parametrize(("how", "key"), WRONG_SHAPES)
def test_a_wrong_shape_is_named(broken, how, key):
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


@pytest.mark.parametrize(
    "text",
    ["{", "", "[]", '"llava"', '{"model_type": "llava", "vision_config": [], "text_config": {}}'],
)
def test_a_config_that_is_no_config(broken, text):
    (broken / "config.json").write_text(text)
    assert str(broken / "config.json") in refusal(broken)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"model_type": "llava_next"}, "model_type = 'llava_next'"),
        ({"model_type": ...}, "'model_type' is missing"),
        ({"vision_config": {"model_type": "dinov2"}}, "vision_config.model_type = 'dinov2'"),
        ({"text_config": {"model_type": "gemma2"}}, "text_config.model_type = 'gemma2'"),
        ({"vision_feature_select_strategy": "half"}, "vision_feature_select_strategy"),
        ({"vision_feature_layer": [-2, -5]}, "vision_feature_layer = -5"),
        ({"projector_hidden_act": "xielu"}, "projector_hidden_act = 'xielu'"),
        ({"vision_config": {"hidden_act": "prelu"}}, "vision_config.hidden_act = 'prelu'"),
        ({"vision_config": {"num_channels": 4}}, "vision_config.num_channels = 4"),
        ({"text_config": {"hidden_act": "no such"}}, "text_config.hidden_act = 'no such'"),
        (
            {"text_config": {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}},
            "text_config.rope_type = 'yarn'",
        ),
        (
            {"text_config": {"rope_parameters": {"partial_rotary_factor": 0.5}}},
            "text_config.partial_rotary_factor = 0.5",
        ),
        (
            {"text_config": {"rope_parameters": {"rope_type": "linear", "factor": None}}},
            "rope_type 'linear' needs a number 'factor'",
        ),
        ({"text_config": {"num_key_value_heads": 4}}, "4 key-value heads do not divide 6 heads"),
        ({"vision_config": {"num_attention_heads": 5}}, "number of attention heads (5)"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"dtype": "float8_e4m3fn"}, "dtype = 'float8_e4m3fn'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_supported_is_named(broken, change, culprit):
    edit_config(broken, change)
    message = refusal(broken)
    assert culprit in message
    assert str(broken / "config.json") in message


@pytest.mark.parametrize("layer", [4, -5])
def test_a_feature_layer_that_the_tower_does_not_have(broken, layer):
    edit_config(broken, {"vision_feature_layer": layer})  # of three layers: 0 to 3, -1 to -4
    assert "vision_feature_layer" in refusal(broken)


def test_rope_theta_of_older_configs(broken):
    edit_config(broken, {"text_config": {"rope_parameters": ..., "rope_theta": 5000.0}})
    assert load_config(broken).text.rope_theta == 5000.0
    edit_config(broken, {"text_config": {"rope_theta": ...}})
    assert load_config(broken).text.rope_theta == 10000.0


def test_left_out_values_are_those_of_transformers(broken):
    """Checkpoints on the hub, LLaVA 1.5 for one, write down only what differs from the defaults of the configuration's class."""
    sparse = {
        "model_type": "llava",
        "text_config": {
            "model_type": "llama",
            "vocab_size": 32064,
            "rms_norm_eps": 1e-05,
            "max_position_embeddings": 4096,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
    }
    (broken / "config.json").write_text(json.dumps(sparse))
    (broken / "generation_config.json").unlink()
    config, theirs = load_config(broken), transformers.LlavaConfig.from_pretrained(broken)
    text, vision = theirs.text_config, theirs.vision_config
    ours = config.text
    assert (ours.hidden_size, ours.intermediate_size, ours.num_layers) == (
        text.hidden_size,
        text.intermediate_size,
        text.num_hidden_layers,
    )
    assert (ours.num_heads, ours.num_kv_heads, ours.head_dim) == (
        text.num_attention_heads,
        text.num_key_value_heads,
        text.head_dim,
    )
    assert (ours.rms_norm_eps, ours.rope_theta) == (
        text.rms_norm_eps,
        text.rope_parameters["rope_theta"],
    )
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert (config.vision.hidden_act, config.vision.layer_norm_eps) == (
        vision.hidden_act,
        vision.layer_norm_eps,
    )
    assert (config.vision_feature_layers, config.image_token_id) == (
        (theirs.vision_feature_layer,),
        theirs.image_token_index,
    )
    assert config.eos_token_ids == (text.eos_token_id,)


@pytest.mark.parametrize("eos", [7, [7, 9]])
def test_end_of_sequence_tokens(broken, eos):
    (broken / "generation_config.json").write_text(
        json.dumps({"eos_token_id": eos, "pad_token_id": 11})
    )
    config = load_config(broken)
    assert config.eos_token_ids == ((7,) if eos == 7 else (7, 9))
    assert config.pad_token_id == 11


def test_a_config_without_image_token_or_end(broken):
    """Set to null. Neither can be guessed, and neither may come up later as a type error of JAX."""
    edit_config(broken, {"text_config": {"eos_token_id": None}})
    (broken / "generation_config.json").unlink()
    assert "eos_token_id" in refusal(broken)
    edit_config(broken, {"text_config": {"eos_token_id": 2}, "image_token_index": None})
    assert "image_token" in refusal(broken)
