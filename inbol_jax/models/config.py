"""The architecture: the part of a checkpoint's config.json that the Flax port reads.

Unsupported options are refused by name. transformers' own configuration classes fill in what a
config leaves out: checkpoints on the hub mostly write down what differs from the defaults.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import parse_json
from inbol_jax.errors import InbolError
from inbol_jax.models.architecture import (
    Gemma3Config,
    Idefics3Config,
    InternVLConfig,
    LlavaConfig,
    ModelConfig,
    TextConfig,
    VisionConfig,
)
from inbol_jax.models.bounds import check, check_sizes
from inbol_jax.models.layers import ACTIVATIONS

VISION_TOWERS = ("clip_vision_model", "siglip_vision_model")
DECODERS = ("llama", "qwen2", "qwen3", "mistral")
# Fields of our configs -> transformers' names for them, if these differ.
HF_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
}
# Type of rotary positions -> the numbers that it needs.
ROPE_TYPES = {
    "default": (),
    # Changes nothing up to max_positions, and longer texts are refused.
    "dynamic": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
MAX_BIAS = 1e30  # of a logit, far within float32
GENERATION = "generation_config.json"


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
        config = _from_hf(raw, generated)
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


def _require(value: Any, allowed: Collection[Any], name: str) -> None:
    if value not in allowed:
        supported = ", ".join(map(repr, allowed))
        raise InbolError(f"{name} = {value!r} is not supported (supported: {supported})")


def _from_hf(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    _require(raw["model_type"], _FAMILIES, "model_type")
    return _FAMILIES[raw["model_type"]](raw, generation)


def _shared(raw: Mapping[str, Any], generation: Mapping[str, Any], hf: Any) -> dict[str, Any]:
    """Returns the fields that all families read alike, but for `vision` and `text`."""
    text = hf.text_config
    eos = generation.get("eos_token_id", raw.get("eos_token_id", text.eos_token_id))
    stored_dtype = str(raw.get("dtype", raw.get("torch_dtype")) or "float32")
    _require(stored_dtype, ("float32", "float16", "bfloat16"), "dtype")
    return {
        "pad_token_id": generation.get("pad_token_id", text.pad_token_id) or 0,
        "eos_token_ids": tuple(eos) if isinstance(eos, list) else (eos,),
        "stored_dtype": stored_dtype,
        "sequence_bias": read_sequence_bias(generation, text.vocab_size),
    }


def _llava(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> LlavaConfig:
    hf = _fill_in_defaults(raw, "LlavaConfig", VISION_TOWERS)
    text, layer = hf.text_config, hf.vision_feature_layer
    strategy = hf.vision_feature_select_strategy
    _require(strategy, ("default", "full"), "vision_feature_select_strategy")
    _require(hf.projector_hidden_act, ACTIVATIONS, "projector_hidden_act")
    layers = tuple(layer) if isinstance(layer, list | tuple) else (layer,)
    depth = hf.vision_config.num_hidden_layers
    for layer in layers:
        if layer not in range(-depth - 1, depth + 1):
            raise InbolError(f"vision_feature_layer = {layer}: the tower has {depth} layers")
    return LlavaConfig(
        vision=_vision(hf.vision_config),
        text=_text(text, tied=bool(hf.tie_word_embeddings or text.tie_word_embeddings)),
        vision_feature_layers=layers,
        keep_first_token=strategy == "full",
        projector_hidden_act=hf.projector_hidden_act,
        projector_bias=bool(hf.multimodal_projector_bias),
        image_token_id=hf.image_token_index,
        **_shared(raw, generation, hf),
    )


def _idefics3(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Idefics3Config:
    family = {"idefics3": "Idefics3Config", "smolvlm": "SmolVLMConfig"}[raw["model_type"]]
    # transformers takes any of these, and none, as the same tower
    towers = ("idefics3_vision", "smolvlm_vision", "idefics3", "smolvlm")
    defaults = {"vision_config": towers[0], "text_config": "llama"}
    filled = {part: {"model_type": kind} | dict(raw[part]) for part, kind in defaults.items()}
    hf = _fill_in_defaults({**raw, **filled}, family, towers)
    config = Idefics3Config(
        vision=_vision(hf.vision_config),
        text=_text(hf.text_config, tied=bool(hf.tie_word_embeddings)),
        scale_factor=hf.scale_factor,
        image_token_id=hf.image_token_id,
        **_shared(raw, generation, hf),
    )
    _check_shuffle(config, "scale_factor", config.scale_factor)
    return config


def _internvl(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> InternVLConfig:
    hf = _fill_in_defaults(raw, "InternVLConfig", ("internvl_vision",))
    vision = hf.vision_config
    _require(hf.vision_feature_layer, (-1,), "vision_feature_layer")
    _require(hf.vision_feature_select_strategy, ("default",), "vision_feature_select_strategy")
    _require(hf.downsample_ratio, (1.0, 0.5, 0.25), "downsample_ratio")
    _require(hf.projector_hidden_act, ACTIVATIONS, "projector_hidden_act")
    _require(vision.norm_type, ("layer_norm", "rms_norm"), "vision_config.norm_type")
    for option, only in (
        ("use_absolute_position_embeddings", True),
        ("use_mask_token", False),
        ("use_mean_pooling", True),
    ):
        _require(getattr(vision, option), (only,), f"vision_config.{option}")
    sides = {}
    for name in ("image_size", "patch_size"):
        sides[name], *others = getattr(vision, name)
        if others != [sides[name]]:
            raise InbolError(
                f"vision_config.{name} = {[sides[name], *others]} is not supported: squares are"
            )
    config = InternVLConfig(
        vision=_vision(
            vision,
            **sides,
            qkv_bias=bool(vision.attention_bias),
            qk_norm=bool(vision.use_qk_norm),
            rms_norm=vision.norm_type == "rms_norm",
            layer_scale=float(vision.layer_scale_init_value),
        ),
        text=_text(hf.text_config, tied=bool(hf.tie_word_embeddings)),
        scale_factor=int(1 / hf.downsample_ratio),
        projector_hidden_act=hf.projector_hidden_act,
        image_token_id=hf.image_token_id,
        **_shared(raw, generation, hf),
    )
    _check_shuffle(config, "downsample_ratio", hf.downsample_ratio)
    return config


def _gemma3(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Gemma3Config:
    hf = _fill_in_defaults(raw, "Gemma3Config", ("siglip_vision_model",), ("gemma3_text",))
    text, vision, tokens = hf.text_config, hf.vision_config, hf.mm_tokens_per_image
    for option, only in (
        ("use_bidirectional_attention", (False, None)),
        ("final_logit_softcapping", (None,)),
        ("attn_logit_softcapping", (None,)),
    ):
        _require(getattr(text, option), only, f"text_config.{option}")
    side = vision.image_size // vision.patch_size
    if type(tokens) is not int or tokens < 1 or side % (across := math.isqrt(tokens)):
        raise InbolError(
            f"mm_tokens_per_image = {tokens!r} does not divide {side} x {side} patches"
        )
    if across**2 != tokens:
        raise InbolError(f"mm_tokens_per_image = {tokens!r} is no square")
    local = text.rope_parameters["sliding_attention"]
    _require(local["rope_type"], ("default",), "text_config.rope_type of sliding_attention")
    return Gemma3Config(
        vision=_vision(vision),
        text=_text(
            text,
            tied=bool(hf.tie_word_embeddings),
            rope=text.rope_parameters["full_attention"],
            hidden_act=text.hidden_activation,
            qk_norm=True,
            embedding_scale=text.hidden_size**0.5,
            query_scale=(text.head_dim / text.query_pre_attn_scalar) ** 0.5,
            unit_offset=True,
            sandwich_norms=True,
            local_rope_theta=float(local["rope_theta"]),
            bidirectional_images=True,
        ),
        pooling=side // across,
        image_token_id=hf.image_token_index,
        **_shared(raw, generation, hf),
    )


def _check_shuffle(config: Idefics3Config | InternVLConfig, name: str, value: Any) -> None:
    """Raises InbolError if the option of that name and value makes no whole squares of patches."""
    side, factor = config.vision.image_size // config.vision.patch_size, config.scale_factor
    if type(factor) is not int or factor < 1 or side % factor:
        raise InbolError(f"{name} = {value!r} does not divide the {side} patches of a side")


def read_sequence_bias(
    generation: Mapping[str, Any], vocab_size: int
) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Reads `sequence_bias` of a generation_config.json, as transformers writes and checks it.

    Raises:
      InbolError: if it is not a list of [token ids, number with a decimal point], with one token
        or two in a row. transformers also knows biases of longer sequences.
    """
    entries = generation.get("sequence_bias")
    if entries is None:
        return ()
    bias = {}
    try:
        for sequence, value in entries:
            tokens = type(sequence) is list and len(sequence) in (1, 2)
            tokens = tokens and all(type(t) is int and 0 <= t < vocab_size for t in sequence)
            if not tokens or type(value) is not float or abs(value) > MAX_BIAS:
                raise ValueError(f"[{sequence!r}, {value!r}]")
            bias[tuple(sequence)] = value
        if not bias:
            raise ValueError("an empty list")
    except (TypeError, ValueError) as error:
        raise InbolError(
            f"{GENERATION}: sequence_bias ({error}): a list of [token ids, bias] is needed, of "
            f"one or two of the model's {vocab_size} tokens, each bias with a decimal point"
        ) from error
    return tuple(bias.items())


