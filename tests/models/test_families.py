"""What every family beside LLaVA has, and the parity tests do not show: the processor's own
batches, rows of several images, keys of other spellings, and adapters. LLaVA's own adapters and
keys are in test_peft.py and test_reading.py.
"""

import itertools
import re
from typing import NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_families import write_internvl, write_smolvlm
from torch_reference import (
    CLOSE,
    SPELLINGS,
    asked,
    assert_peft_reads_ours,
    assert_reads_what_peft_trained,
    assert_rows_are_as_alone,
    load,
    noise,
    random_torch,
    their_logits,
    torch_base,
)

from inbol_jax.models.processor import make_text_encoder

# PEFT asks transformers for it
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
SLOW = pytest.mark.slow


class Family(NamedTuple):
    """A family as the tests of adapters take it."""

    case: str
    targets: list[str]
    """Modules that PEFT trains adapters of, some outside of the decoder."""
    decoder: str = "language_model"
    """Name of the decoder's part in parameter paths."""
    whole: tuple[str, ...] = ("multi_modal_projector",)
    """Modules that PEFT trains whole."""


FAMILIES = {
    "smolvlm": Family(
        "smolvlm llama untied, ragged patches, head_dim",
        ["q_proj", "v_proj", "proj"],
        decoder="text_model",
        whole=("connector",),
    ),
    "internvl": Family(
        "internvl qwen3 qk norm, rms norm, no biases",
        ["q_proj", "v_proj", "linear_1", "projection_layer"],
    ),
    "gemma3": Family("gemma3 tied, window, linear rope", ["q_proj", "v_proj", "out_proj"]),
    "llava_next": Family("llava_next clip mistral", ["q_proj", "v_proj", "linear_1"]),
    "llava_onevision": Family(
        "llava_onevision siglip qwen2, scaled down", ["q_proj", "v_proj", "linear_1"]
    ),
    "qwen2_5_vl": Family(
        "qwen2_5_vl grouped, windows",
        ["q_proj", "qkv", "up_proj"],
        decoder="language_decoder",
        whole=("merger",),
    ),
    "qwen3_vl": Family(
        "qwen3_vl grouped, two layers of features",
        ["q_proj", "qkv", "linear_fc2"],
        decoder="language_decoder",
        whole=("merger", "deepstack_merger_list.1"),
    ),
}


@pytest.fixture(scope="module")
def base_of(tmp_path_factory):
    """`base_of(family)` is the folder of a random model, which is made once."""
    folders = {}

    def base(family):
        if family not in folders:
            folders[family] = tmp_path_factory.mktemp("base")
            random_torch(FAMILIES[family].case).save_pretrained(folders[family])
        return folders[family]

    return base


@pytest.fixture
def smolvlm_uncut(tmp_path):
    return load(write_smolvlm(tmp_path, splitting=False))


@pytest.fixture
def internvl_uncut(tmp_path):
    return load(write_internvl(tmp_path, max_patches=1))


def test_models_are_made_for_their_device(tiny):
    assert tiny.model.attention == "xla"


