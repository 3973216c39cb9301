"""LLaVA against transformers, on the shipped checkpoint and on tiny random ones, and the weight table in both directions."""

import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from transformers import LlavaForConditionalGeneration

from inbol_jax.data.batches import Branch, RowShape, pack_row
from inbol_jax.errors import InbolError
from inbol_jax.models import load_pretrained
from inbol_jax.models.config import load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import TINY, param_shapes, save_pretrained
from inbol_jax.models.weights import TABLE, hf_key, load_params, save_params

IMAGE = 3
CLOSE = {"atol": 1e-4, "rtol": 1e-4}

VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 16,
}
TEXT = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
RANDOM = {
    "grouped": ({}, {}, {"num_key_value_heads": 2}),
    "untied, head_dim, last feature": (
        {"vision_feature_layer": -1},
        {"hidden_act": "gelu", "layer_norm_eps": 1e-3},
        {"head_dim": 10, "num_attention_heads": 4, "num_key_value_heads": 1},
    ),
    "tied, theta": (
        {"tie_word_embeddings": True, "vision_feature_layer": 1},
        {"image_size": 24},
        {"tie_word_embeddings": True, "rms_norm_eps": 1e-2, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ),
}
# A key as transformers 5 writes it -> as the checkpoints on the hub have it, and as the modules of transformers 4.52 to 5 call it.
SPELLINGS = {
    "as written": lambda key: key,
    "hub": lambda key: re.sub(r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", key),
    "modules": lambda key: "lm_head.weight" if "lm_head" in key else "model." + key.replace("language_model.model.", "language_model."),
}


def random_torch(case):
    """A LLaVA of transformers in which every parameter matters: norms and biases are random, and logits are far from zero."""
    top, vision, text = RANDOM[case]
    vision = VISION | vision
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    top = {"vision_feature_layer": -2, "image_token_index": IMAGE, "image_seq_length": patches} | top
    config = transformers.LlavaConfig(vision_config=vision, text_config=TEXT | text, **top)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.15)
    return model


@pytest.fixture(scope="module", params=RANDOM)
def random_pair(request, tmp_path_factory):
    """A random model of transformers, and the folder that it saved itself in."""
    folder = tmp_path_factory.mktemp("random")
    model = random_torch(request.param)
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    random_torch("grouped").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shipped_torch():
    model, report = LlavaForConditionalGeneration.from_pretrained(TINY, output_loading_info=True, local_files_only=True)
    assert {name: found for name, found in report.items() if found} == {}, "missing, unexpected or mismatched keys"
    return model.eval()


def make_batch(config, lengths, *, side="right", images=1, seed=0):
    """Rows of the given lengths: random text around the image tokens, random pictures; padding is of random tokens too."""
    random = np.random.default_rng(seed)
    width, patches = max(lengths), config.num_image_tokens
    words = np.array([i for i in range(config.text.vocab_size) if i != config.image_token_id])
    ids, mask = random.choice(words, (len(lengths), width)), np.zeros((len(lengths), width), np.int32)
    for row, length in enumerate(lengths):
        line = random.choice(words, length)
        for block in np.array_split(np.arange(length), images):
            start = block[0] + random.integers(len(block) - patches + 1)
            line[start : start + patches] = config.image_token_id
        where = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, where], mask[row, where] = line, 1
    size = config.vision.image_size
    pixels = random.normal(size=(len(lengths) * images, 3, size, size)).astype(np.float32)
    return {"input_ids": ids.astype(np.int32), "attention_mask": mask, "pixel_values": pixels}


def pad(rows):
    """Rows of ids as a batch, padded on the right."""
    lengths = np.array([len(row) for row in rows])
    ids = np.stack([np.pad(row, (0, lengths.max() - len(row))) for row in rows]).astype(np.int32)
    return {"input_ids": ids, "attention_mask": (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int32)}


