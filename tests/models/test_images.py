"""Images of the families: grids, layouts, masks, and files as the hub has them, each as
transformers has it.
"""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_families
import torch
import transformers
from PIL import Image
from tiny_families import PATCH, TILE
from torch_reference import edit_config, load, noise
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from inbol_jax.errors import InbolError
from inbol_jax.models import save_pretrained
from inbol_jax.models.llava_next import LlavaNextConfig, token_places
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import padded_tiles
from inbol_jax.models.vlm import image_mask

SLOW = pytest.mark.slow
RESOLUTIONS = [[16, 32], [32, 16], [32, 32], [16, 48], [16, 16]]


SPLIT = {"size": {"longest_edge": 4 * TILE}, "max_image_size": {"longest_edge": TILE}}
TILED = {"size": {"height": TILE, "width": TILE}, "max_patches": 6}
NATIVE = {"patch_size": PATCH, "size": {"shortest_edge": 144, "longest_edge": 16 * 144}}


@pytest.mark.parametrize(
    ("family", "kind", "options"),
    [
        ("smolvlm", "Idefics3", SPLIT),
        ("smolvlm", "Idefics3", SPLIT | {"do_image_splitting": False}),
        ("internvl", "GotOcr2", TILED),
        ("internvl", "GotOcr2", TILED | {"min_patches": 3}),
        ("qwen3_vl", "Qwen2VL", NATIVE),
        ("qwen3_vl", "Qwen2VL", NATIVE | {"size": {"shortest_edge": 9999, "longest_edge": 99999}}),
    ],
    ids=str,
)
def test_grids_are_the_processors(family, kind, options, request):
    """Of images of many sizes."""
    checkpoint = request.getfixturevalue(family)
    images = getattr(transformers, f"{kind}ImageProcessorPil")(**options)
    own = getattr(checkpoint.processor, "images_kwargs", {})
    processor = SimpleNamespace(image_processor=images, images_kwargs=own)
    random, found = np.random.default_rng(0), set()
    for width, height in (*random.integers(5, 130, (20, 2)).tolist(), (24, 24), (96, 96)):
        arrays = checkpoint.image_inputs(Image.new("RGB", (width, height)), processor)
        grid = checkpoint.config.grid(processor, width, height)
        assert checkpoint.config.counts(arrays) == (grid.tiles, sum(checkpoint.config.runs(grid)))
        found.add(grid)
    assert (len(found) > 2) == ("do_image_splitting" not in options)


@pytest.mark.parametrize("max_tiles", [None, 1, 2, 9])
def test_features_are_placed_as_transformers_does(max_tiles):
    """One image of each of many sizes, behind it unused places for other images' tiles."""
    tiles, find = 6, jax.jit(token_places, static_argnums=(1, 2), static_argnames="scaled")
    vision = SimpleNamespace(image_size=16, patch_size=4)
    ours = SimpleNamespace(vision=vision, resolutions=RESOLUTIONS, max_tiles=max_tiles)
    config = type("Config", (), {"vision_config": vision, "image_grid_pinpoints": RESOLUTIONS})
    model, random = type("Model", (), {"config": config}), np.random.default_rng(0)
    scaled = 0
    for size in [*random.integers(3, 90, (12, 2)).tolist(), [2, 300], [900, 1]]:
        layout = LlavaNextConfig.layout(ours, *size)
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


def test_images_that_no_layout_fits(qwen3_vl, tmp_path):
    config = SimpleNamespace(resolutions=[(16, 160)], max_tiles=1)
    config.vision = SimpleNamespace(image_size=16, patch_size=16)
    with pytest.raises(InbolError, match="an image of 400 x 3 pixels is too thin"):
        LlavaNextConfig.layout(config, 3, 400)
    Image.new("RGB", (2001, 10)).save(tmp_path / "b.png")
    with pytest.raises(InbolError, match=r"b\.png: .* aspect ratio must be smaller than 200"):
        make_text_encoder(qwen3_vl).grids([tmp_path / "b.png"])


def test_images_see_themselves_and_what_is_before_them():
    image, segments = jnp.array([[0, 1, 1, 0, 1, 1, 1, 0, 1]]) == 1, jnp.array([[0] * 8 + [-1]])
    (mask,) = np.asarray(image_mask(image, segments))
    expected = np.zeros((9, 9), bool)
    expected[1:3, 1:3] = expected[4:7, 4:7] = True
    np.testing.assert_array_equal(mask, expected)


def test_static_numbers_of_tiles_are_few():
    padded = {n: padded_tiles(n) for n in range(1, 258)}
    assert all(n - 1 <= size - 1 <= 1.25 * (n - 1) for n, size in padded.items())
    assert all(padded[n] == n for n in (1, 2, 3, 4, 5, 7, 9, 13, 17))  # grids up to 4 x 4
    assert len({*padded.values()}) <= 9 + 4 * 5


@pytest.mark.parametrize(
    "family",
    [
        "smolvlm",
        *(pytest.param(x, marks=SLOW) for x in ("internvl", "llava_next", "llava_onevision")),
    ],
)
def test_files_that_need_no_torchvision(family, tmp_path):
    """As the hub has them: the image processor of torchvision's backend, and that of videos.
    SmolVLM2's name its own processor, which needs torchvision; ours do without.
    """
    getattr(tiny_families, f"write_{family}")(tmp_path)
    file, videos = tmp_path / "processor_config.json", tmp_path / "video_preprocessor_config.json"
    kind = json.loads(file.read_text())["image_processor"]["image_processor_type"]
    change = {"image_processor": {"image_processor_type": kind.removesuffix("Pil") + "Fast"}}
    if family == "smolvlm":
        change = {"image_processor": {"image_processor_type": "SmolVLMImageProcessor"}}
        change["processor_class"] = "SmolVLMProcessor"
    edit_config(tmp_path, change, file.name)
    videos.write_text('{"video_processor_type": "LlavaOnevisionVideoProcessor"}')
    checkpoint = load(tmp_path)
    pixels = checkpoint.image_inputs(noise(48, 24))["pixel_values"]
    assert pixels.shape == (3, 3, TILE, TILE)
    save_pretrained(checkpoint, tmp_path / "saved")
    assert (tmp_path / "saved" / videos.name).is_file()


@pytest.mark.parametrize("change", [{"patch_size": 2 * PATCH}, {"merge_size": 4}], ids=str)
def test_a_processor_of_other_sizes_is_noticed_at_the_first_image(qwen3_vl, change, tmp_path):
    noise(96, 48).save(tmp_path / "a.png")
    images = transformers.Qwen2VLImageProcessorPil(**NATIVE | change)
    changed = dataclasses.replace(qwen3_vl)
    changed.__dict__["processor"] = SimpleNamespace(image_processor=images)
    grid = qwen3_vl.config.grid(changed.processor, 96, 48)
    with pytest.raises(InbolError, match=r"config\.json says|prompt was written for"):
        load_image_inputs(changed, [tmp_path / "a.png"], [grid])
