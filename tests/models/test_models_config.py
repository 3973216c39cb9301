"""config.json: what is read from it, what transformers fills in, and what is refused by name."""

import json

import pytest
import transformers
from torch_reference import edit_config, random_config, refusal

from inbol_jax.models.config import load_config

# Case of torch_reference.py -> changes of its config.json, and what is said of each.
REFUSED = {
    "smolvlm llama untied, ragged patches, head_dim": [
        ({"scale_factor": 4}, "scale_factor = 4 does not divide the 6 patches of a side"),
        ({"scale_factor": 0}, "scale_factor = 0"),
        ({"text_config": {"model_type": "gemma2"}}, "text_config.model_type = 'gemma2'"),
        ({"vision_config": {"model_type": "siglip2"}}, "vision_config.model_type = 'siglip2'"),
        ({"vision_config": {"num_channels": 1}}, "vision_config.num_channels = 1"),
        ({"vision_config": {"hidden_act": "prelu"}}, "vision_config.hidden_act = 'prelu'"),
        ({"vision_config": {"image_size": [27, 27]}}, "config.json"),
        ({"image_token_id": 51}, "51: the vocabulary has 50 tokens"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "idefics2"}, "model_type = 'idefics2'"),
    ],
    "internvl qwen3 qk norm, rms norm, no biases": [
        ({"downsample_ratio": 0.3}, "downsample_ratio = 0.3"),
        ({"downsample_ratio": 0.25, "vision_config": {"image_size": 24}}, "0.25 does not divide"),
        ({"projector_hidden_act": "prelu"}, "projector_hidden_act = 'prelu'"),
        ({"vision_feature_layer": -2}, "vision_feature_layer = -2"),
        ({"vision_feature_layer": [-1]}, "vision_feature_layer = [-1]"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy = 'full'"),
        ({"text_config": {"model_type": "qwen3_moe"}}, "text_config.model_type = 'qwen3_moe'"),
        ({"text_config": {"model_type": "gpt_oss"}}, "text_config.model_type = 'gpt_oss'"),
        ({"vision_config": {"model_type": "siglip"}}, "vision_config.model_type = 'siglip'"),
        ({"vision_config": {"norm_type": "batch_norm"}}, "vision_config.norm_type"),
        ({"vision_config": {"use_mask_token": True}}, "vision_config.use_mask_token = True"),
        ({"vision_config": {"use_mean_pooling": False}}, "vision_config.use_mean_pooling = False"),
        (
            {"vision_config": {"use_absolute_position_embeddings": False}},
            "vision_config.use_absolute_position_embeddings = False",
        ),
        ({"vision_config": {"image_size": [16, 24]}}, "vision_config.image_size = [16, 24]"),
        ({"vision_config": {"patch_size": [4, 2]}}, "vision_config.patch_size = [4, 2]"),
        ({"vision_config": {"image_size": [1 << 20] * 2}}, "tokens per image"),
        ({"image_token_id": 51}, "51: the vocabulary has 50 tokens"),
        ({"model_type": "internvl_chat"}, "model_type = 'internvl_chat'"),
    ],
    "gemma3 tied, window, linear rope": [
        ({"mm_tokens_per_image": 9}, "mm_tokens_per_image = 9 does not divide 4 x 4 patches"),
        ({"mm_tokens_per_image": 5}, "mm_tokens_per_image = 5 is no square"),
        ({"mm_tokens_per_image": 0}, "mm_tokens_per_image = 0"),
        ({"text_config": {"model_type": "llama"}}, "text_config.model_type = 'llama'"),
        ({"text_config": {"model_type": "gemma3n_text"}}, "model_type = 'gemma3n_text'"),
        ({"text_config": {"hidden_activation": "xielu"}}, "text_config.hidden_act = 'xielu'"),
        ({"text_config": {"final_logit_softcapping": 30.0}}, "final_logit_softcapping = 30.0"),
        ({"text_config": {"attn_logit_softcapping": 50.0}}, "attn_logit_softcapping = 50.0"),
        (
            {"text_config": {"use_bidirectional_attention": True}},
            "use_bidirectional_attention = True",
        ),
        (
            {
                "text_config": {
                    "rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}
                }
            },
            "rope_type of sliding_attention = 'linear'",
        ),
        (
            {"text_config": {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}},
            "text_config.rope_type = 'yarn'",
        ),
        ({"vision_config": {"model_type": "clip_vision_model"}}, "'clip_vision_model'"),
        ({"image_token_index": 51}, "51: the vocabulary has 50 tokens"),
        ({"model_type": "gemma3n"}, "model_type = 'gemma3n'"),
    ],
    "llava_next clip mistral": [
        ({"image_grid_pinpoints": [[16, 30]]}, "16 x 30 pixels are no whole tiles of 16"),
        ({"image_grid_pinpoints": [[16, 16000]]}, "16 x 16000 pixels"),
        ({"image_grid_pinpoints": [[4096, 4096]]}, "65,537 tiles, at most 256 are read"),
        ({"image_grid_pinpoints": []}, "a value is of the wrong type or size"),
        ({"image_grid_pinpoints": [[16]]}, "a value is of the wrong type or size"),
        ({"vision_feature_select_strategy": "some"}, "vision_feature_select_strategy"),
        ({"text_config": {"model_type": "gemma2"}}, "text_config.model_type = 'gemma2'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "llava_next_video"}, "model_type = 'llava_next_video'"),
    ],
    "llava_onevision siglip qwen2, scaled down": [
        ({"vision_aspect_ratio": "pad"}, "vision_aspect_ratio = 'pad' is not supported"),
        ({"vision_feature_select_strategy": "default"}, "does not leave the 16 patches of a tile"),
    ],
    "qwen2_5_vl grouped, windows": [
        ({"vision_config": {"window_size": 4}}, "window = 0"),
        ({"vision_config": {"fullatt_block_indexes": [3]}}, "fullatt_block_indexes = (3,)"),
        ({"vision_config": {"hidden_act": "prelu"}}, "vision_config.hidden_act = 'prelu'"),
        ({"vision_config": {"patch_size": [4, 4]}}, "a value is of the wrong type or size"),
        ({"text_config": {"use_sliding_window": True}}, "use_sliding_window = True"),
        (
            {"text_config": {"rope_parameters": {"mrope_section": [1, 2, 2]}}},
            "mrope_section = (1, 2, 2): the sum is not half of 6",
        ),
    ],
    "qwen3_vl grouped, two layers of features": [
        ({"model_type": "qwen3_vl_moe"}, "model_type = 'qwen3_vl_moe'"),
        ({"model_type": "qwen2_vl"}, "model_type = 'qwen2_vl'"),
        ({"text_config": {"model_type": "qwen3_vl_moe_text"}}, "'qwen3_vl_moe_text'"),
        (
            {"text_config": {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}},
            "rope_type = 'yarn'",
        ),
        ({"text_config": {"rope_parameters": {"mrope_section": [1, 2]}}}, "mrope_section = (1, 2)"),
        ({"vision_config": {"in_channels": 1}}, "vision_config.in_channels = 1"),
        ({"vision_config": {"out_hidden_size": 16}}, "vision_config.out_hidden_size = 16"),
        ({"vision_config": {"deepstack_visual_indexes": [0, 3]}}, "deepstack_visual_indexes"),
        ({"vision_config": {"deepstack_visual_indexes": [1, 0]}}, "deepstack_visual_indexes"),
        ({"vision_config": {"num_heads": 16}}, "16 heads"),
        ({"vision_config": {"patch_size": [4, 4]}}, "patch_size"),
        ({"vision_config": {"hidden_act": "prelu"}}, "vision_config.hidden_act = 'prelu'"),
        ({"image_token_id": 51}, "51: the vocabulary has 50 tokens"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
}


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
        ({"model_type": "video_llava"}, "model_type = 'video_llava'"),
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


@pytest.mark.parametrize(
    ("case", "change", "culprit"),
    [(case, *row) for case, rows in REFUSED.items() for row in rows],
    ids=lambda value: str(value)[:60],
)
def test_what_is_not_supported_of_a_family_is_named_before_a_weight_is_read(
    tmp_path, case, change, culprit
):
    random_config(case).save_pretrained(tmp_path)  # and no weights
    edit_config(tmp_path, change)
    message = refusal(tmp_path)
    assert culprit in message
    assert str(tmp_path / "config.json") in message


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
    """Checkpoints on the hub, such as LLaVA 1.5, write down only what differs from the defaults."""
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
    assert config.text.hidden_size == text.hidden_size
    assert config.text.intermediate_size == text.intermediate_size
    assert config.text.num_layers == text.num_hidden_layers
    assert config.text.num_heads == text.num_attention_heads
    assert config.text.num_kv_heads == text.num_key_value_heads
    assert config.text.head_dim == text.head_dim
    assert config.text.rms_norm_eps == text.rms_norm_eps
    assert config.text.rope_theta == text.rope_parameters["rope_theta"]
    assert config.text.tie_word_embeddings == theirs.tie_word_embeddings
    assert config.vision.hidden_act == vision.hidden_act
    assert config.vision.layer_norm_eps == vision.layer_norm_eps
    assert config.vision_feature_layers == (theirs.vision_feature_layer,)
    assert config.image_token_id == theirs.image_token_index
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


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (
            {"text_config": {"num_hidden_layers": 10**9}},
            "num_hidden_layers = 1000000000: at most 512",
        ),
        ({"text_config": {"model_type": "qwen2", "num_hidden_layers": 10**9}}, "num_hidden_layers"),
        ({"text_config": {"vocab_size": 10**12}}, "vocab_size = 1000000000000: at most 1,048,576"),
        ({"text_config": {"hidden_size": 10**400}}, "a number of 401 digits"),
        ({"text_config": {"hidden_size": -24}}, "hidden_size = -24"),
        ({"text_config": {"num_attention_heads": 0}}, "config.json"),
        ({"vision_config": {"image_size": 10**6}}, "image_size = 1000000: at most 4,096"),
        ({"vision_config": {"patch_size": 0}}, "patch_size = 0"),
        ({"vision_config": {"patch_size": 99}}, "0 tokens per image"),
        ({"vision_config": {"image_size": 4096, "patch_size": 1}}, "16777216 tokens per image"),
        ({"vision_config": {"layer_norm_eps": float("nan")}}, "NaN is no finite number"),
        ({"text_config": {"rope_parameters": {"rope_theta": 0}}}, "rope_theta = 0"),
        (
            {"text_config": {"rope_parameters": {"rope_theta": float("nan")}}},
            "NaN is no finite number",
        ),
        ({"text_config": {"rope_parameters": {"rope_theta": "wide"}}}, "wide"),
        (
            {"image_token_index": 51},
            "image_token_index or image_token_id = 51: the vocabulary has 50 tokens",
        ),
        ({"image_token_index": -200}, "image_token_id = -200"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_absurd_values_are_named_before_memory_is_taken(broken, change, culprit):
    edit_config(broken, change)
    message = refusal(broken)
    assert culprit in message
    assert str(broken / "config.json") in message
    assert len(message) < 500


@pytest.mark.parametrize("ids", [{"eos_token_id": [2, 50]}, {"pad_token_id": 99}])
def test_tokens_beyond_the_vocabulary(broken, ids):
    edit_config(broken, ids, "generation_config.json")
    assert f"{next(iter(ids))} = " in refusal(broken)


def test_deep_json(broken):
    (broken / "config.json").write_text("[" * 100_000)
    assert "not readable as JSON" in refusal(broken)


@pytest.mark.parametrize(
    ("bias", "culprit"),
    [
        ([], "an empty list"),
        ([[[4, 5, 6], 1.0]], "[[4, 5, 6], 1.0]"),
        ([[[], 1.0]], "[[], 1.0]"),
        ([[[4], 1]], "[[4], 1]"),
        ([[[4], -1e31]], "[[4], -1e+31]"),
        ([[[-1], 1.0]], "[[-1], 1.0]"),
        ([[[10**6], 1.0]], "[[1000000], 1.0]"),
        ([[["4"], 1.0]], "[['4'], 1.0]"),
        ({"4": 1.0}, "sequence_bias"),
        (3.0, "sequence_bias"),
    ],
    ids=str,
)
def test_a_bias_of_generation_that_is_not_one_of_one_or_two_tokens_is_named(broken, bias, culprit):
    (broken / "generation_config.json").write_text(json.dumps({"sequence_bias": bias}))
    message = refusal(broken)
    assert culprit in message
    assert "generation_config.json: sequence_bias" in message


def test_a_bias_of_generation_is_read(broken):
    file = broken / "generation_config.json"
    bias = [[[4], 1.5], [[5, 4], -2.0], [[4], 2.5]]  # the last of equal ones counts, as in a dict
    file.write_text(json.dumps({"sequence_bias": bias}))
    assert load_config(broken).sequence_bias == (((4,), 2.5), ((5, 4), -2.0))
    file.write_text(json.dumps({"sequence_bias": None}))
    assert load_config(broken).sequence_bias == ()