def torch_logits(model, batch):
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(value) for name, value in batch.items()}
        inputs |= {name: inputs[name].long() for name in ("input_ids", "attention_mask")}
        return model(**inputs).logits.numpy()


@functools.partial(jax.jit, static_argnums=0)
def forward(model, variables, batch):
    return model.apply(variables, batch)


def our_logits(loaded, batch):
    return np.asarray(forward(loaded.model, loaded.variables, batch))


def assert_same_logits(loaded, model, *, images=(1,)):
    shortest = 2 + loaded.config.num_image_tokens
    for side in ("right", "left"):
        for n in images:
            batch = make_batch(loaded.config, [n * shortest, n * shortest + 9, n * shortest + 4], side=side, images=n, seed=n)
            ours, theirs, counts = our_logits(loaded, batch), torch_logits(model, batch), batch["attention_mask"] == 1
            assert ours.dtype == np.float32
            assert np.std(theirs[counts]) > 0.1, "logits too small for an absolute tolerance to mean anything"
            np.testing.assert_allclose(ours[counts], theirs[counts], **CLOSE, err_msg=f"{side} padding, {n} images")


# --- logits


def test_shipped_checkpoint(tiny, shipped_torch):
    assert_same_logits(tiny, shipped_torch)


def test_random_checkpoints(random_pair):
    model, folder = random_pair
    assert_same_logits(load_pretrained(folder), model, images=(1, 2))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_keys(random_pair, spelling, tmp_path):
    _, folder = random_pair
    shutil.copy(folder / "config.json", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    renamed = {SPELLINGS[spelling](key): value for key, value in tensors.items()}
    assert (renamed.keys() == tensors.keys()) == (spelling == "as written")
    save_file(renamed, tmp_path / "model.safetensors")
    shapes = param_shapes(load_config(folder))
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path, shapes), load_params(folder, shapes))


def test_buffers_of_old_checkpoints_are_passed_over(random_pair, tmp_path):
    _, folder = random_pair
    shutil.copy(folder / "config.json", tmp_path)
    buffers = {
        "vision_tower.vision_model.embeddings.position_ids": np.arange(5)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
    }
    save_file(load_file(folder / "model.safetensors") | buffers, tmp_path / "model.safetensors")
    load_pretrained(tmp_path)


