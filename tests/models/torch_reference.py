"""Tiny random models of transformers, batches for them, both sides' logits, and adapters."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoModelForImageTextToText

from inbol_jax.errors import InbolError
from inbol_jax.models import LoraConfig, load_pretrained, save_pretrained
from inbol_jax.models.families import make_model
from inbol_jax.models.lora import init_lora
from inbol_jax.models.processor import load_image_inputs, make_text_encoder

IMAGE = 3
CLOSE = {"atol": 1e-4, "rtol": 1e-4}

VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 16,
}
TEXT = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
QWEN2 = {"model_type": "qwen2", "num_key_value_heads": 2}
QWEN3 = {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8}
MISTRAL = {"model_type": "mistral", "num_key_value_heads": 3, "head_dim": 4}
TILE = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
MROPE = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [2, 1, 1]}
# Every tower and every decoder, and every option of a config in at least one of them:
# (options of the whole model, of the tower, of the decoder).
LLAVA = {
    "clip llama grouped": ({}, {}, {"num_key_value_heads": 2}),
    "clip llama tied, biases, linear rope, full": (
        {
            "vision_feature_select_strategy": "full",
            "vision_feature_layer": 1,
            "projector_hidden_act": "silu",
            "multimodal_projector_bias": False,
            "tie_word_embeddings": True,
        },
        {"num_hidden_layers": 2, "image_size": 24},
        {
            "attention_bias": True,
            "mlp_bias": True,
            "rms_norm_eps": 1e-2,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.5},
        },
    ),
    "clip mistral window": (
        {"projector_hidden_act": "quick_gelu"},
        {},
        {**MISTRAL, "sliding_window": 5},
    ),
    "siglip llama llama3 rope, default": (
        {"vision_feature_layer": -1, "image_seq_length": 3},
        {**SIGLIP, "vision_use_head": True},
        {
            "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 30},
            "max_position_embeddings": 120,
        },
    ),
    "siglip qwen2 window above, full, ragged patches": (
        {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
        {**SIGLIP, "vision_use_head": False, "image_size": 19},
        {**QWEN2, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
}
IDEFICS3 = {
    "idefics3 llama tied, biases, scale 3, gelu": (
        {"scale_factor": 3, "tie_word_embeddings": True},
        {"image_size": 24, "hidden_act": "gelu", "layer_norm_eps": 1e-3},
        {"attention_bias": True, "mlp_bias": True},
    ),
    "idefics3 qwen3 scale 1": ({"scale_factor": 1}, {"image_size": 12}, QWEN3),
    "smolvlm llama untied, ragged patches, head_dim": (
        {},
        {"image_size": 27},
        {"head_dim": 10, "num_attention_heads": 4, "num_key_value_heads": 1},
    ),
}
NATIVE = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_heads": 4,
    "patch_size": 4,
    "out_hidden_size": 24,
}
QWEN3_VL = {
    "qwen3_vl grouped, two layers of features": (
        {},
        {},
        {"head_dim": 8, "num_key_value_heads": 2, "rope_parameters": MROPE | {"rope_theta": 500.0}},
    ),
    "qwen3_vl tied, biases, merges 3, frames of 1, linear rope, gelu": (
        {"tie_word_embeddings": True},
        {
            "spatial_merge_size": 3,
            "temporal_patch_size": 1,
            "deepstack_visual_indexes": [],
            "num_position_embeddings": 30,
            "hidden_act": "gelu",
            "rope_parameters": {"rope_type": "axial", "rope_theta": 50.0},
        },
        {
            "attention_bias": True,
            "head_dim": 12,
            "rms_norm_eps": 1e-2,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 99.0, "factor": 2.5}
            | {"mrope_section": [3, 2, 1]},
        },
    ),
}
QWEN2_5_VL = {
    "qwen2_5_vl grouped, windows": (
        {},
        {},
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"mrope_section": [1, 1, 1]},
        },
    ),
    "qwen2_5_vl tied, merges 3, one full layer, gelu, theta": (
        {"tie_word_embeddings": True},
        {
            "spatial_merge_size": 3,
            "window_size": 24,
            "fullatt_block_indexes": [1],
            "hidden_act": "gelu",
            "temporal_patch_size": 1,
            "rope_parameters": {"rope_type": "axial", "rope_theta": 50.0},
        },
        {
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "rms_norm_eps": 1e-2,
            "rope_parameters": {"mrope_section": [1, 1, 2], "rope_theta": 100.0},
        },
    ),
}
INTERNVL = {
    "internvl qwen3 no biases": (
        {"projector_hidden_act": "silu"},
        {
            "attention_bias": False,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-3,
        },
        {**QWEN3, "attention_bias": True},
    ),
    "internvl qwen2 tied, dynamic rope, scale 4, ragged patches": (
        {"downsample_ratio": 0.25, "tie_word_embeddings": True},
        {"image_size": [18, 18]},
        {
            **QWEN2,
            "num_key_value_heads": 3,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0},
        },
    ),
}
GEMMA3_TEXT = {
    "model_type": "gemma3_text",
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 6,  # more than an image, which it may still cut
    "layer_types": ["sliding_attention", "full_attention"],
}
GEMMA3 = {
    "gemma3 tied, window, linear rope": (
        {},
        {},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
    "gemma3 untied, biases, no pooling, window within an image, ragged patches": (
        {"tie_word_embeddings": False, "mm_tokens_per_image": 16},
        {"image_size": 19, "layer_norm_eps": 1e-3, "vision_use_head": True},
        {
            "attention_bias": True,
            "hidden_activation": "gelu",
            "query_pre_attn_scalar": 3,
            "num_key_value_heads": 3,
            "rms_norm_eps": 1e-2,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
}
ANYRES = {"image_size": 16, "patch_size": 4}
RESOLUTIONS = {"image_grid_pinpoints": [[16, 32], [32, 16], [32, 32], [16, 48]]}
ONEVISION = SIGLIP | ANYRES | {"vision_use_head": False}
LLAVA_NEXT = {
    "llava_next clip mistral tied, list of features": (
        RESOLUTIONS | {"vision_feature_layer": [-2, 1], "tie_word_embeddings": True},
        ANYRES,
        {**MISTRAL, "sliding_window": None},
    ),
    "llava_onevision siglip qwen2, scaled down": (
        RESOLUTIONS | {"vision_aspect_ratio": "anyres_max_1"},
        ONEVISION,
        {**QWEN2, "num_key_value_heads": 3},
    ),
    "llava_onevision clip llama tied, not scaled": (
        RESOLUTIONS
        | {"vision_aspect_ratio": "anyres_max_9", "vision_feature_layer": -2}
        | {"vision_feature_select_strategy": "default", "tie_word_embeddings": True},
        ANYRES,
        {"num_key_value_heads": 3, "head_dim": 10},
    ),
}
_GROUPS = LLAVA, LLAVA_NEXT, IDEFICS3, INTERNVL, GEMMA3, QWEN2_5_VL, QWEN3_VL
RANDOM = {case: options for group in _GROUPS for case, options in group.items()}
# A decoder or a way of giving images is among these once.
_EVERYDAY = {
    "clip mistral window",
    "llava_onevision siglip qwen2, scaled down",
    "gemma3 tied, window, linear rope",
    "qwen3_vl grouped, two layers of features",
}


def _every_day(cases):
    """All cases, of which others are slow."""
    slow = pytest.mark.slow
    return [case if case in cases else pytest.param(case, marks=slow) for case in RANDOM]


# For logits, one of every family; for what the logits do not show, fewer.
PARITY = _every_day(_EVERYDAY | {next(iter(group)) for group in _GROUPS})
CASES = _every_day(_EVERYDAY)
# A key as transformers 5 writes it -> as the checkpoints on the hub have it, and as the modules of
# transformers 4.52 to 5 call it.
SPELLINGS = {
    "as written": lambda key: key,
    "hub": lambda key: re.sub(
        r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", key
    ),
    "modules": lambda key: (
        "lm_head.weight"
        if "lm_head" in key
        else "model." + key.replace("language_model.model.", "language_model.")
    ),
}


_ID, _INDEX = {"image_token_id": IMAGE}, {"image_token_index": IMAGE}
_LLAVA = "LlavaConfig", _INDEX | {"vision_feature_layer": -2}, VISION, {}
# First word of a case -> transformers' config, and what each model has beside its case's options.
FAMILIES = {
    "clip": _LLAVA,
    "siglip": _LLAVA,
    "llava_next": ("LlavaNextConfig", _INDEX, VISION, {}),
    "llava_onevision": ("LlavaOnevisionConfig", _INDEX, VISION, {}),
    "idefics3": ("Idefics3Config", _ID, TILE, {}),
    "smolvlm": ("SmolVLMConfig", _ID, TILE, {}),
    "internvl": (
        "InternVLConfig",
        _ID | {"tie_word_embeddings": False},
        TILE | {"attention_bias": True},
        {},
    ),
    "gemma3": (
        "Gemma3Config",
        _INDEX | {"mm_tokens_per_image": 4},
        TILE | SIGLIP | {"vision_use_head": False},
        GEMMA3_TEXT,
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLConfig",
        _ID,
        NATIVE | {"window_size": 16, "fullatt_block_indexes": [2]},
        {"model_type": "qwen2_5_vl_text"},
    ),
    "qwen3_vl": (
        "Qwen3VLConfig",
        _ID,
        NATIVE | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 2]},
        {"model_type": "qwen3_vl_text"},
    ),
}


def random_config(case):
    """The config of transformers of a case."""
    kind, *common = FAMILIES[case.split()[0]]
    top, vision, text = (shared | own for shared, own in zip(common, RANDOM[case], strict=True))
    return getattr(transformers, kind)(vision_config=vision, text_config=TEXT | text, **top)


def random_torch(case):
    """A model of transformers in which every parameter matters: norms and biases are random too."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(random_config(case)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.15)
    return model


