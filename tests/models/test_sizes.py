"""Real checkpoints' shapes and counts, without any weight, against transformers' own models."""

from pathlib import Path

import pytest
import torch
from flax.traverse_util import flatten_dict
from transformers import AutoConfig, AutoModelForImageTextToText

from inbol_jax.models.families import load_config
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.weights import module_key, table_row
from inbol_jax.sharding import make_mesh, parameter_sharding

SHAPES = Path(__file__).parents[2] / "tpu/shapes"


# Those that `tpu/plan.py` knows -> the parameters that the hub counts in the checkpoints.
COUNTS = {
    "llava-1.5-7b": 7_063_427_072,
    "llava-1.5-13b": 13_350_839_296 + 2 * 64 * 5120,
    "smolvlm-256m": 256_484_928,
    "smolvlm2-500m": 507_482_304,
    "smolvlm2-2.2b": 2_246_784_880,
    "gemma3-4b": 4_300_079_472,
    "gemma3-12b": 12_187_325_040,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-vl-2b": 2_127_532_032,
    "qwen3-vl-4b": 4_437_815_808,
    "qwen3-vl-8b": 8_767_123_696,
}
EVERYDAY = {"llava-1.5-7b", "llava-onevision-0.5b", "smolvlm-256m", "internvl3.5-1b"}
EVERYDAY |= {"gemma3-4b", "qwen2.5-vl-3b", "qwen3-vl-2b"}


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(x, id=x.name, marks=() if x.name in EVERYDAY else pytest.mark.slow)
        for x in sorted(SHAPES.iterdir())
    ],
)
def test_shapes_and_counts(folder):
    with torch.device("meta"):
        theirs = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    count = sum(p.numel() for p in theirs.parameters())
    assert COUNTS.get(folder.name, count) == count
    ours = flatten_dict(dict(param_shapes(load_config(folder))), sep="/")
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
    for path, leaf in leaves.items():
        place = parameter_sharding(make_mesh(), table_row(path).axes, leaf.shape)
        # Every large matrix is split both ways.
        if leaf.size > 10**6 and "position" not in path:
            assert {axis for axis in place.spec if axis} == {"fsdp", "tensor"}, path