def test_export_reloads_in_transformers(random_pair, tmp_path):
    model, folder = random_pair
    loaded = load_pretrained(folder)
    save_pretrained(loaded, loaded.variables["params"], tmp_path / "export")
    again, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert {name: found for name, found in report.items() if found} == {}
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert_same_logits(load_pretrained(tmp_path / "export"), again)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files(tmp_path, dtype):
    """Most checkpoints are stored so. Loaded as float32, they are the very numbers of the file."""
    model = random_torch("grouped").to(getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert {x.dtype for x in jax.tree.leaves(loaded.variables)} == {np.dtype(np.float32)}
    assert_same_logits(loaded, model.float())


def test_parameters_and_computation_in_bfloat16(sound, tmp_path):
    """8 bits of mantissa over a dozen roundings: a few per cent of the logits' own size; and what is saved reads again."""
    full, low = load_pretrained(sound), load_pretrained(sound, dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(low.variables)} == {jnp.dtype(jnp.bfloat16)}
    batch = make_batch(full.config, [15, 15])
    exact, found = our_logits(full, batch), our_logits(low, batch)
    assert found.dtype == np.float32
    assert 0 < np.sqrt(np.mean((found - exact) ** 2)) < 0.05 * np.std(exact)
    save_pretrained(low, low.variables["params"], tmp_path / "low")
    again = load_pretrained(tmp_path / "low", dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, dict(again.variables), dict(low.variables))


# --- packing and forking


@pytest.fixture(params=["shipped", "grouped"])
def model_of_ours(request, tiny, sound):
    return tiny if request.param == "shipped" else load_pretrained(sound)


def test_packed_rows_are_separate_rows(model_of_ours):
    """Each branch of a packed row, prefix in front, has the logits of a row of its own."""
    loaded, random = model_of_ours, np.random.default_rng(0)
    prompts = make_batch(loaded.config, [loaded.config.num_image_tokens + 3, loaded.config.num_image_tokens + 7])
    prefixes = [row[mask == 1] for row, mask in zip(prompts["input_ids"], prompts["attention_mask"], strict=True)]
    branches = [[Branch(random.integers(4, 50, n), start) for n, start in row] for row in ([(4, 0), (2, 1), (5, 0)], [(1, 0), (6, 4)])]
    shape = RowShape.fitting(list(zip(prefixes, branches, strict=True)))
    rows = [pack_row(p, b, shape) for p, b in zip(prefixes, branches, strict=True)]
    packed = {name: np.stack([row[name] for row in rows]) for name in rows[0]} | {"pixel_values": prompts["pixel_values"]}
    logits = our_logits(loaded, packed)
    whole = [np.concatenate([p, b.ids]) for p, row in zip(prefixes, branches, strict=True) for b in row]
    alone = iter(our_logits(loaded, pad(whole) | {"pixel_values": np.repeat(prompts["pixel_values"], [len(row) for row in branches], 0)}))
    for i, (prefix, row) in enumerate(zip(prefixes, branches, strict=True)):
        for segment, branch in enumerate(row, 1):
            expected = next(alone)[: len(prefix) + len(branch.ids)]
            np.testing.assert_allclose(logits[i][packed["segments"][i] == segment], expected[len(prefix) :], **CLOSE)
            of_branch = packed["target_segment"][i] == segment
            assert packed["targets"][i][of_branch].tolist() == list(branch.ids[branch.start :])
            predicting = logits[i][packed["target_index"][i][of_branch]]
            np.testing.assert_allclose(predicting, expected[len(prefix) + branch.start - 1 : -1], **CLOSE)


def test_forks_are_full_forwards(model_of_ours):
    """Every step of every continuation, after prompts of different lengths."""
    loaded, (b, n, steps) = model_of_ours, (2, 3, 4)
    lengths = np.array([loaded.config.num_image_tokens + 6, loaded.config.num_image_tokens + 2])
    batch = make_batch(loaded.config, lengths)
    tokens = np.random.default_rng(1).integers(4, 50, (b, n, steps)).astype(np.int32)
    c = loaded.config.text
    mask = batch["attention_mask"] == 1

    @jax.jit
    def forked(variables):
        _, prefix = loaded.model.apply(variables, batch, method=Llava.prefill)
        empty = jnp.full((b, n, steps, c.num_kv_heads, c.head_dim), 7.0)  # what is not written yet must not be read
        suffix, head, found = [(empty, empty)] * c.num_layers, loaded.model.apply(variables, method=Llava.head), []
        for step in range(steps):
            positions = jnp.broadcast_to(lengths[:, None] + step, (b, n))
            hidden, suffix = loaded.model.apply(
                variables, tokens[:, :, step], positions, prefix, mask, suffix, jnp.int32(step), method=Llava.fork
            )
            found.append(hidden @ head)
        return jnp.stack(found, axis=2)

    logits = np.asarray(forked(loaded.variables))
    whole = pad([np.concatenate([batch["input_ids"][i, :length], t]) for i, length in enumerate(lengths) for t in tokens[i]])
    expected = our_logits(loaded, whole | {"pixel_values": np.repeat(batch["pixel_values"], n, 0)}).reshape(b, n, -1, c.vocab_size)
    for i, length in enumerate(lengths):
        np.testing.assert_allclose(logits[i], expected[i, :, length : length + steps], **CLOSE)


def test_padding_and_order_do_not_matter(tiny):
    shortest = tiny.config.num_image_tokens + 2
    batch = make_batch(tiny.config, [shortest, shortest + 5, shortest + 2])
    logits, order = our_logits(tiny, batch), [2, 0, 1]
    np.testing.assert_allclose(our_logits(tiny, {name: value[order] for name, value in batch.items()}), logits[order], **CLOSE)
    counts = batch["attention_mask"] == 1
    noise = np.random.default_rng(5).integers(4, 50, counts.shape)
    other = batch | {"input_ids": np.where(counts, batch["input_ids"], noise).astype(np.int32)}
    np.testing.assert_allclose(our_logits(tiny, other)[counts], logits[counts], **CLOSE)


# --- the weight table


def test_the_table_is_a_bijection(random_pair, tiny):
    _, folder = random_pair
    for config in (load_config(folder), tiny.config):
        paths = flatten_dict(dict(param_shapes(config)), sep="/")
        keys = {path: hf_key(path)[0] for path in paths}
        assert len(set(keys.values())) == len(keys)
        assert all(len(rows_of(path)) == 1 for path in paths)
    written = {SPELLINGS["hub"](key) for key in load_file(folder / "model.safetensors")}
    assert written == {hf_key(path)[0] for path in flatten_dict(dict(param_shapes(load_config(folder))), sep="/")}


def rows_of(path):
    patterns = [re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(ours)) for ours, _, _ in TABLE]
    return [pattern for pattern in patterns if re.fullmatch(pattern, path)]


