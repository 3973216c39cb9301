"""LLaVA-NeXT and LLaVA-OneVision: layouts of images of any size, batches and processors that do not
fit, and files as the hub has them.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tiny_families import TILE, write_llava_next, write_llava_onevision
from torch_reference import asked, edit_config, load, noise
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from inbol_jax.errors import InbolError
from inbol_jax.models.anyres import image_layout
from inbol_jax.models.llava_next import token_places
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import Grid

FAMILIES = "llava_next", "llava_onevision"
RESOLUTIONS = [[16, 32], [32, 16], [32, 32], [16, 48], [16, 16]]


@pytest.fixture(params=FAMILIES)
def checkpoint(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("max_tiles", [None, 1, 2, 9])
def test_features_are_placed_as_transformers_does(max_tiles):
    """One image of each of many sizes, behind it unused places for other images' tiles."""
    tiles, find = 6, jax.jit(token_places, static_argnums=(1, 2), static_argnames="scaled")
    vision = type("Vision", (), {"image_size": 16, "patch_size": 4})
    config = type("Config", (), {"vision_config": vision, "image_grid_pinpoints": RESOLUTIONS})
    model, random = type("Model", (), {"config": config}), np.random.default_rng(0)
    scaled = 0
    for size in [*random.integers(3, 90, (12, 2)).tolist(), [2, 300], [900, 1]]:
        layout = image_layout(size, RESOLUTIONS, (16, 4), max_tiles)
        features, newline = torch.randn(layout.tiles, 16, 5), torch.randn(5)
        if max_tiles is None:
            arguments = [features], torch.tensor([size]), "default", newline
            (expected,), _ = LlavaNextModel.pack_image_features(model, *arguments)
        else:
            arguments = [features], torch.tensor([size]), newline, f"anyres_max_{max_tiles}"
            (expected,), _ = LlavaOnevisionModel.pack_image_features(model, *arguments)
        assert len(expected) == layout.num_tokens(16)
        unused = np.full(((tiles - layout.tiles) * 16, 5), 9.0)
        rows = np.concatenate([features.reshape(-1, 5), unused, newline[None]])
        places = find(jnp.array([[layout, [0] * 6]]), tiles, 16, scaled=max_tiles is not None)
        found = sum(rows[np.asarray(i[0])] * np.asarray(share[0])[:, None] for i, share in places)
        np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-5)
        scaled += layout[2:4] != layout[4:]
    assert bool(scaled) == (max_tiles in (1, 2))


def test_an_image_that_is_too_thin():
    with pytest.raises(InbolError, match="an image of 400 x 3 pixels is too thin"):
        image_layout((3, 400), [(16, 160)], (16, 1), 1)


def test_batches_that_do_not_fit_together(checkpoint):
    batch = asked(checkpoint.processor, ("Which?", [noise(48, 20)]), ("Why?", []))
    checkpoint.apply(checkpoint.variables, batch)
    with pytest.raises(InbolError, match="image tokens in the batch, but its images have"):
        checkpoint.apply(checkpoint.variables, batch | {"image_sizes": [[48, 13]]})
    few = batch | {"pixel_values": batch["pixel_values"][:, :1]}
    with pytest.raises(InbolError, match="has 1 tiles, an image has 3"):
        checkpoint.apply(checkpoint.variables, few)
    with pytest.raises(InbolError, match="one image each, as tiles"):
        checkpoint.apply(checkpoint.variables, batch | {"image_sizes": []})
    with pytest.raises(InbolError, match="image_layouts is missing"):
        jax.jit(checkpoint.apply)(checkpoint.variables, batch)


def test_images_are_compared_with_their_prompt(checkpoint, tmp_path):
    noise(48, 20).save(tmp_path / "a.png")
    grid = make_text_encoder(checkpoint).grid(tmp_path / "a.png")
    with pytest.raises(InbolError, match=r"a\.png: its .* makes 3 tiles, .* for 5"):
        load_image_inputs(checkpoint, [tmp_path / "a.png"], [Grid(2, 2, tokens=grid.tokens)])
    with pytest.raises(InbolError, match="image tokens, its prompt was written for 33"):
        load_image_inputs(checkpoint, [tmp_path / "a.png"], [grid._replace(tokens=33)])
    with pytest.raises(InbolError, match="image placeholder"):
        make_text_encoder(checkpoint).prompt("Is <image> red?", (grid,))


def test_what_images_have_at_most(checkpoint):
    """For plans: of five tiles, 4 x 4 features in rows with ends, or scaled down to 2 x 2."""
    scaled = checkpoint.config.max_tiles is not None
    assert checkpoint.config.max_image_tokens(5) == 4 + (2 * 3 if scaled else 4 * 5)
    with pytest.raises(InbolError, match=r"2 tiles per image: its resolutions have \[3, 4, 5\]"):
        checkpoint.config.max_image_tokens(2)


@pytest.mark.parametrize("write", [write_llava_next, write_llava_onevision])
def test_files_that_need_no_torchvision(write, tmp_path):
    """As the hub has them: the image processor of torchvision's backend, and that of videos."""
    write(tmp_path)
    file = tmp_path / "processor_config.json"
    options = json.loads(file.read_text())
    kind = options["image_processor"]["image_processor_type"].removesuffix("Pil")
    edit_config(tmp_path, {"image_processor": {"image_processor_type": kind + "Fast"}}, file.name)
    (tmp_path / "video_preprocessor_config.json").write_text(
        '{"video_processor_type": "LlavaOnevisionVideoProcessor"}'
    )
    assert load(tmp_path).image_inputs(noise(48, 24))["pixel_values"].shape == (3, 3, TILE, TILE)


def test_processors_that_do_not_fit(llava_onevision):
    check = dataclasses.replace(llava_onevision.config, resolutions=((16, 32),)).check_processor
    with pytest.raises(InbolError, match="its processor has other image_grid_pinpoints"):
        check(llava_onevision.processor)
    check = dataclasses.replace(llava_onevision.config, max_tiles=9).check_processor
    with pytest.raises(InbolError, match=r"'anyres_max_2', config\.json says 'anyres_max_9'"):
        check(llava_onevision.processor)