def is_native(config):
    """Whether images have any size."""
    return hasattr(config.vision, "merge_size")


def anyres_size(config):
    """Height and width of the images of `make_batch`, which are padded above or on the left."""
    sizes = (8, 32), (30, 9), (40, 31), (7, 42)
    return sizes[2 * (not config.vision.is_clip) + config.text.tie_word_embeddings]


def tokens_per_image(config):
    """Of those that `make_batch` makes."""
    if hasattr(config, "resolutions"):
        return config.layout(*anyres_size(config)).num_tokens(config.num_image_tokens)
    return 6 if is_native(config) else config.num_image_tokens


def make_batch(config, lengths, *, side="right", images=1, seed=0):
    """Rows of the given lengths: random text around the image tokens of `images` images per row.

    Padding is random tokens, too. Images of any size differ in their shapes.
    """
    random = np.random.default_rng(seed)
    images = [images] * len(lengths) if isinstance(images, int) else images
    width, patches = max(lengths), tokens_per_image(config)
    words = np.array([i for i in range(config.text.vocab_size) if i != config.image_token_id])
    ids = random.choice(words, (len(lengths), width))
    mask = np.zeros((len(lengths), width), np.int32)
    for row, (length, n) in enumerate(zip(lengths, images, strict=True)):
        line = random.choice(words, length)
        for block in np.array_split(np.arange(length), n) if n else ():
            first = block[0] + (block[0] > 0)  # behind at least one word
            start = first + random.integers(block[-1] - first - patches + 2)
            line[start : start + patches] = config.image_token_id
        where = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, where], mask[row, where] = line, 1
    batch = {"input_ids": ids.astype(np.int32), "attention_mask": mask}
    if not (n := sum(images)):
        return batch
    if is_native(config):
        c, shapes = config.vision, np.array([(2, 3), (3, 2), (6, 1), (1, 6)])
        grids = c.merge_size * shapes[(np.arange(n) + seed) % 4]
        batch["pixel_values"] = random.normal(size=(n * patches * c.square, c.patch_dim))
        batch["image_grid_thw"] = np.pad(grids, ((0, 0), (1, 0)), constant_values=1)
    elif hasattr(config, "resolutions"):
        side, size = config.vision.image_size, anyres_size(config)
        layout = config.layout(*size)
        batch["pixel_values"] = random.normal(size=(n * layout.tiles, 3, side, side))
        batch["image_layouts"] = np.array([layout] * n, np.int32)
        batch["image_sizes"] = np.array([size] * n)
    else:
        size = config.vision.image_size
        batch["pixel_values"] = random.normal(size=(n, 3, size, size))
    return batch | {"pixel_values": batch["pixel_values"].astype(np.float32)}