@pytest.mark.parametrize(
    ("family", "side"),
    [
        *itertools.product(("smolvlm", "internvl", "gemma3", "qwen3_vl"), ("right", "left")),
        ("smolvlm_uncut", "right"),
        ("internvl_uncut", "left"),
        ("qwen2_5_vl", "left"),
        ("llava_next", "right"),
        pytest.param("llava_next", "left", marks=SLOW),
        ("llava_onevision", "left"),
        pytest.param("llava_onevision", "right", marks=SLOW),
    ],
)
def test_the_processors_own_batch(family, side, request):
    """Two, no and one image per row, of different sizes; prompts as we make them. LLaVA-OneVision
    cuts the image that is alone.
    """
    checkpoint = request.getfixturevalue(family)
    processor, encoder = checkpoint.processor, make_text_encoder(checkpoint)
    rows = [
        ("What color is it?", [noise(48, 48), noise(90, 30)]),
        ("Why?", []),
        ("How many?", [noise(20, 48)]),
    ]
    batch, tiles = asked(processor, *rows, padding_side=side), []
    for (question, pictures), ids, mask in zip(
        rows, batch["input_ids"], batch["attention_mask"], strict=True
    ):
        alone = len(pictures) == 1
        grids = [checkpoint.config.grid(processor, *p.size, alone=alone) for p in pictures]
        tiles += [grid.tiles for grid in grids]
        assert tuple(ids[mask == 1]) == encoder.prompt(question, tuple(grids))
        assert mask[0 if side == "right" else -1]
    assert len({mask.sum() for mask in batch["attention_mask"]}) == 3
    assert (max(tiles) > 1) == (family not in ("gemma3", "smolvlm_uncut", "internvl_uncut"))
    expected = their_logits(torch_base(checkpoint.path), batch)
    ours, counts = checkpoint.apply(checkpoint.variables, batch), batch["attention_mask"] == 1
    np.testing.assert_allclose(np.asarray(ours)[counts], expected[counts], **CLOSE)
    if batch.pop("pixel_attention_mask", None) is not None:  # all ones where there are pixels
        ours = checkpoint.apply(checkpoint.variables, batch)
        np.testing.assert_allclose(np.asarray(ours)[counts], expected[counts], **CLOSE)


@pytest.mark.parametrize(
    "family",
    [
        *("qwen3_vl", "llava_onevision"),
        *(pytest.param(family, marks=SLOW) for family in ("qwen2_5_vl", "llava_next")),
    ],
)
def test_rows_of_several_and_of_no_images(family, tmp_path, request):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, size in zip(paths, ((48, 20), (30, 50)), strict=True):
        noise(*size).save(path)
    rows = [("Which is red?", paths), ("Why?", []), ("How many?", paths[1:])]
    assert_rows_are_as_alone(request.getfixturevalue(family), rows)


def qwen_on_the_hub(key):
    """A key of Qwen2.5-VL's checkpoints, whichever transformers wrote it."""
    key = re.sub(r"^model\.language_model\.", "model.", key)
    return re.sub(r"^model\.visual\.", "visual.", key)


def qwen_in_modules(key):
    key = re.sub(r"^model\.(?=layers|embed_tokens|norm)", "model.language_model.", key)
    return re.sub(r"^visual\.", "model.visual.", key)


@pytest.mark.parametrize(
    ("family", "spelling"),
    [
        ("internvl", SPELLINGS["modules"]),
        ("gemma3", SPELLINGS["modules"]),
        ("llava_onevision", SPELLINGS["modules"]),
        ("llava_onevision", SPELLINGS["hub"]),
        pytest.param("llava_next", SPELLINGS["modules"], marks=SLOW),
        pytest.param("llava_next", SPELLINGS["hub"], marks=SLOW),
        ("qwen2_5_vl", qwen_in_modules),
        ("qwen2_5_vl", qwen_on_the_hub),
    ],
)
def test_keys_of_other_spellings(base_of, family, spelling, tmp_path):
    """As the hub has them, and as transformers' modules do."""
    base = base_of(family)
    tensors = load_file(base / "model.safetensors")
    renamed = {spelling(key): x for key, x in tensors.items()}
    assert renamed.keys() != tensors.keys() or family == "qwen2_5_vl"  # as one of the two
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    save_file(renamed, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).variables, load(base).variables)


ADAPTERS = pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=SLOW if family in ("llava_next", "qwen2_5_vl") else ())
        for family in FAMILIES
    ],
)


@ADAPTERS
@pytest.mark.parametrize("whole", [False, True], ids=["names", "modules whole"])
def test_adapters_that_peft_trained(base_of, family, whole, tmp_path):
    options = {"target_modules": FAMILIES[family].targets}
    if whole:
        modules = list(FAMILIES[family].whole)
        options = {"target_modules": ["gate_proj"], "modules_to_save": modules}
    assert_reads_what_peft_trained(base_of(family), options, tmp_path)


@ADAPTERS
def test_adapters_of_ours_in_peft(base_of, family, tmp_path):
    assert_peft_reads_ours(base_of(family), FAMILIES[family].decoder, tmp_path)