def _fill_in_defaults(
    raw: Mapping[str, Any],
    family: str,
    towers: Collection[str],
    decoders: Collection[str] = DECODERS,
) -> Any:
    """Returns transformers' config object of that class, which has every option."""
    import transformers

    for part, supported in (("vision_config", towers), ("text_config", decoders)):
        given = raw[part] if isinstance(raw[part], Mapping) else {"model_type": raw[part]}
        _require(given["model_type"], supported, f"{part}.model_type")
    if "quantization_config" in raw:
        raise InbolError(
            "quantization_config is not supported: use the checkpoint's unquantised weights"
        )
    return getattr(transformers, family).from_dict(dict(raw))


def _read(kind: Callable[..., Any], hf: Any, **given: Any) -> Any:
    """Returns a VisionConfig or TextConfig; what is neither given nor has a default is read from
    transformers' config.
    """
    missing = dataclasses.MISSING
    names = [
        f.name for f in dataclasses.fields(kind) if f.name not in given and f.default is missing
    ]
    return kind(**given, **{name: getattr(hf, HF_NAMES.get(name, name)) for name in names})


def _vision(v: Any, **given: Any) -> VisionConfig:

    _require(v.num_channels, (3,), "vision_config.num_channels")
    _require(v.hidden_act, ACTIVATIONS, "vision_config.hidden_act")
    has_head = v.model_type == "siglip_vision_model" and v.vision_use_head
    return _read(VisionConfig, v, pooling_head=has_head, **given)


