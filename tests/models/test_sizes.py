"""Real checkpoints' shapes and counts, without any weight, against transformers' own models."""

import json
from pathlib import Path

import pytest
import torch
from flax.traverse_util import flatten_dict
from transformers import AutoConfig, AutoModelForImageTextToText

from inbol_jax.models.families import load_config
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.weights import module_key, param_shardings, table_row
from inbol_jax.sharding import make_mesh

SHAPES = Path(__file__).parents[2] / "tpu/shapes"


def shipped(name):
    """The config.json that `tpu/plan.py` knows."""
    return json.loads((SHAPES / name / "config.json").read_text())


MISTRAL = {"model_type": "mistral", "vocab_size": 32064, "rms_norm_eps": 1e-5}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
QWEN = {
    "model_type": "qwen2",
    "vocab_size": 152000,
    "rope_theta": 1000000.0,
    "eos_token_id": 151645,
}
QWEN_SMALL = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "tie_word_embeddings": True,
}
INTERLEAVE = {
    "model_type": "llava",
    "vision_config": SIGLIP,
    "image_token_index": 151646,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
# config.json, and the number of parameters if that is published.
REAL = {
    "bakllava": (
        shipped("llava-1.5-7b") | {"text_config": MISTRAL | {"sliding_window": 4096}},
        None,
    ),
    "llava-interleave-qwen-0.5b": (INTERLEAVE | {"text_config": QWEN | QWEN_SMALL}, None),
}
INTERNVIT_6B = {
    "model_type": "internvl_vision",
    "attention_bias": False,
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "norm_type": "rms_norm",
    "num_attention_heads": 25,
    "num_hidden_layers": 45,
    "use_qk_norm": True,
}
QWEN3_32B = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "eos_token_id": 151645,
}
REAL["internvl3.5-38b"] = (
    {
        "model_type": "internvl",
        "image_token_id": 151671,
        "tie_word_embeddings": False,
        "vision_config": INTERNVIT_6B,
        "text_config": QWEN3_32B,
    },
    None,
)
# Those that `tpu/plan.py` knows, with the numbers that the hub counts in the checkpoints.
REAL |= {
    name: (shipped(name), count)
    for name, count in (
        ("llava-1.5-7b", 7_063_427_072),
        ("llava-1.5-13b", 13_350_839_296 + 2 * 64 * 5120),
        ("smolvlm-256m", 256_484_928),
        ("smolvlm2-500m", 507_482_304),
        ("smolvlm2-2.2b", 2_246_784_880),
        ("gemma3-4b", 4_300_079_472),
        ("gemma3-12b", 12_187_325_040),
        ("llava-1.6-vicuna-7b", None),
        ("llava-1.6-mistral-7b", None),
        ("llava-onevision-0.5b", None),
        ("llava-onevision-7b", None),
        ("internvl3-2b", None),
        ("internvl3-8b", None),
        ("internvl3.5-1b", None),
        ("internvl3.5-4b", None),
        ("internvl3.5-8b", None),
        ("qwen2.5-vl-3b", 3_754_622_976),
        ("qwen2.5-vl-7b", 8_292_166_656),
        ("qwen3-vl-2b", 2_127_532_032),
        ("qwen3-vl-4b", 4_437_815_808),
        ("qwen3-vl-8b", 8_767_123_696),
    )
}


EVERYDAY = {"llava-1.5-7b", "llava-onevision-0.5b", "smolvlm-256m", "internvl3.5-1b"}
EVERYDAY |= {"gemma3-4b", "qwen2.5-vl-3b", "qwen3-vl-2b"}


@pytest.mark.parametrize(
    "name",
    [name if name in EVERYDAY else pytest.param(name, marks=pytest.mark.slow) for name in REAL],
)
def test_shapes_and_counts(name, tmp_path):
    config, published = REAL[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        theirs = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(tmp_path))
    assert published in (None, sum(p.numel() for p in theirs.parameters()))
    ours = flatten_dict(dict(param_shapes(load_config(tmp_path))), sep="/")
    shapes = {}
    for path, leaf in ours.items():
        row = table_row(path)
        shapes[module_key(row.key)] = tuple(leaf.shape[i] for i in row.hf_order)
    # A tied head is named once, as the embedding. SigLIP's pooling head is not read.
    named = {key: tuple(p.shape) for key, p in theirs.named_parameters() if ".head." not in key}
    assert shapes == named


@pytest.mark.parametrize("name", ["llava-1.5-7b", "gemma3-4b"])
def test_every_leaf_has_a_place_on_a_mesh(name):
    shapes = param_shapes(load_config(SHAPES / name))
    leaves = flatten_dict(dict(shapes), sep="/")
    shardings = flatten_dict(param_shardings(shapes, make_mesh()), sep="/")
    assert shardings.keys() == leaves.keys()
    for path, leaf in leaves.items():
        # Every large matrix is split both ways.
        if leaf.size > 10**6 and "position" not in path:
            assert {axis for axis in shardings[path].spec if axis} == {"fsdp", "tensor"}, path
