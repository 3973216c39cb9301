"""Qwen3-VL: sizes of images, prompts, and batches and processors that do not fit."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from tiny_families import PATCH, write_qwen3_vl
from torch_reference import by_row, load, make_batch, noise, random_torch
from transformers import Qwen2VLImageProcessorPil

from inbol_jax.errors import InbolError
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import UNTILED, Grid, image_grid


def test_batches_that_do_not_fit_together(tmp_path):
    random_torch("qwen3_vl grouped, two layers of features").save_pretrained(tmp_path)
    checkpoint = load(tmp_path)
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
