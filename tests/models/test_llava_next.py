"""LLaVA-NeXT and LLaVA-OneVision: what the parity tests of all families do not show. Layouts of
images of any size, the processors' own batches, several images, adapters, and what is refused.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_llava_next import TILE, write_llava_next, write_llava_onevision
from torch_reference import (
    CLOSE,
    SPELLINGS,
    assert_peft_reads_ours,
    assert_reads_what_peft_trained,
    assert_rows_are_as_alone,
    edit_config,
    load,
    random_torch,
    refusal,
    torch_base,
)
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from inbol_jax.errors import InbolError
from inbol_jax.models.anyres import image_layout
from inbol_jax.models.llava_next import token_places
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import Grid

# PEFT asks transformers for it
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
FAMILIES = "llava_next", "llava_onevision"
RESOLUTIONS = [[16, 32], [32, 16], [32, 32], [16, 48], [16, 16]]


@pytest.fixture(params=FAMILIES)
def checkpoint(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(
    scope="module",
    params=[
        "llava_onevision siglip qwen2, scaled down",
        pytest.param("llava_next clip mistral", marks=pytest.mark.slow),
    ],
)
def base(request, tmp_path_factory):
    """The folder of a random model."""
    folder = tmp_path_factory.mktemp("base")
    random_torch(request.param).save_pretrained(folder)
    return folder


def noise(width, height):
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


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


ONE, TWO = (((48, 48),), (), ((20, 48),)), (((48, 20), (90, 30)), (), ((30, 24),))


@pytest.mark.parametrize(
    ("family", "side", "sizes"),
    [
        ("llava_next", "right", ONE),
        ("llava_onevision", "left", TWO),
        pytest.param("llava_next", "left", TWO, marks=pytest.mark.slow),
        pytest.param("llava_onevision", "right", ONE, marks=pytest.mark.slow),
    ],
)
def test_the_processors_own_batch(family, side, sizes, request):
    """Rows of several, no and one image, of different sizes; prompts as we make them."""
    checkpoint = request.getfixturevalue(family)
    processor, encoder = checkpoint.processor, make_text_encoder(checkpoint)
    questions, texts, prompts, pictures = ("What color is it?", "Why?", "How many?"), [], [], []
    for question, row in zip(questions, sizes, strict=True):
        content = [*[{"type": "image"}] * len(row), {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        texts.append(processor.apply_chat_template(turn, add_generation_prompt=True))
        alone = len(row) == 1
        grids = tuple(checkpoint.config.grid(processor, *size, alone=alone) for size in row)
        prompts.append(encoder.prompt(question, grids))
        pictures.append([noise(*size) for size in row])
    batch = dict(
        processor(text=texts, images=pictures, padding=True, padding_side=side, return_tensors="np")
    )
    for ids, mask, prompt in zip(batch["input_ids"], batch["attention_mask"], prompts, strict=True):
        assert tuple(ids[mask == 1]) == prompt
    with torch.inference_mode():
        inputs = {name: torch.tensor(x) for name, x in batch.items()}
        expected = torch_base(checkpoint.path)(**inputs).logits.numpy()
    ours = np.asarray(checkpoint.apply(checkpoint.variables, batch))
    counts = batch["attention_mask"] == 1
    np.testing.assert_allclose(ours[counts], expected[counts], **CLOSE)
    others = [[48, 13]] * len(batch["image_sizes"])
    with pytest.raises(InbolError, match="image tokens in the batch, but its images have"):
        checkpoint.apply(checkpoint.variables, batch | {"image_sizes": others})
    few = batch | {"pixel_values": batch["pixel_values"][:, :1]}
    with pytest.raises(InbolError, match=r"has 1 tiles, an image has \d"):
        checkpoint.apply(checkpoint.variables, few | {"batch_num_images": [1] * len(others)})
    with pytest.raises(InbolError, match="one image each, as tiles"):
        checkpoint.apply(checkpoint.variables, batch | {"image_sizes": others[1:]})
    with pytest.raises(InbolError, match="image_layouts is missing"):
        jax.jit(checkpoint.apply)(checkpoint.variables, batch)


@pytest.mark.parametrize(
    "family", ["llava_onevision", pytest.param("llava_next", marks=pytest.mark.slow)]
)
def test_rows_of_several_and_of_no_images(family, tmp_path, request):
    """LLaVA-OneVision cuts the image that is alone."""
    checkpoint = request.getfixturevalue(family)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, size in zip(paths, ((48, 20), (30, 50)), strict=True):
        noise(*size).save(path)
    rows = [("Which is red?", paths), ("Why?", []), ("How many?", paths[1:])]
    assert_rows_are_as_alone(checkpoint, rows)
    grids = make_text_encoder(checkpoint).grids(paths)
    assert sum(grid.tiles for grid in grids) == (8 if checkpoint.config.cuts_several else 2)


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


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"image_grid_pinpoints": [[16, 30]]}, "16 x 30 pixels are no whole tiles of 16"),
        ({"image_grid_pinpoints": [[16, 16000]]}, "16 x 16000 pixels"),
        ({"image_grid_pinpoints": [[4096, 4096]]}, "65,537 tiles, at most 256 are read"),
        ({"image_grid_pinpoints": []}, "a value is of the wrong type or size"),
        ({"image_grid_pinpoints": [[16]]}, "a value is of the wrong type or size"),
        ({"vision_feature_select_strategy": "some"}, "vision_feature_select_strategy"),
        ({"text_config": {"model_type": "gemma2"}}, "text_config.model_type = 'gemma2'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "llava_next_video"}, "model_type = 'llava_next_video'"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named_before_a_weight_is_read(base, change, culprit, tmp_path):
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    edit_config(tmp_path, change)
    assert culprit in refusal(tmp_path)  # which has no weights


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"vision_aspect_ratio": "pad"}, "vision_aspect_ratio = 'pad' is not supported"),
        ({"vision_feature_select_strategy": "default"}, "does not leave the 16 patches of a tile"),
    ],
    ids=str,
)
def test_what_is_not_supported_of_llava_onevision(change, culprit, tmp_path):
    random_torch("llava_onevision siglip qwen2, scaled down").config.save_pretrained(tmp_path)
    edit_config(tmp_path, change)
    assert culprit in refusal(tmp_path)


def test_processors_that_do_not_fit(llava_onevision):
    check = dataclasses.replace(llava_onevision.config, resolutions=((16, 32),)).check_processor
    with pytest.raises(InbolError, match="its processor has other image_grid_pinpoints"):
        check(llava_onevision.processor)
    check = dataclasses.replace(llava_onevision.config, max_tiles=9).check_processor
    with pytest.raises(InbolError, match=r"'anyres_max_2', config\.json says 'anyres_max_9'"):
        check(llava_onevision.processor)


def test_keys_of_other_spellings(base, tmp_path):
    """As the hub has them, and as transformers' modules do."""
    tensors = load_file(base / "model.safetensors")
    for spelling in ("hub", "modules"):
        folder = tmp_path / spelling
        folder.mkdir()
        renamed = {SPELLINGS[spelling](key): x for key, x in tensors.items()}
        (folder / "config.json").write_bytes((base / "config.json").read_bytes())
        save_file(renamed, folder / "model.safetensors")
        jax.tree.map(np.testing.assert_array_equal, load(folder).variables, load(base).variables)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj", "linear_1"]},
        {"target_modules": ["gate_proj"], "modules_to_save": ["multi_modal_projector"]},
    ],
    ids=["names", "projector whole"],
)
def test_adapters_that_peft_trained(base, options, tmp_path):
    assert_reads_what_peft_trained(base, options, tmp_path)


def test_adapters_of_ours_in_peft(base, tmp_path):
    assert_peft_reads_ours(base, "language_model", tmp_path)
