"""Qwen3-VL: what the parity tests of all families do not show. The processor's own batches, sizes
of images, adapters, and what is refused.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_qwen3_vl import PATCH, write_qwen3_vl
from torch_reference import (
    CLOSE,
    assert_peft_reads_ours,
    assert_reads_what_peft_trained,
    assert_rows_are_as_alone,
    by_row,
    edit_config,
    load,
    make_batch,
    random_torch,
    refusal,
    torch_base,
)
from transformers import Qwen2VLImageProcessorPil

from inbol_jax.errors import InbolError
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import UNTILED, Grid, image_grid

# PEFT asks transformers for it
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
YARN = {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}
CASE = "qwen3_vl grouped, two layers of features"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a random model."""
    folder = tmp_path_factory.mktemp("base")
    random_torch(CASE).save_pretrained(folder)
    return folder


def noise(width, height):
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_processors_own_batch(side, qwen3_vl):
    """Two, no and one image per row, of different sizes; prompts as we make them."""
    processor, encoder = qwen3_vl.processor, make_text_encoder(qwen3_vl)
    processor.tokenizer.padding_side = side
    questions, sizes = ("What color is it?", "Why?"), (((48, 48), (90, 30)), (), ((20, 48),))
    texts, prompts, pictures = [], [], []
    for question, row in zip((*questions, "How many?"), sizes, strict=True):
        content = [*[{"type": "image"}] * len(row), {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        texts.append(processor.apply_chat_template(turn, add_generation_prompt=True))
        prompts.append(encoder.prompt(question, tuple(image_grid(processor, *s) for s in row)))
        pictures.append([noise(*size) for size in row])
    batch = dict(processor(text=texts, images=pictures, padding=True, return_tensors="np"))
    assert len({tuple(grid) for grid in batch["image_grid_thw"]}) == 3
    for ids, mask, prompt in zip(batch["input_ids"], batch["attention_mask"], prompts, strict=True):
        assert tuple(ids[mask == 1]) == prompt
    with torch.inference_mode():
        inputs = {name: torch.tensor(x) for name, x in batch.items()}
        expected = torch_base(qwen3_vl.path)(**inputs).logits.numpy()
    ours = np.asarray(qwen3_vl.apply(qwen3_vl.variables, batch))
    counts = batch["attention_mask"] == 1
    np.testing.assert_allclose(ours[counts], expected[counts], **CLOSE)


def test_batches_that_do_not_fit_together(base):
    checkpoint = load(base)
    batch, variables = make_batch(checkpoint.config, [16, 16], images=(2, 1)), checkpoint.variables
    pixels, grid = batch["pixel_values"], batch["image_grid_thw"]
    with pytest.raises(InbolError, match="18 image tokens in the batch, but its images have 12"):
        checkpoint.apply(
            variables, batch | {"pixel_values": pixels[:48], "image_grid_thw": grid[:2]}
        )
    with pytest.raises(InbolError, match="image_grid_thw has 72 patches, pixel_values 71"):
        checkpoint.apply(variables, batch | {"pixel_values": pixels[:-1]})
    rows = by_row(batch, 6)
    rows["image_grid_thw"][1] = 0
    with pytest.raises(InbolError, match=r"6 image tokens in row 1 .* its images have 0"):
        checkpoint.apply(variables, rows)
    with pytest.raises(InbolError, match="more than one frame, and videos are not supported"):
        checkpoint.apply(variables, batch | {"image_grid_thw": 2 * grid})
    with pytest.raises(InbolError, match="pixel_values_videos: videos are not supported"):
        checkpoint.apply(variables, batch | {"pixel_values_videos": pixels})


@pytest.mark.parametrize(
    "options", [{}, {"size": {"shortest_edge": 9999, "longest_edge": 99999}}, {"do_resize": False}]
)
def test_numbers_of_tokens_are_the_processors(qwen3_vl, options, monkeypatch):
    options = {"size": {"shortest_edge": 144, "longest_edge": 16 * 144}} | options
    images = Qwen2VLImageProcessorPil(patch_size=PATCH, **options)
    monkeypatch.setattr(qwen3_vl.processor, "image_processor", images)
    found = set()
    for width, height in np.random.default_rng(0).integers(5, 130, (20, 2)).tolist():
        if "do_resize" in options:
            width, height = width // 12 * 12 + 12, height // 12 * 12 + 12
        batch = images(Image.new("RGB", (width, height)), return_tensors="np")
        grid = image_grid(qwen3_vl.processor, width, height)
        assert grid.tiles == batch["image_grid_thw"].prod() // 4 == len(batch["pixel_values"]) // 4
        found.add(grid)
    assert len(found) > 4


def test_rows_of_several_and_of_no_images(qwen3_vl, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, size in zip(paths, ((48, 20), (90, 30)), strict=True):
        noise(*size).save(path)
    rows = [("Which is red?", paths), ("Why?", []), ("How many?", paths[1:])]
    assert_rows_are_as_alone(qwen3_vl, rows)


def test_images_are_compared_with_their_prompt(qwen3_vl, tmp_path):
    noise(48, 20).save(tmp_path / "a.png")
    encoder = make_text_encoder(qwen3_vl)
    assert encoder.grid(tmp_path / "a.png").tiles == 8
    with pytest.raises(InbolError, match=r"a\.png: its image processor makes 8 tiles, .* for 5"):
        load_image_inputs(qwen3_vl, [tmp_path / "a.png"], [Grid(1, 5, whole=False)])
    Image.new("RGB", (2001, 10)).save(tmp_path / "b.png")
    with pytest.raises(InbolError, match=r"b\.png: .* aspect ratio must be smaller than 200"):
        encoder.grid(tmp_path / "b.png")
    with pytest.raises(InbolError, match=r"special token '<\|video_pad\|>'"):
        encoder.prompt("Is <|video_pad|> red?")


def test_prompts_that_are_too_long_are_refused(qwen3_vl):
    text = dataclasses.replace(qwen3_vl.config.text, max_positions=20)
    config = dataclasses.replace(qwen3_vl.config, text=text)
    encoder = make_text_encoder(dataclasses.replace(qwen3_vl, config=config))
    assert len(encoder.prompt("Why?", (UNTILED,))) <= 20
    with pytest.raises(InbolError, match="of which 16 are its images', and the model was made for"):
        encoder.prompt("Why?", (image_grid(qwen3_vl.processor, 48, 48),))


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"patch_size": 8}, "its processor has patch_size 8, config.json says 6"),
        ({"merge_size": 4}, "its processor has merge_size 4, config.json says 2"),
        ({"size": {"shortest_edge": 1 << 40, "longest_edge": 1 << 41}}, "shortest_edge = 10995116"),
        ({"min_pixels": 1 << 40}, "min_pixels = 1099511627776"),
    ],
    ids=str,
)
def test_processors_of_other_sizes(tmp_path, change, culprit):
    folder = write_qwen3_vl(tmp_path)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InbolError) as caught:
        _ = load(folder).processor
    assert culprit in str(caught.value)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"model_type": "qwen3_vl_moe"}, "model_type = 'qwen3_vl_moe'"),
        ({"model_type": "qwen2_5_vl"}, "model_type = 'qwen2_5_vl'"),
        ({"text_config": {"model_type": "qwen3_vl_moe_text"}}, "'qwen3_vl_moe_text'"),
        ({"text_config": YARN}, "rope_type = 'yarn'"),
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
    ids=str,
)
def test_what_is_not_supported_is_named_before_a_weight_is_read(base, change, culprit, tmp_path):
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    edit_config(tmp_path, change)
    message = refusal(tmp_path)  # which has no weights
    assert culprit in message
    assert str(tmp_path / "config.json") in message


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "qkv", "linear_fc2"]},
        {"target_modules": ["gate_proj"], "modules_to_save": ["merger", "deepstack_merger_list.1"]},
    ],
    ids=["names", "mergers whole"],
)
def test_adapters_that_peft_trained(base, options, tmp_path):
    assert_reads_what_peft_trained(base, options, tmp_path)


def test_adapters_of_ours_in_peft(base, tmp_path):
    assert_peft_reads_ours(base, "language_decoder", tmp_path)
