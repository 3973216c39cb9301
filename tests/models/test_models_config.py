"""config.json: what is read from it, what transformers fills in, and what is refused by name."""

import dataclasses
import json

import pytest
import transformers
from torch_reference import edit_config, random_config, refusal

from inbol_jax.errors import InbolError
from inbol_jax.models.families import load_config
from inbol_jax.models.loading import param_shapes

SMOLVLM = "smolvlm llama untied, ragged patches, head_dim"
INTERNVL = "internvl qwen3 no biases"
GEMMA3 = "gemma3 tied, window, linear rope"
QWEN2_5 = "qwen2_5_vl grouped, windows"
QWEN3 = "qwen3_vl grouped, two layers of features"
LLAVA = "clip llama grouped"
NEXT = "llava_next clip mistral tied, list of features"
ONEVISION = "llava_onevision siglip qwen2, scaled down"


def text(**options):
    return {"text_config": options}


def tower(**options):
    return {"vision_config": options}


def rope(**options):
    return text(rope_parameters=options)


@pytest.mark.parametrize(
    ("case", "change", "culprit"),
    [
        (LLAVA, {"model_type": "video_llava"}, "model_type = 'video_llava'"),
        (LLAVA, {"model_type": ...}, "'model_type' is missing"),
        (LLAVA, tower(model_type="siglip2_vision_model"), "vision_config.model_type = 'siglip2"),
        (LLAVA, text(model_type="gemma2"), "text_config.model_type = 'gemma2'"),
        (LLAVA, {"vision_feature_select_strategy": "half"}, "vision_feature_select_strategy"),
        (LLAVA, {"vision_feature_layer": [-2, -5]}, "vision_feature_layer = [-2, -5]: the tower"),
        (LLAVA, {"vision_feature_layer": 4}, "vision_feature_layer = 4: the tower has 3"),
        (LLAVA, {"projector_hidden_act": "relu"}, "projector_hidden_act = 'relu'"),
        (LLAVA, tower(hidden_act="relu"), "vision_config.hidden_act = 'relu'"),
        (LLAVA, text(hidden_act="relu"), "text_config.hidden_act = 'relu'"),
        (LLAVA, rope(rope_type="yarn", factor=2.0), "text_config.rope_type = 'yarn'"),
        (LLAVA, rope(partial_rotary_factor=0.5), "text_config.partial_rotary_factor = 0.5"),
        (LLAVA, rope(rope_type="linear", factor=None), "a value is of the wrong type"),
        (LLAVA, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAVA, {"dtype": "float8_e4m3fn"}, "dtype = 'float8_e4m3fn'"),
        (LLAVA, tower(num_attention_heads=5), "number of attention heads (5)"),
        (LLAVA, rope(rope_theta="wide"), "wide"),
        (SMOLVLM, {"scale_factor": 4}, "scale_factor = 4 does not divide 6 patches"),
        (SMOLVLM, tower(image_size=[27, 27]), "a value is of the wrong type"),
        (INTERNVL, {"downsample_ratio": 0.3}, "downsample_ratio = 0.3"),
        (INTERNVL, {"vision_feature_layer": -2}, "vision_feature_layer = -2"),
        (INTERNVL, text(model_type="qwen3_moe"), "text_config.model_type = 'qwen3_moe'"),
        (INTERNVL, tower(norm_type="rms_norm"), "vision_config.norm_type"),
        (GEMMA3, {"mm_tokens_per_image": 9}, "mm_tokens_per_image = 9 is no square that divides 4"),
        (GEMMA3, text(final_logit_softcapping=30.0), "final_logit_softcapping = 30.0"),
        (GEMMA3, text(use_bidirectional_attention=True), "use_bidirectional_attention = True"),
        (
            GEMMA3,
            rope(sliding_attention={"rope_type": "linear", "factor": 2.0}),
            "rope_type of sliding_attention",
        ),
        (NEXT, {"image_grid_pinpoints": 3}, "a value is of the wrong type"),
        (ONEVISION, {"vision_aspect_ratio": "pad"}, "vision_aspect_ratio = 'pad' is not supported"),
        (
            ONEVISION,
            {"vision_feature_select_strategy": "default"},
            "does not leave the 16 patches of a tile",
        ),
        (QWEN2_5, text(use_sliding_window=True), "use_sliding_window = True"),
        (QWEN3, {"model_type": "qwen3_vl_moe"}, "model_type = 'qwen3_vl_moe'"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_not_supported_is_named_before_a_weight_is_read(tmp_path, case, change, culprit):
    random_config(case).save_pretrained(tmp_path)  # and no weights
    edit_config(tmp_path, change)
    message = refusal(tmp_path)
    assert culprit in message
    assert str(tmp_path / "config.json") in message


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        "[]",
        "[" * 100_000,
        '{"model_type": "llava", "vision_config": [], "text_config": 3}',
    ],
    ids=lambda content: content[:9],
)
def test_a_config_that_is_no_config(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert str(tmp_path / "config.json") in refusal(tmp_path)


def test_rope_theta_of_older_configs(broken):
    edit_config(broken, {"text_config": {"rope_parameters": ..., "rope_theta": 5000.0}})
    assert load_config(broken).text.rope_theta == 5000.0
    edit_config(broken, {"text_config": {"rope_theta": ...}})
    assert load_config(broken).text.rope_theta == 10000.0


def test_left_out_values_are_those_of_transformers(broken):
    """Checkpoints on the hub, such as LLaVA 1.5, write down only what differs from the defaults."""
    sparse = {
        "model_type": "llava",
        "text_config": {"model_type": "llama", "vocab_size": 32064, "rms_norm_eps": 1e-05},
        "vision_config": {"num_hidden_layers": 24, "patch_size": 14},
    }
    (broken / "config.json").write_text(json.dumps(sparse))
    (broken / "generation_config.json").unlink()
    config, theirs = load_config(broken), transformers.LlavaConfig.from_pretrained(broken)
    text, vision = theirs.text_config, theirs.vision_config
    assert config.text.hidden_size == text.hidden_size
    assert config.text.num_layers == text.num_hidden_layers
    assert config.text.num_kv_heads == text.num_key_value_heads
    assert config.text.head_dim == text.head_dim
    assert config.text.rms_norm_eps == text.rms_norm_eps
    assert config.text.rope_theta == text.rope_parameters["rope_theta"]
    assert config.text.tie_word_embeddings == theirs.tie_word_embeddings
    assert config.vision.image_size == vision.image_size
    assert config.vision.layer_norm_eps == vision.layer_norm_eps
    assert config.vision_feature_layers == (theirs.vision_feature_layer,)
    assert config.image_token_id == theirs.image_token_index
    assert config.eos_token_ids == (text.eos_token_id,)


def test_towers_may_go_unnamed(tmp_path):
    """SmolVLM's first checkpoints do not say of what type their towers are."""
    random_config(SMOLVLM).save_pretrained(tmp_path)
    named = load_config(tmp_path)
    edit_config(tmp_path, {"vision_config": {"model_type": ...}})
    unnamed = load_config(tmp_path).vision
    assert dataclasses.replace(unnamed, model_type=named.vision.model_type) == named.vision


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
    edit_config(broken, {"image_token_index": 3})
    (broken / "generation_config.json").write_text(json.dumps({"pad_token_id": ["x"]}))
    assert "pad_token_id is missing, or no number" in refusal(broken)


def test_a_config_whose_sizes_do_not_fit_together(broken):
    edit_config(broken, {"text_config": {"num_key_value_heads": 5}})
    with pytest.raises(InbolError, match=r"config\.json: its sizes do not fit together"):
        param_shapes(load_config(broken))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("sequence_bias", [[tokens, 1.0]]) for tokens in ([4, 5, 6], [], [10**6], [-1])),
        *(("sequence_bias", value) for value in ([[[4], -1e31]], {"4": 1.0}, 3.0)),
        *(("refuse_below", rule) for rule in (-3.0, {"logprob": "-3"}, {"logprob": -3.0})),
    ],
)
def test_a_rule_of_refusing_that_is_none_is_named(broken, name, value):
    (broken / "generation_config.json").write_text(json.dumps({name: value}))
    message = refusal(broken)
    assert "generation_config.json: " in message
    assert name in message


def test_a_bias_of_generation_is_read(broken):
    file = broken / "generation_config.json"
    bias = [[[4], 1.5], [[5, 4], -2.0], [[4], 2.5]]  # the last of equal ones counts, as in a dict
    file.write_text(json.dumps({"sequence_bias": bias}))
    assert load_config(broken).sequence_bias == (((4,), 2.5), ((5, 4), -2.0))
    file.write_text(json.dumps({"sequence_bias": None}))
    assert load_config(broken).sequence_bias == ()