def _text(t: Any, *, tied: bool, rope: Mapping[str, Any] | None = None, **given: Any) -> TextConfig:
    """`rope` is the config of rotary positions, if it is not all of `rope_parameters`; what is not
    given besides is read as most decoders have it."""
    given = {
        "hidden_act": getattr(t, "hidden_act", None),
        "qk_norm": t.model_type == "qwen3",
    } | given
    _require(given["hidden_act"], ACTIVATIONS, "text_config.hidden_act")
    rope = rope or t.rope_parameters or {}
    rope_type = rope.get("rope_type", "default")
    _require(rope_type, ROPE_TYPES, "text_config.rope_type")
    _require(rope.get("partial_rotary_factor", 1.0), (1.0,), "text_config.partial_rotary_factor")
    for name in ROPE_TYPES[rope_type]:
        if not isinstance(rope.get(name), int | float):
            raise InbolError(f"text_config: rope_type {rope_type!r} needs a number {name!r}")
    window = getattr(t, "sliding_window", None)
    # Qwen2 and Qwen3 list which layers have the window; Mistral gives it to all.
    types = getattr(t, "layer_types", None) or ["sliding_attention"] * t.num_hidden_layers
    bias = bool(getattr(t, "attention_bias", False))
    return _read(
        TextConfig,
        t,
        num_kv_heads=t.num_key_value_heads or t.num_attention_heads,
        head_dim=getattr(t, "head_dim", None) or t.hidden_size // t.num_attention_heads,
        rope_theta=float(rope.get("rope_theta", 10000.0)),
        rope_type=rope_type,
        rope_scaling=tuple((name, float(rope[name])) for name in ROPE_TYPES[rope_type]),
        qkv_bias=bias or t.model_type == "qwen2",
        o_bias=bias,
        mlp_bias=bool(getattr(t, "mlp_bias", False)),
        windows=tuple(window if kind == "sliding_attention" else None for kind in types),
        tie_word_embeddings=tied,
        **given,
    )


# model_type -> what reads the rest of config.json
_FAMILIES = {
    "llava": _llava,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "internvl": _internvl,
    "gemma3": _gemma3,
}
