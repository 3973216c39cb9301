"""Idefics3 and SmolVLM: positions, tiles, prompts, and files as the hub has them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import TILE, write_smolvlm
from torch_reference import by_row, edit_config, load, make_batch, random_config
from transformers import Idefics3ImageProcessorPil

from inbol_jax.data.images import image_size, load_image
from inbol_jax.errors import InbolError
from inbol_jax.models import save_pretrained
from inbol_jax.models.config import load_config
from inbol_jax.models.idefics3 import position_buckets
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import UNTILED, Grid, padded_tiles, tile_grid


@pytest.mark.parametrize("side", [1, 2, 14, 24, 26, 27, 32])  # among them those of the published
def test_positions_are_those_of_transformers(side):
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    for count in range(1, side + 1):
        places = torch.arange(side, dtype=torch.float32) * (1.0 / torch.tensor(count))
        buckets = torch.bucketize(torch.clamp(places, max=1 - 1e-6), boundaries, right=True)
        np.testing.assert_array_equal(position_buckets(side)[count], buckets.numpy())
    np.testing.assert_array_equal(position_buckets(side)[side], np.arange(side))


def test_batches_whose_tokens_are_not_their_images(smolvlm):
    batch = by_row(make_batch(smolvlm.config, [16, 16], images=(2, 1)), 4)
    smolvlm.apply(smolvlm.variables, batch)
    batch["pixel_values"][1] = 0
    with pytest.raises(InbolError, match=r"4 image tokens in row 1 .* its images have 0"):
        smolvlm.apply(smolvlm.variables, batch)
    oblong = batch | {"pixel_values": batch["pixel_values"][..., :12]}
    with pytest.raises(InbolError, match="24 x 12 pixels: squares of at most 24, of a multiple"):
        smolvlm.model.apply(smolvlm.variables, oblong)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": {"longest_edge": 60}},  # no whole number of tiles
        {"do_resize": False},
        {"do_image_splitting": False},
        {"size": {"height": 30, "width": 70}},
    ],
    ids=str,
)
def test_grids_are_the_processors(options):
    options = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": TILE}} | options
    processor, random = Idefics3ImageProcessorPil(**options), np.random.default_rng(0)
    found = set()
    for width, height in (*random.integers(1, 130, (40, 2)).tolist(), (24, 24), (1, 99), (96, 96)):
        picture = Image.new("RGB", (width, height))
        batch = processor(picture, return_row_col_info=True, return_tensors="np")
        (((rows,),), ((columns,),)) = batch["rows"], batch["cols"]
        grid = tile_grid(processor, width, height)
        assert grid == Grid(rows, columns)
        assert grid.tiles == batch["pixel_values"].shape[1]
        found.add(grid)
    assert len(found) > 1 or "do_image_splitting" in options or "height" in options.get("size", {})


def test_sizes_are_read_from_headers(tmp_path):
    """Turned as the picture itself is."""
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
        assert image_size(tmp_path / "a.jpg") == load_image(tmp_path / "a.jpg").size
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InbolError, match=r"b\.png"):
        image_size(tmp_path / "b.png")


def test_static_numbers_of_tiles_are_few():
    padded = {n: padded_tiles(n) for n in range(1, 258)}
    assert all(n - 1 <= size - 1 <= 1.25 * (n - 1) for n, size in padded.items())
    assert all(padded[n] == n for n in (1, 2, 3, 4, 5, 7, 9, 13, 17))  # grids up to 4 x 4
    assert len({*padded.values()}) <= 9 + 4 * 5


def test_images_are_padded_and_compared_with_their_prompt(smolvlm, tmp_path):
    Image.new("RGB", (48, 20), "red").save(tmp_path / "a.png")
    encoder = make_text_encoder(smolvlm)
    assert encoder.grid(tmp_path / "a.png") == Grid(1, 2)
    whole = load_image_inputs(smolvlm, [tmp_path / "a.png"], [Grid(1, 2)])
    padded = load_image_inputs(smolvlm, [tmp_path / "a.png"], [Grid(1, 2)], 5)
    for name, (shape, dtype) in smolvlm.config.image_shapes(5).items():
        assert (padded[name].shape, padded[name].dtype) == (shape, dtype)
        np.testing.assert_array_equal(padded[name][:3], whole[name])
        assert not padded[name][3:].any()
    with pytest.raises(InbolError, match=r"a\.png: its image processor makes 3 tiles, .* for 5"):
        load_image_inputs(smolvlm, [tmp_path / "a.png"], [Grid(2, 2)])
    with pytest.raises(InbolError, match="image placeholder"):
        encoder.prompt("Is <image> red?", (Grid(1, 2),))


def test_prompts_that_are_too_long_are_refused(smolvlm):
    config = smolvlm.config
    text = dataclasses.replace(config.text, max_positions=50)
    short = dataclasses.replace(smolvlm, config=dataclasses.replace(config, text=text))
    encoder = make_text_encoder(short)
    assert len(encoder.prompt("Why?", (UNTILED,))) <= 50
    with pytest.raises(InbolError, match="of which 20 are its images', and the model was made for"):
        encoder.prompt("Why?", (Grid(2, 2),))


def test_files_as_the_hub_has_them(tmp_path):
    """SmolVLM2's name its own processor, which needs torchvision; ours do without."""
    write_smolvlm(tmp_path)
    file = tmp_path / "processor_config.json"
    options = json.loads(file.read_text())
    images = options.pop("image_processor") | {"image_processor_type": "SmolVLMImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    file.write_text(json.dumps(options | {"processor_class": "SmolVLMProcessor"}))
    (tmp_path / "video_preprocessor_config.json").write_text("{}")
    checkpoint = load(tmp_path)
    arrays = checkpoint.image_inputs(Image.new("RGB", (48, 48), "red"))
    assert arrays["pixel_values"].shape == (5, 3, TILE, TILE)
    save_pretrained(checkpoint, tmp_path / "saved")
    assert (tmp_path / "saved/video_preprocessor_config.json").is_file()
    file.write_text(json.dumps(options | {"image_seq_len": 9}))
    with pytest.raises(InbolError, match=r"9 image tokens per tile \(image_seq_len\), config.* 4"):
        _ = load(tmp_path).processor


def test_towers_may_go_unnamed(tmp_path):
    """SmolVLM's first checkpoints do not say of what type their towers are."""
    random_config("smolvlm llama untied, ragged patches, head_dim").save_pretrained(tmp_path)
    named = load_config(tmp_path)
    edit_config(tmp_path, {"vision_config": {"model_type": ...}})
    unnamed = load_config(tmp_path)
    assert dataclasses.replace(unnamed, vision=named.vision) == named
    unnamed_tower = dataclasses.replace(unnamed.vision, model_type=named.vision.model_type)
    assert unnamed_tower == named.vision
