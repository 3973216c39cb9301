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
    MAX_IMAGE_TOKENS,
    Idefics3Config,
    LlavaConfig,
    ModelConfig,
    NativeVisionConfig,
    Qwen3VLConfig,
    TextConfig,
    VisionConfig,
)
from inbol_jax.models.layers import ACTIVATIONS

VISION_TOWERS = ("clip_vision_model", "siglip_vision_model")
DECODERS = ("llama", "qwen2", "qwen3", "mistral")
# Fields of our configs -> transformers' names for them, if these differ.
HF_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "merge_size": "spatial_merge_size",
    "num_positions": "num_position_embeddings",
}
# Type of rotary positions -> the numbers that it needs.
ROPE_TYPES = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
# Bounds that are larger than in any model that there is. A config beyond them would take all memory
# before its weights are compared with it.
MAX_SIZES = {
    "num_hidden_layers": 512,
    "depth": 512,
    "max_window_layers": 512,
    "image_size": 4096,
    "max_position_embeddings": 1 << 24,
} | dict.fromkeys(
    (
        *("vocab_size", "hidden_size", "intermediate_size", "head_dim", "patch_size"),
        *("num_attention_heads", "num_key_value_heads", "num_heads", "num_position_embeddings"),
        *("temporal_patch_size", "spatial_merge_size", "out_hidden_size"),
    ),
    1 << 20,
)
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
        _check_sizes(raw)
        config = _from_hf(raw, generated)
        _check(config)
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


def _check_sizes(options: Mapping[str, Any]) -> None:
    """Raises InbolError for a number beyond `MAX_SIZES`, before anything of that size is made."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            _check_sizes(value)
        elif name in MAX_SIZES and isinstance(value, int | float) and value > MAX_SIZES[name]:
            raise InbolError(f"{name} = {str(value)[:20]}: at most {MAX_SIZES[name]:,} is read")


def _check(config: ModelConfig) -> None:
    vision, text = config.vision, config.text
    for part in (vision, text):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.type in (int, "int") and (type(value) is not int or value < 1):
                raise InbolError(
                    f"{field.name} = {value!r}: a whole number of at least 1 is needed"
                )
            if field.type in (float, "float") and not 0 < value < math.inf:
                raise InbolError(f"{field.name} = {value!r}: a number greater than 0 is needed")
    for name, value in text.rope_scaling:
        if not 0 < value < math.inf:
            raise InbolError(f"text_config: {name} = {value!r}: a number above 0 is needed")
    if len(text.windows) != text.num_layers or any(w is not None and w < 1 for w in text.windows):
        raise InbolError("text_config: sliding_window and layer_types do not fit its layers")
    if not 0 < config.num_image_tokens <= MAX_IMAGE_TOKENS:
        raise InbolError(
            f"image_size {vision.image_size} and patch_size {vision.patch_size}: "
            f"{config.num_image_tokens} tokens per image, from 1 to {MAX_IMAGE_TOKENS:,} are needed"
        )
    ends = [("eos_token_id", token) for token in config.eos_token_ids] or [("eos_token_id", None)]
    for name, token in (
        ("image_token_index or image_token_id", config.image_token_id),
        ("pad_token_id", config.pad_token_id),
        *ends,
    ):
        if type(token) is not int:
            raise InbolError(f"{name} is missing")
        # An image token has no embedding of its own, so some checkpoints give it the next free id.
        if not 0 <= token < text.vocab_size + (token == config.image_token_id):
            raise InbolError(
                f"{name} = {token}: the vocabulary has {text.vocab_size} tokens, from 0"
            )
    size, heads = vision.hidden_size, vision.num_heads
    if size % heads:
        raise InbolError(f"vision_config: {heads} heads do not divide a hidden size of {size}")
    if text.num_heads % text.num_kv_heads:
        raise InbolError(
            f"text_config: {text.num_kv_heads} key-value heads do not divide {text.num_heads} heads"
        )


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
    eos = generation.get("eos_token_id", text.eos_token_id)
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
    side = config.vision.image_size // config.vision.patch_size
    if (
        type(config.scale_factor) is not int
        or config.scale_factor < 1
        or side % config.scale_factor
    ):
        raise InbolError(
            f"scale_factor = {config.scale_factor!r} does not divide the {side} patches of a side"
        )
    return config


def _qwen3_vl(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Qwen3VLConfig:
    towers, decoders = ("qwen3_vl_vision", "qwen3_vl"), ("qwen3_vl_text",)
    defaults = {"vision_config": towers[0], "text_config": decoders[0]}
    filled = {part: {"model_type": kind} | dict(raw[part]) for part, kind in defaults.items()}
    hf = _fill_in_defaults({**raw, **filled}, "Qwen3VLConfig", towers, decoders)
    text, v = hf.text_config, hf.vision_config
    _require(v.in_channels, (3,), "vision_config.in_channels")
    _require(v.hidden_act, ACTIVATIONS, "vision_config.hidden_act")
    _require(v.rope_parameters["rope_type"], ("axial",), "vision_config.rope_type")
    _require(v.out_hidden_size, (text.hidden_size,), "vision_config.out_hidden_size")
    layers = tuple(v.deepstack_visual_indexes)
    if list(layers) != sorted({*layers} & {*range(v.depth)}):
        raise InbolError(
            f"vision_config.deepstack_visual_indexes = {layers}: rising numbers of its "
            f"{v.depth} layers are needed"
        )
    if v.hidden_size % (4 * v.num_heads):
        raise InbolError(
            f"vision_config: {v.num_heads} heads of a size that is a multiple of 4 do not make "
            f"a hidden size of {v.hidden_size}"
        )
    theta = float(v.rope_parameters["rope_theta"])
    sections = tuple(text.rope_parameters.get("mrope_section", (24, 20, 20)))
    if len(sections) != 3 or any(type(n) is not int or n < 0 for n in sections):
        raise InbolError(f"text_config.mrope_section = {sections}: three whole numbers are needed")
    return Qwen3VLConfig(
        vision=_read(NativeVisionConfig, v, rope_theta=theta, deepstack_layers=layers),
        text=_text(text, tied=bool(hf.tie_word_embeddings)),
        mrope_section=sections,
        image_token_id=hf.image_token_id,
        **_shared(raw, generation, hf),
    )


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
    """Returns a VisionConfig or TextConfig; what is not given is read from transformers' config."""
    names = [field.name for field in dataclasses.fields(kind) if field.name not in given]
    return kind(**given, **{name: getattr(hf, HF_NAMES.get(name, name)) for name in names})


def _vision(v: Any) -> VisionConfig:
    _require(v.num_channels, (3,), "vision_config.num_channels")
    _require(v.hidden_act, ACTIVATIONS, "vision_config.hidden_act")
    has_head = v.model_type == "siglip_vision_model" and v.vision_use_head
    return _read(VisionConfig, v, pooling_head=has_head)


def _text(t: Any, *, tied: bool) -> TextConfig:
    _require(t.hidden_act, ACTIVATIONS, "text_config.hidden_act")
    rope = t.rope_parameters or {}
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
        qk_norm=t.model_type in ("qwen3", "qwen3_vl_text"),
        windows=tuple(window if kind == "sliding_attention" else None for kind in types),
        tie_word_embeddings=tied,
    )


# model_type -> what reads the rest of config.json
_FAMILIES = {
    "llava": _llava,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "qwen3_vl": _qwen3_vl,
}