def images_of(batch):
    """The arrays of a batch that are of its images."""
    return {name: x for name, x in batch.items() if name.startswith(("pixel_", "image_"))}


def by_row(batch, per_image, image_token_id=IMAGE, unused=0):
    """The images [n, ...] of a batch, of so many tokens each, as [b, m, ...]. Unused places are
    zeros, as transformers' processors of tiles write them.
    """
    places = (batch["input_ids"] == image_token_id) & (batch["attention_mask"] == 1)
    counts = places.sum(1) // per_image
    starts, result = np.cumsum(counts) - counts, {}
    for name, x in images_of(batch).items():
        size = len(x) // counts.sum()  # of one image
        rows = np.zeros((len(counts), counts.max() * size, *x.shape[1:]), x.dtype)
        rows[:] = unused if name == "pixel_values" else 0
        for row, (start, count) in enumerate(zip(starts * size, counts * size, strict=True)):
            rows[row, :count] = x[start : start + count]
        result[name] = rows
    return batch | result


def for_ours(config, batch):
    """A batch with its images by row, if it has any that are not."""
    pixels = batch.get("pixel_values")
    if pixels is None or pixels.ndim == (3 if is_native(config) else 5):
        return batch
    return by_row(batch, tokens_per_image(config), config.image_token_id, unused=7.0)


