"""The architecture: the part of a checkpoint's config.json that the Flax port reads.

Unsupported options are refused by name. transformers' own configuration classes fill in what a
config leaves out: checkpoints on the hub mostly write down what differs from the defaults.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import parse_json
from inbol_jax.errors import InbolError
from inbol_jax.models.architecture import (
    Gemma3Config,
    Idefics3Config,
    InternVLConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    ModelConfig,
    Qwen3VLConfig,
    Qwen25VLConfig,
    SquaresConfig,
)
from inbol_jax.models.architecture_parts import NativeVisionConfig
from inbol_jax.models.bounds import check, check_sizes
from inbol_jax.models.config_parts import (
    GENERATION,
    VISION_TOWERS,
    fill_in_defaults,
    read,
    read_shared,
    read_vision,
    require,
)
from inbol_jax.models.layers import ACTIVATIONS
from inbol_jax.models.tiles import MAX_SIDE, MAX_TILES


def load_config(path: Path) -> ModelConfig:
    """Reads config.json of a checkpoint folder, and generation_config.json for token ids and bias.

    Raises:
      InbolError: if the folder or a key is missing, if the port does not support an option, or if
        a value is absurd.
    """
    file = path / "config.json"
    if not file.is_file():
        raise InbolError(f"{path} is not a checkpoint folder: config.json is missing")
    raw, generated = read_json(file), read_generation(path)
    # Seconds to import, and the Flax modules do not need it.
    from huggingface_hub.errors import StrictDataclassError

    try:
        check_sizes(raw)
        require(raw["model_type"], _FAMILIES, "model_type")
        config = _FAMILIES[raw["model_type"]](raw, generated)
        check(config)
        return config
    except KeyError as error:
        raise InbolError(f"{file}: key {error} is missing") from error
    except InbolError as error:
        raise InbolError(f"{file}: {error}") from error
    except (StrictDataclassError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise InbolError(f"{file}: a value is of the wrong type or size ({reason})") from error


def read_generation(folder: Path) -> dict[str, Any]:
    """Reads generation_config.json; empty if there is none. Raises InbolError if it is no JSON."""
    file = folder / GENERATION
    return read_json(file) if file.is_file() else {}


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises InbolError if the file holds none."""
    try:
        value = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InbolError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InbolError(f"{file}: a JSON object is needed")
    return value


