"""What every family has, and the parity tests do not show: the processor's own batches, prompts,
rows of several images, keys of other spellings, and adapters.
"""

import dataclasses
import re
from typing import NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch_reference import (
    SPELLINGS,
    asked,
    assert_peft_reads_ours,
    assert_reads_what_peft_trained,
    assert_rows_are_as_alone,
    load,
    noise,
    random_torch,
)

from inbol_jax.errors import InbolError
from inbol_jax.models.processor import load_image_inputs, make_text_encoder

# PEFT asks transformers for it
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


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
        ["q_proj", "fc1"],
        decoder="text_model",
        whole=("connector",),
    ),
    "internvl": Family("internvl qwen3 no biases", ["v_proj", "projection_layer"]),
    "gemma3": Family("gemma3 tied, window, linear rope", ["q_proj", "out_proj"]),
    "llava_next": Family("llava_next clip mistral tied, list of features", ["v_proj", "fc2"]),
    "llava_onevision": Family("llava_onevision siglip qwen2, scaled down", ["q_proj", "fc1"]),
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
        whole=("deepstack_merger_list.1",),
    ),
}


def every_day(*families):
    """The test is slow for the other families."""
    slow = pytest.mark.slow
    marked = [x if x in families else pytest.param(x, marks=slow) for x in FAMILIES]
    return pytest.mark.parametrize("family", marked)


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


@every_day("smolvlm", "gemma3", "qwen3_vl", "llava_onevision")
def test_rows_of_several_and_of_no_images(family, tmp_path, request):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, size in zip(paths, ((48, 20), (30, 50)), strict=True):
        noise(*size).save(path)
    rows = [("Which is red?", paths), ("Why?", []), ("How many?", paths[1:])]
    assert_rows_are_as_alone(request.getfixturevalue(family), rows)


@every_day("smolvlm", "llava_onevision", "qwen3_vl")
def test_images_are_padded_and_compared_with_their_prompt(family, tmp_path, request):
    checkpoint, path = request.getfixturevalue(family), tmp_path / "a.png"
    noise(48, 20).save(path)
    encoder = make_text_encoder(checkpoint)
    (grid,) = encoder.grids([path])
    whole = load_image_inputs(checkpoint, [path], [grid])
    padded = load_image_inputs(checkpoint, [path], [grid], 9)
    for name, (shape, dtype) in checkpoint.config.image_shapes(9).items():
        assert (padded[name].shape, padded[name].dtype) == (shape, dtype)
        count = len(whole[name])
        np.testing.assert_array_equal(padded[name][:count], whole[name])
        assert not padded[name][count:].any()
    other = grid._replace(columns=grid.columns + 1)
    with pytest.raises(InbolError, match=r"a\.png: its image processor makes \d+ tiles of"):
        load_image_inputs(checkpoint, [path], [other])
    token = checkpoint.processor.image_token
    with pytest.raises(InbolError, match="contains the model's"):
        encoder.prompt(f"Is {token} red?", (grid,))
    text = dataclasses.replace(checkpoint.config.text, max_positions=20)
    config = dataclasses.replace(checkpoint.config, text=text)
    short = make_text_encoder(dataclasses.replace(checkpoint, config=config))
    with pytest.raises(InbolError, match=r"of which \d+ are its images', and the model was made"):
        short.prompt("What is the color of the large red square?", (grid,) * 3)


def test_responses_follow_their_prompt(gemma3):
    """The template strips, and writes the first token, as the tokenizer of Gemma does, too."""
    encoder, decode = make_text_encoder(gemma3), gemma3.processor.tokenizer.decode
    prompt, response = encoder.prompt("Why?"), encoder.response("Why?", "I do not know.")
    assert decode(prompt).endswith("<end_of_turn>\n<start_of_turn> model\n")
    assert decode(response).strip() == "I do not know.<end_of_turn>"
    (ids,) = asked(gemma3.processor, (" Why?\n", []))["input_ids"]
    assert encoder.prompt(" Why?\n", ()) == tuple(ids)
    for token in ("<start_of_image>", "<image_soft_token>"):
        with pytest.raises(InbolError, match="contains the model's"):
            encoder.prompt(f"Is {token} red?")


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
        ("qwen2_5_vl", qwen_in_modules),
        ("qwen2_5_vl", qwen_on_the_hub),
    ],
)
def test_keys_of_other_spellings(base_of, family, spelling, tmp_path):
    """As the hub has them, and as transformers' modules do. Buffers that old versions saved beside
    them are passed over."""
    base = base_of(family)
    tensors = load_file(base / "model.safetensors")
    renamed = {spelling(key): x for key, x in tensors.items()}
    assert renamed.keys() != tensors.keys() or family == "qwen2_5_vl"  # as one of the two
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    buffers = {
        "vision_tower.vision_model.embeddings.position_ids": np.arange(5)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
    }
    save_file(renamed | buffers, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).variables, load(base).variables)


@every_day("smolvlm", "internvl", "qwen3_vl")
def test_adapters_that_peft_trained(base_of, family, tmp_path):
    """And modules that it trained whole beside them."""
    options = {"target_modules": FAMILIES[family].targets}
    options["modules_to_save"] = list(FAMILIES[family].whole)
    assert_reads_what_peft_trained(base_of(family), options, tmp_path)


@every_day("gemma3", "llava_onevision")
def test_adapters_of_ours_in_peft(base_of, family, tmp_path):
    assert_peft_reads_ours(base_of(family), FAMILIES[family].decoder, tmp_path)
