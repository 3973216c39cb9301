"""InternVL: tiles, batches and processors that do not fit, and files as the hub has them."""

import dataclasses

import numpy as np
import pytest
import transformers
from PIL import Image
from tiny_families import TILE, write_internvl
from torch_reference import asked, edit_config, load, noise

from inbol_jax.errors import InbolError
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import Grid, image_grid


def test_batches_whose_tokens_are_not_their_images(internvl):
    rows = ("Which?", [noise(48, 48), noise(90, 30)]), ("Why?", [])
    batch = asked(internvl.processor, *rows)
    fewer = batch | {"pixel_values": batch["pixel_values"][1:]}
    with pytest.raises(InbolError, match="36 image tokens in the batch, but its images have 32"):
        internvl.apply(internvl.variables, fewer)
    small = batch | {"pixel_values": batch["pixel_values"][..., :18]}
    with pytest.raises(InbolError, match=r"images of 24 x 18 pixels: config\.json says 24 each"):
        internvl.apply(internvl.variables, small)


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