def _llava(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> LlavaConfig:
    hf = fill_in_defaults(raw, "LlavaConfig", VISION_TOWERS)
    # Old checkpoints say so in the decoder's part, newer ones in that of the whole.
    tied = bool(hf.tie_word_embeddings or hf.text_config.tie_word_embeddings)
    return LlavaConfig(**_llava_parts(hf), **read_shared(raw, generation, hf, tied=tied))


def _llava_next(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> LlavaNextConfig:
    kind, name = LlavaNextConfig, "LlavaNextConfig"
    if onevision := raw["model_type"] == "llava_onevision":
        kind, name = LlavaOnevisionConfig, "LlavaOnevisionConfig"
    hf, options = fill_in_defaults(raw, name, VISION_TOWERS), {}
    if onevision:
        match = re.fullmatch(r"anyres_max_([1-9]\d?)", hf.vision_aspect_ratio)
        if not match:
            raise InbolError(f"vision_aspect_ratio = {hf.vision_aspect_ratio!r} is not supported")
        options["max_tiles"] = int(match[1])
    config = kind(
        resolutions=tuple(map(tuple, hf.image_grid_pinpoints)),
        **options,
        **_llava_parts(hf),
        **read_shared(raw, generation, hf),
    )
    pixels, patches = config.vision.image_size, config.vision.num_patches
    for height, width in config.resolutions:
        if not all(0 < side <= MAX_SIDE and side % pixels == 0 for side in (height, width)):
            raise InbolError(
                f"image_grid_pinpoints: {height} x {width} pixels are no whole tiles of {pixels}"
            )
    if config.num_image_tokens != patches:
        raise InbolError(
            f"vision_feature_select_strategy = {hf.vision_feature_select_strategy!r} does not "
            f"leave the {patches} patches of a tile"
        )
    if (most := max(config.layout(*size).tiles for size in config.resolutions)) > MAX_TILES:
        raise InbolError(f"image_grid_pinpoints: {most:,} tiles, at most {MAX_TILES} are read")
    return config


def _llava_parts(hf: Any) -> dict[str, Any]:
    """The fields of LLaVA, LLaVA-NeXT and LLaVA-OneVision besides `read_shared`."""
    layer = hf.vision_feature_layer
    strategy = hf.vision_feature_select_strategy
    require(strategy, ("default", "full"), "vision_feature_select_strategy")
    require(hf.projector_hidden_act, ACTIVATIONS, "projector_hidden_act")
    layers = tuple(layer) if isinstance(layer, list | tuple) else (layer,)
    depth = hf.vision_config.num_hidden_layers
    for layer in layers:
        # There are depth + 1 states: the embeddings, and one behind each layer. LLaVA takes -2, the
        # last but one.
        if layer not in range(-depth - 1, depth + 1):
            raise InbolError(f"vision_feature_layer = {layer}: the tower has {depth} layers")
    return {
        "vision": read_vision(hf.vision_config),
        "vision_feature_layers": layers,
        "keep_first_token": strategy == "full",
        "projector_hidden_act": hf.projector_hidden_act,
        "projector_bias": bool(hf.multimodal_projector_bias),
    }


def _idefics3(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Idefics3Config:
    family = {"idefics3": "Idefics3Config", "smolvlm": "SmolVLMConfig"}[raw["model_type"]]
    # transformers takes any of these, and none, as the same tower
    towers = ("idefics3_vision", "smolvlm_vision", "idefics3", "smolvlm")
    hf = fill_in_defaults(raw, family, towers, named=False)
    config = Idefics3Config(
        vision=read_vision(hf.vision_config),
        scale_factor=hf.scale_factor,
        **read_shared(raw, generation, hf),
    )
    _check_shuffle(config, "scale_factor", config.scale_factor)
    return config


def _qwen3_vl(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Qwen3VLConfig:
    towers, decoders = ("qwen3_vl_vision", "qwen3_vl"), ("qwen3_vl_text",)
    hf = fill_in_defaults(raw, "Qwen3VLConfig", towers, decoders, named=False)
    layers = _layers_of_tower(hf.vision_config, "deepstack_visual_indexes")
    positions = hf.vision_config.num_position_embeddings
    tower = _native_tower(hf, deepstack_layers=layers, num_positions=positions)
    return Qwen3VLConfig(
        vision=tower,
        mrope_section=_mrope_section(hf.text_config, (24, 20, 20)),
        **read_shared(raw, generation, hf),
    )


def _qwen2_5_vl(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Qwen25VLConfig:
    towers, decoders = ("qwen2_5_vl_vision", "qwen2_5_vl"), ("qwen2_5_vl_text",)
    # The hub's configs have the decoder's options beside those of the whole.
    flat = {name: value for name, value in raw.items() if name != "vision_config"}
    text = raw.get("text_config", flat | {"model_type": decoders[0]})
    raw = {name: value for name, value in raw.items() if not name.startswith("rope_")}
    raw["text_config"] = text
    hf = fill_in_defaults(raw, "Qwen2_5_VLConfig", towers, decoders, named=False)
    # With positions in three axes, tokens know no distance in the row.
    require(hf.text_config.use_sliding_window, (False, None), "text_config.use_sliding_window")
    v = hf.vision_config
    tower = _native_tower(
        hf,
        # 112 pixels / 2 / 14 = 4 tokens per side, rounded down in transformers' order
        window=v.window_size // v.spatial_merge_size // v.patch_size,
        full_layers=_layers_of_tower(v, "fullatt_block_indexes"),
        rms_norm=True,
        gated=True,
        patch_bias=False,
    )
    config = Qwen25VLConfig(
        vision=tower,
        mrope_section=_mrope_section(hf.text_config, (16, 24, 24)),
        mrope_interleaved=False,
        **read_shared(raw, generation, hf),
    )
    if sum(config.mrope_section) != config.text.head_dim // 2:
        raise InbolError(
            f"text_config.mrope_section = {config.mrope_section}: the sum is not half of "
            f"{config.text.head_dim}, the size of a head"
        )
    return config


def _layers_of_tower(v: Any, name: str) -> tuple[int, ...]:
    layers = tuple(getattr(v, name))
    # Rising, each at most once, and each there: features are collected while the layers run.
    if list(layers) != sorted({*layers} & {*range(v.depth)}):
        raise InbolError(
            f"vision_config.{name} = {layers}: rising numbers of its {v.depth} layers are needed"
        )
    return layers


def _native_tower(hf: Any, **given: Any) -> NativeVisionConfig:
    text, v = hf.text_config, hf.vision_config
    require(v.in_channels, (3,), "vision_config.in_channels")
    require(v.hidden_act, ACTIVATIONS, "vision_config.hidden_act")
    require(v.rope_parameters["rope_type"], ("axial",), "vision_config.rope_type")
    # Merged features go straight into the decoder, without a projection of their own.
    require(v.out_hidden_size, (text.hidden_size,), "vision_config.out_hidden_size")
    # Half of a head's pairs turn with rows and half with columns (`qwen3_vl.VisionBlock`).
    if v.hidden_size % (4 * v.num_heads):
        raise InbolError(
            f"vision_config: {v.num_heads} heads of a size that is a multiple of 4 do not make "
            f"a hidden size of {v.hidden_size}"
        )
    return read(NativeVisionConfig, v, rope_theta=float(v.rope_parameters["rope_theta"]), **given)


def _mrope_section(text: Any, default: tuple[int, int, int]) -> tuple[int, ...]:
    sections = tuple(text.rope_parameters.get("mrope_section", default))
    if len(sections) != 3 or any(type(n) is not int or n < 0 for n in sections):
        raise InbolError(f"text_config.mrope_section = {sections}: three whole numbers are needed")
    return sections


def _internvl(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> InternVLConfig:
    hf = fill_in_defaults(raw, "InternVLConfig", ("internvl_vision",))
    vision = hf.vision_config
    require(hf.vision_feature_layer, (-1,), "vision_feature_layer")
    require(hf.vision_feature_select_strategy, ("default",), "vision_feature_select_strategy")
    require(hf.downsample_ratio, (1.0, 0.5, 0.25), "downsample_ratio")
    require(hf.projector_hidden_act, ACTIVATIONS, "projector_hidden_act")
    require(vision.norm_type, ("layer_norm", "rms_norm"), "vision_config.norm_type")
    for option, only in (
        ("use_absolute_position_embeddings", True),
        ("use_mask_token", False),
        ("use_mean_pooling", True),
    ):
        require(getattr(vision, option), (only,), f"vision_config.{option}")
    sides = {}
    for name in ("image_size", "patch_size"):
        sides[name], *others = getattr(vision, name)
        if others != [sides[name]]:
            raise InbolError(
                f"vision_config.{name} = {[sides[name], *others]} is not supported: squares are"
            )
    config = InternVLConfig(
        vision=read_vision(
            vision,
            **sides,
            qkv_bias=bool(vision.attention_bias),
            qk_norm=bool(vision.use_qk_norm),
            rms_norm=vision.norm_type == "rms_norm",
            layer_scale=float(vision.layer_scale_init_value),
        ),
        # a ratio of 0.5 per side: squares of 2 x 2 patches
        scale_factor=int(1 / hf.downsample_ratio),
        projector_hidden_act=hf.projector_hidden_act,
        **read_shared(raw, generation, hf),
    )
    _check_shuffle(config, "downsample_ratio", hf.downsample_ratio)
    return config


def _gemma3(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Gemma3Config:
    hf = fill_in_defaults(raw, "Gemma3Config", ("siglip_vision_model",), ("gemma3_text",))
    text, vision, tokens = hf.text_config, hf.vision_config, hf.mm_tokens_per_image
    for option, only in (
        ("use_bidirectional_attention", (False, None)),
        ("final_logit_softcapping", (None,)),
        ("attn_logit_softcapping", (None,)),
    ):
        require(getattr(text, option), only, f"text_config.{option}")
    side = vision.image_size // vision.patch_size
    # 896 / 14 = 64 patches per side and 256 = 16 x 16 tokens: squares of 64 / 16 = 4 patches.
    if type(tokens) is not int or tokens < 1 or side % (across := math.isqrt(tokens)):
        raise InbolError(
            f"mm_tokens_per_image = {tokens!r} does not divide {side} x {side} patches"
        )
    if across**2 != tokens:
        raise InbolError(f"mm_tokens_per_image = {tokens!r} is no square")
    local = text.rope_parameters["sliding_attention"]
    require(local["rope_type"], ("default",), "text_config.rope_type of sliding_attention")
    return Gemma3Config(
        vision=read_vision(vision),
        scale_factor=side // across,
        **read_shared(
            raw,
            generation,
            hf,
            rope=text.rope_parameters["full_attention"],
            hidden_act=text.hidden_activation,
            qk_norm=True,
            embedding_scale=text.hidden_size**0.5,
            # attention divides by sqrt(head_dim); Gemma 3 wants sqrt(query_pre_attn_scalar)
            query_scale=(text.head_dim / text.query_pre_attn_scalar) ** 0.5,
            unit_offset=True,
            sandwich_norms=True,
            local_rope_theta=float(local["rope_theta"]),
            bidirectional_images=True,
        ),
    )


def _check_shuffle(config: SquaresConfig, name: str, value: Any) -> None:
    """Raises InbolError if the option of that name and value makes no whole squares of patches."""
    side, factor = config.vision.image_size // config.vision.patch_size, config.scale_factor
    if type(factor) is not int or factor < 1 or side % factor:
        raise InbolError(f"{name} = {value!r} does not divide the {side} patches of a side")


# model_type -> what reads the rest of config.json
_FAMILIES = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_next,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
}