def pad(rows):
    """Rows of ids as a batch, padded on the right."""
    lengths = np.array([len(row) for row in rows])
    ids = np.stack([np.pad(row, (0, lengths.max() - len(row))) for row in rows]).astype(np.int32)
    return {
        "input_ids": ids,
        "attention_mask": (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int32),
    }


def asked(processor, *rows, **options):
    """What a processor makes of questions, each with its pictures, as numpy arrays."""
    texts = []
    for question, pictures in rows:
        content = [*[{"type": "image"}] * len(pictures), {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        texts.append(processor.apply_chat_template(turn, add_generation_prompt=True))
    images = [pictures for _, pictures in rows]
    options |= {"images": images} if any(images) else {}
    return dict(processor(text=texts, padding=True, return_tensors="np", **options))


def their_logits(model, batch):
    """transformers' logits of what its processor made."""
    with torch.inference_mode():
        return model(**{name: torch.tensor(x) for name, x in batch.items()}).logits.numpy()


def noise(width, height):
    """A picture."""
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def assert_rows_are_as_alone(checkpoint, rows):
    """Rows of several, one and no image files, padded to one number of tiles, have the prompts and
    logits of transformers, which is given each alone. Those of text alone also without tiles.

    Args:
      rows: (question, paths of its images) each.
    """
    encoder, processor = make_text_encoder(checkpoint), checkpoint.processor
    grids = [encoder.grids(paths) for _, paths in rows]
    prompts = [encoder.prompt(row[0], cut) for row, cut in zip(rows, grids, strict=True)]
    assert len({len(paths) for _, paths in rows}) == 3

    def logits_of(which, tiles):
        arrays = [load_image_inputs(checkpoint, rows[i][1], grids[i], tiles) for i in which]
        for row in arrays:
            for name, (shape, dtype) in checkpoint.config.image_shapes(tiles).items():
                assert (row[name].shape, row[name].dtype) == (shape, dtype)
        batch = pad([prompts[i] for i in which])
        batch |= {name: np.stack([row[name] for row in arrays]) for name in arrays[0]}
        return our_logits(checkpoint, batch)

    most = max(sum(grid.tiles for grid in cut) for cut in grids)
    together, model = logits_of(range(len(rows)), most + 3), torch_base(checkpoint.path)
    for i, (question, paths) in enumerate(rows):
        alone = asked(processor, (question, [Image.open(path) for path in paths]))
        assert tuple(alone["input_ids"][0]) == prompts[i]
        (expected,) = their_logits(model, alone)
        np.testing.assert_allclose(together[i, : len(expected)], expected, **CLOSE)
        if not paths:
            np.testing.assert_allclose(logits_of([i], 0)[0], expected, **CLOSE)


def load(folder):
    return load_pretrained(folder, dtype=jnp.float32)


def torch_inputs(model, batch):
    """A batch as transformers' model takes it."""
    if hasattr(model.config, "scale_factor"):
        vision = model.config.vision_config
        side = vision.image_size // vision.patch_size // model.config.scale_factor
        batch = by_row(batch, side**2)
    if "image_layouts" in batch:
        batch = {name: x for name, x in batch.items() if name != "image_layouts"}
        pixels = batch["pixel_values"]
        batch["pixel_values"] = pixels.reshape(len(batch["image_sizes"]), -1, *pixels.shape[1:])
    if "image_grid_thw" in batch:
        is_image = batch["input_ids"] == model.config.image_token_id
        batch = batch | {"mm_token_type_ids": is_image.astype(np.int32)}
    if model.config.model_type == "gemma3":  # without these, images are seen like text
        batch = batch | {"token_type_ids": (batch["input_ids"] == IMAGE).astype(np.int64)}
    inputs = {name: torch.from_numpy(value) for name, value in batch.items()}
    return inputs | {name: inputs[name].long() for name in ("input_ids", "attention_mask")}


def torch_logits(model, batch):
    with torch.inference_mode():
        return model(**torch_inputs(model, batch)).logits.numpy()


@functools.partial(jax.jit, static_argnums=0)
def forward(model, variables, batch):
    return model.apply(variables, batch)


def our_logits(checkpoint, batch):
    batch = for_ours(checkpoint.config, batch)
    return np.asarray(forward(checkpoint.model, checkpoint.variables, batch))


def assert_same_logits(checkpoint, model, *, images=(1, 1, 1)):
    """Compares rows of different lengths, padded on either side, with so many images each."""
    shortest = 2 + max(images) * (tokens_per_image(checkpoint.config) + 1)
    lengths = [shortest, shortest + 9, shortest + 4]
    for side in ("right", "left"):
        batch = make_batch(checkpoint.config, lengths, side=side, images=images, seed=sum(images))
        ours, theirs = our_logits(checkpoint, batch), torch_logits(model, batch)
        counts = batch["attention_mask"] == 1
        assert ours.dtype == np.float32
        assert np.std(theirs[counts]) > 0.1, (
            "logits too small for an absolute tolerance to mean anything"
        )
        np.testing.assert_allclose(
            ours[counts], theirs[counts], **CLOSE, err_msg=f"{side} padding, images {images}"
        )


def edit_config(folder, change, name="config.json"):
    """Merges `change` into config.json, level by level; `...` deletes a key."""

    def merge(into, new):
        for key, value in new.items():
            if value is ...:
                into.pop(key)
            elif isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value
        return into

    file = folder / name
    file.write_text(json.dumps(merge(json.loads(file.read_text()), change)))


def refusal(*arguments, **options):
    """The one line that loading is refused with."""
    with pytest.raises(InbolError) as caught:
        load_pretrained(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shards(folder):
    return sorted(folder.glob("model-*.safetensors"))


def torch_base(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def with_adapters(folder, config=None, scale=0.1):
    """A base with adapters of ours that do something."""
    checkpoint, config = load(folder), config or LoraConfig(rank=2, alpha=3.0)
    lora = init_lora(checkpoint.variables["params"], config, jax.random.key(0))
    lora = jax.tree.map(
        lambda x: x + scale * jax.random.normal(jax.random.key(x.size), x.shape), lora
    )
    return dataclasses.replace(
        checkpoint,
        model=make_model(checkpoint.config, jnp.float32, config),
        variables=checkpoint.variables | {"lora": lora},
    )


def assert_close(checkpoint, model, batch):
    counts = batch["attention_mask"] == 1
    ours, theirs = our_logits(checkpoint, batch), torch_logits(model, batch)
    np.testing.assert_allclose(ours[counts], theirs[counts], **CLOSE)


def assert_reads_what_peft_trained(base, options, folder):
    """Adapters that PEFT made on a checkpoint give its logits here, and not those of the base."""
    model = peft.get_peft_model(torch_base(base), peft.LoraConfig(r=4, lora_alpha=12, **options))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.15)
    model.eval().save_pretrained(folder)
    checkpoint = load_pretrained(base, dtype="float32", adapters=folder)
    tokens = tokens_per_image(checkpoint.config)
    batch = make_batch(checkpoint.config, [tokens + 8, tokens + 12])
    assert_close(checkpoint, model, batch)
    plain = dataclasses.replace(checkpoint, variables={"params": load(base).variables["params"]})
    ours = our_logits(checkpoint, batch)
    assert np.abs(our_logits(plain, batch) - ours).max() > 1e-2, "the adapters do nothing"
    save_pretrained(checkpoint, folder / "ours")  # through our files and back
    again = load(folder / "ours").variables
    jax.tree.map(np.testing.assert_array_equal, dict(again), dict(checkpoint.variables))


def assert_peft_reads_ours(base, decoder, folder):
    """Adapters of the default targets, every dense layer of the decoder and no other, give the same
    logits here, in PEFT and merged, and come back as they were.

    Args:
      decoder: the name of the decoder's part in parameter paths.
    """
    checkpoint = with_adapters(base, LoraConfig(rank=3, alpha=5.0))
    assert set(checkpoint.variables["lora"]) == {decoder}
    save_pretrained(checkpoint, folder)
    model = peft.PeftModel.from_pretrained(torch_base(base), folder).eval()
    tokens = tokens_per_image(checkpoint.config)
    batch = make_batch(checkpoint.config, [tokens + 8, tokens + 12])
    assert_close(checkpoint, model, batch)
    names = set(peft.get_peft_model_state_dict(model))
    assert set(load_file(folder / "adapter_model.safetensors")) == names
    merged = folder / "merged"
    save_pretrained(checkpoint, merged, merge_adapters=True)
    assert_close(load(merged), model, batch)
    jax.tree.map(
        np.testing.assert_array_equal,
        load(folder).variables["lora"],
        dict(checkpoint.variables["lora"]),
    )
