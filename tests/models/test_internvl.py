"""InternVL: what the parity tests of all families do not show. The processor's own batches, tiles,
spellings of keys, adapters, and what is refused.
"""

import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_internvl import TILE, write_internvl
from torch_reference import (
    CLOSE,
    SPELLINGS,
    assert_peft_reads_ours,
    assert_reads_what_peft_trained,
    edit_config,
    load,
    random_torch,
    refusal,
    torch_base,
)

from inbol_jax.errors import InbolError
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import Grid, image_grid

# PEFT asks transformers for it
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a random model."""
    folder = tmp_path_factory.mktemp("base")
    random_torch("internvl qwen3 qk norm, rms norm, no biases").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_patches", [4, 1], ids=["tiles", "no tiles"])
def test_the_processors_own_batch(side, max_patches, tmp_path):
    """Two, no and one image per row, of different sizes; prompts as we make them."""
    checkpoint = load(write_internvl(tmp_path, max_patches=max_patches))
    processor, encoder = checkpoint.processor, make_text_encoder(checkpoint)
    noise, questions = np.random.default_rng(0), ("What color is it?", "Why?", "How many?")
    sizes = (((48, 48), (90, 30)), (), ((20, 48),))
    pictures = [
        Image.fromarray(noise.integers(0, 255, (h, w, 3), np.uint8))
        for row in sizes
        for w, h in row
    ]
    texts, prompts = [], []
    for question, row in zip(questions, sizes, strict=True):
        content = [*[{"type": "image"}] * len(row), {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        texts.append(processor.apply_chat_template(turn, add_generation_prompt=True))
        grids = tuple(image_grid(processor, *size) for size in row)
        prompts.append(encoder.prompt(question, grids))
    batch = processor(
        text=texts, images=pictures, padding=True, padding_side=side, return_tensors="np"
    )
    assert len(batch["pixel_values"]) == (5 + 4 + 3 if max_patches > 1 else 3)
    for ids, mask, prompt in zip(batch["input_ids"], batch["attention_mask"], prompts, strict=True):
        assert tuple(ids[mask == 1]) == prompt
    with torch.inference_mode():
        inputs = {name: torch.tensor(x) for name, x in batch.items()}
        expected = torch_base(tmp_path)(**inputs).logits.numpy()
    ours = np.asarray(checkpoint.apply(checkpoint.variables, batch))
    counts = batch["attention_mask"] == 1
    np.testing.assert_allclose(ours[counts], expected[counts], **CLOSE)
    fewer = dict(batch) | {"pixel_values": batch["pixel_values"][1:]}
    with pytest.raises(InbolError, match=r"image tokens in the batch, but its images have \d+"):
        checkpoint.apply(checkpoint.variables, fewer)
    small = dict(batch) | {"pixel_values": batch["pixel_values"][..., :18]}
    with pytest.raises(InbolError, match=r"images of 24 x 18 pixels: config\.json says 24 each"):
        checkpoint.apply(checkpoint.variables, small)


@pytest.mark.parametrize("options", [{}, {"min_patches": 3}, {"max_patches": 1}], ids=str)
def test_grids_have_the_processors_number_of_tiles(internvl, options):
    images = transformers.GotOcr2ImageProcessorPil(
        **{"size": {"height": TILE, "width": TILE}, "max_patches": 6} | options
    )
    kind, random = type(internvl.processor), np.random.default_rng(0)
    processor = kind(images, internvl.processor.tokenizer, image_seq_length=4)
    changed, found = dataclasses.replace(internvl), set()
    changed.__dict__["processor"] = processor
    for width, height in (*random.integers(1, 130, (30, 2)).tolist(), (24, 24), (1, 99), (96, 96)):
        arrays = changed.image_inputs(Image.new("RGB", (width, height)))
        found.add(image_grid(processor, width, height).tiles)
        assert image_grid(processor, width, height).tiles == len(arrays["pixel_values"])
    assert (len(found) > 2) == (options != {"max_patches": 1})


def test_files_that_need_no_torchvision(internvl, tmp_path):
    """As the hub has them: the image processor of torchvision's backend, and that of videos."""
    write_internvl(tmp_path)
    edit_config(
        tmp_path,
        {"image_processor": {"image_processor_type": "GotOcr2ImageProcessorFast"}},
        "processor_config.json",
    )
    (tmp_path / "video_preprocessor_config.json").write_text(
        '{"video_processor_type": "InternVLVideoProcessor"}'
    )
    Image.new("RGB", (48, 24), "red").save(tmp_path / "a.png")
    checkpoint = load(tmp_path)
    assert make_text_encoder(checkpoint).grid(tmp_path / "a.png").tiles == 3
    padded = load_image_inputs(checkpoint, [tmp_path / "a.png"], [Grid(1, 2)], 5)["pixel_values"]
    assert padded.shape == (5, 3, TILE, TILE)
    assert not padded[3:].any()
    with pytest.raises(InbolError, match="image placeholder"):
        make_text_encoder(internvl).prompt("Is <IMG_CONTEXT> red?", (Grid(1, 2),))


@pytest.mark.parametrize(
    ("change", "culprit"),
    [({"image_seq_length": 9}, "9 image tokens per tile"), ({"max_patches": 10**9}, "max_patches")],
    ids=str,
)
def test_processors_that_do_not_fit(change, culprit, tmp_path):
    write_internvl(tmp_path)
    change = {"image_processor": change} if "max_patches" in change else change
    edit_config(tmp_path, change, "processor_config.json")
    with pytest.raises(InbolError, match=culprit):
        _ = load(tmp_path).processor


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
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
    ids=str,
)
def test_what_is_not_supported_is_named_before_a_weight_is_read(base, change, culprit, tmp_path):
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    edit_config(tmp_path, change)
    message = refusal(tmp_path)  # which has no weights
    assert culprit in message
    assert str(tmp_path / "config.json") in message


def test_keys_as_transformers_modules_have_them(base, tmp_path):
    tensors = load_file(base / "model.safetensors")
    renamed = {SPELLINGS["modules"](key): x for key, x in tensors.items()}
    assert not renamed.keys() & tensors.keys()
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    save_file(renamed, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).variables, load(base).variables)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj", "linear_1", "projection_layer"]},
        {"target_modules": ["gate_proj"], "modules_to_save": ["multi_modal_projector"]},
    ],
    ids=["names", "projector whole"],
)
def test_adapters_that_peft_trained(base, options, tmp_path):
    assert_reads_what_peft_trained(base, options, tmp_path)


def test_adapters_of_ours_in_peft(base, tmp_path):
    assert_peft_reads_ours(base, "language_model", tmp_path)