def test_no_row_of_the_table_is_idle(sound):
    paths = flatten_dict(dict(param_shapes(load_config(sound))), sep="/")  # untied: it has every kind of parameter
    assert len({row for path in paths for row in rows_of(path)}) == len(TABLE)


def test_transforms_undo_each_other():
    for _, key, transform in TABLE:
        x = np.random.default_rng(0).normal(size=(5, 3, 2, 4) if "patch_embedding" in key else (5, 3))
        np.testing.assert_array_equal(transform.save(transform.load(x)), x)


def test_a_path_outside_the_table_is_named():
    with pytest.raises(InbolError, match="language_model/adapter/scale matches 0 rows"):
        hf_key("language_model/adapter/scale")


def test_saving_takes_any_tree_of_the_model(tiny, tmp_path):
    save_params(tmp_path, tiny.variables["params"])
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    ours = load_file(TINY / "model.safetensors")
    written = load_file(tmp_path / "model.safetensors")
    assert ours.keys() == written.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)


# --- what a broken checkpoint says


@pytest.fixture
def broken(sound, tmp_path):
    """A copy to break."""
    return shutil.copytree(sound, tmp_path / "broken")


def edit_weights(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit_config(folder, change):
    """`change` is merged into config.json, level by level; None deletes a key."""

    def merge(into, new):
        for key, value in new.items():
            if value is ...:
                into.pop(key)
            elif isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value
        return into

    file = folder / "config.json"
    file.write_text(json.dumps(merge(json.loads(file.read_text()), change)))


def refusal(folder):
    with pytest.raises(InbolError) as caught:
        load_pretrained(folder)
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
    edit_weights(broken, lambda tensors: tensors.update({"language_model.model.layers.7.extra.weight": np.zeros(2, np.float32)}))
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
WRONG_SHAPES = [(how, key) for how in RESHAPES for key in (Q_PROJ, PATCHES, NORM) if (how, key) != ("flat", NORM)]  # a vector is flat


@pytest.mark.parametrize(("how", "key"), WRONG_SHAPES)
def test_a_wrong_shape_is_named(broken, how, key):
    reshape = RESHAPES[how]
    edit_weights(broken, lambda tensors: tensors.update({key: np.ascontiguousarray(reshape(tensors[key]))}))
    message = refusal(broken)
    assert key in message
    assert "shape" in message


def test_config_and_weights_that_disagree(broken):
    edit_config(broken, {"text_config": {"vocab_size": 51}})
    message = refusal(broken)
    assert "(50, 24)" in message
    assert "(51, 24)" in message


@pytest.mark.parametrize("kept", [0, 5, 100, 4000, -1], ids=["empty", "length cut", "header cut", "tensors cut", "last byte cut"])
def test_truncated_weights(broken, kept):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    message = refusal(broken)
    assert str(file) in message
    assert "not a readable safetensors file" in message


def test_weights_that_are_something_else(broken):
    (broken / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "not a readable safetensors file" in refusal(broken)


def test_missing_files(broken, tmp_path):
    (broken / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(broken)
    (broken / "model.safetensors.index.json").write_text("{}")
    assert "split over several files, which is not supported yet" in refusal(broken)
    (broken / "config.json").unlink()
    assert "config.json is missing" in refusal(broken)
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "", "[]", '"llava"', '{"model_type": "llava", "vision_config": [], "text_config": {}}'])
def test_a_config_that_is_no_config(broken, text):
    (broken / "config.json").write_text(text)
    assert str(broken / "config.json") in refusal(broken)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"model_type": "llava_next"}, "model_type = 'llava_next'"),
        ({"model_type": ...}, "'model_type' is missing"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "vision_config.model_type = 'siglip_vision_model'"),
        ({"text_config": {"model_type": "gemma2"}}, "text_config.model_type = 'gemma2'"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy = 'full'"),
        ({"vision_feature_layer": [-2, -5]}, "vision_feature_layer = [-2, -5]"),
        ({"multimodal_projector_bias": False}, "multimodal_projector_bias"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act = 'relu'"),
        ({"vision_config": {"hidden_act": "swish"}}, "vision_config.hidden_act = 'swish'"),
        ({"text_config": {"hidden_act": "gelu"}}, "text_config.hidden_act = 'gelu'"),
        ({"text_config": {"attention_bias": True}}, "text_config.attention_bias"),
        ({"text_config": {"mlp_bias": True}}, "text_config.mlp_bias"),
        ({"text_config": {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}}, "text_config.rope_type = 'yarn'"),
        ({"text_config": {"rope_parameters": ..., "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}}, "rope_type = 'llama3'"),
        ({"text_config": {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}}}, "'linear'"),
        ({"text_config": {"tie_word_embeddings": True}}, "tie_word_embeddings"),
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


# --- what configs leave out


def test_rope_theta_of_older_configs(broken):
    edit_config(broken, {"text_config": {"rope_parameters": ..., "rope_theta": 5000.0}})
    assert load_config(broken).text.rope_theta == 5000.0
    edit_config(broken, {"text_config": {"rope_theta": ...}})
    assert load_config(broken).text.rope_theta == 10000.0


def test_left_out_values_are_those_of_transformers(broken):
    """Checkpoints on the hub, LLaVA 1.5 for one, write down only what differs from the defaults of the configuration's class."""
    sparse = {
        "model_type": "llava",
        "text_config": {"model_type": "llama", "vocab_size": 32064, "rms_norm_eps": 1e-05, "max_position_embeddings": 4096},
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
    assert (ours.hidden_size, ours.intermediate_size, ours.num_layers) == (text.hidden_size, text.intermediate_size, text.num_hidden_layers)
    assert (ours.num_heads, ours.num_kv_heads, ours.head_dim) == (text.num_attention_heads, text.num_key_value_heads, text.head_dim)
    assert (ours.rms_norm_eps, ours.rope_theta) == (text.rms_norm_eps, text.rope_parameters["rope_theta"])
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert (config.vision.hidden_act, config.vision.layer_norm_eps) == (vision.hidden_act, vision.layer_norm_eps)
    assert (config.vision_feature_layer, config.image_token_id) == (theirs.vision_feature_layer, theirs.image_token_index)
    assert config.eos_token_ids == (text.eos_token_id,)


@pytest.mark.parametrize("eos", [7, [7, 9]])
def test_end_of_sequence_tokens(broken, eos):
    (broken / "generation_config.json").write_text(json.dumps({"eos_token_id": eos, "pad_token_id": 11}))
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
