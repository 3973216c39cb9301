"""Parts of a config that families share: tower, decoder, tokens. Read from transformers' own
configuration classes, which fill in what a config.json leaves out.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from inbol_jax.errors import InbolError
from inbol_jax.models.architecture_parts import TextConfig, VisionConfig
from inbol_jax.models.layers import ACTIVATIONS

VISION_TOWERS = ("clip_vision_model", "siglip_vision_model")
DECODERS = ("llama", "qwen2", "qwen3", "mistral")
# Fields of our configs -> transformers' names for them, if these differ.
HF_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "merge_size": "spatial_merge_size",
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


def require(value: Any, allowed: Collection[Any], name: str) -> None:
    """Raises InbolError, which names the option, for a value that is not allowed."""
    if value not in allowed:
        supported = ", ".join(map(repr, allowed))
        raise InbolError(f"{name} = {value!r} is not supported (supported: {supported})")


def read_shared(
    raw: Mapping[str, Any], generation: Mapping[str, Any], hf: Any, **text: Any
) -> dict[str, Any]:
    """Returns the fields that all families read alike: those of `ModelConfig` but `vision`.

    `text` are arguments of `read_text`.
    """
    decoder = hf.text_config
    eos = generation.get("eos_token_id", raw.get("eos_token_id", decoder.eos_token_id))
    stored_dtype = str(raw.get("dtype", raw.get("torch_dtype")) or "float32")
    require(stored_dtype, ("float32", "float16", "bfloat16"), "dtype")
    return {
        "text": read_text(decoder, **{"tied": bool(hf.tie_word_embeddings)} | text),
        "image_token_id": hf.image_token_id,
        "pad_token_id": generation.get("pad_token_id", decoder.pad_token_id) or 0,
        "eos_token_ids": tuple(eos) if isinstance(eos, list) else (eos,),
        "stored_dtype": stored_dtype,
        "sequence_bias": read_sequence_bias(generation, decoder.vocab_size),
    }


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
            # A sequence that stands twice keeps its last value, as in transformers.
            bias[tuple(sequence)] = value
        if not bias:
            raise ValueError("an empty list")
    except (TypeError, ValueError) as error:
        raise InbolError(
            f"{GENERATION}: sequence_bias ({error}): a list of [token ids, bias] is needed, of "
            f"one or two of the model's {vocab_size} tokens, each bias with a decimal point"
        ) from error
    return tuple(bias.items())


def fill_in_defaults(
    raw: Mapping[str, Any],
    family: str,
    towers: Sequence[str],
    decoders: Sequence[str] = DECODERS,
    *,
    named: bool = True,
) -> Any:
    """Returns transformers' config object of that class, which has every option.

    If parts need not be `named`, those that do not say of what type they are are the first ones.
    """
    import transformers

    parts = {"vision_config": towers, "text_config": decoders}
    if not named:
        raw = dict(raw)
        raw |= {part: {"model_type": types[0]} | dict(raw[part]) for part, types in parts.items()}
    for part, supported in parts.items():
        given = raw[part] if isinstance(raw[part], Mapping) else {"model_type": raw[part]}
        require(given["model_type"], supported, f"{part}.model_type")
    if "quantization_config" in raw:
        raise InbolError(
            "quantization_config is not supported: use the checkpoint's unquantised weights"
        )
    return getattr(transformers, family).from_dict(dict(raw))


def read(kind: Callable[..., Any], hf: Any, **given: Any) -> Any:
    """Returns a VisionConfig or TextConfig; what is neither given nor has a default is read from
    transformers' config.
    """
    missing = dataclasses.MISSING
    # Ours without a default, that nobody gave: read under transformers' name of the same thing.
    names = [
        f.name for f in dataclasses.fields(kind) if f.name not in given and f.default is missing
    ]
    return kind(**given, **{name: getattr(hf, HF_NAMES.get(name, name)) for name in names})


def read_vision(v: Any, **given: Any) -> VisionConfig:
    """Returns the tower of transformers' config; InbolError names what is not supported."""
    require(v.num_channels, (3,), "vision_config.num_channels")
    require(v.hidden_act, ACTIVATIONS, "vision_config.hidden_act")
    # Its weights are in the file, so they must have a place, although no feature comes of them.
    has_head = v.model_type == "siglip_vision_model" and v.vision_use_head
    return read(VisionConfig, v, pooling_head=has_head, **given)


def read_text(
    t: Any, *, tied: bool, rope: Mapping[str, Any] | None = None, **given: Any
) -> TextConfig:
    """`rope` is the config of rotary positions, if it is not all of `rope_parameters`; what is not
    given besides is read as most decoders have it."""
    # Decoders that have no option for it: Qwen3's always normalise queries and keys.
    given = {
        "hidden_act": getattr(t, "hidden_act", None),
        "qk_norm": t.model_type in ("qwen3", "qwen3_vl_text"),
    } | given
    require(given["hidden_act"], ACTIVATIONS, "text_config.hidden_act")
    rope = rope or t.rope_parameters or {}
    rope_type = rope.get("rope_type", "default")
    require(rope_type, ROPE_TYPES, "text_config.rope_type")
    require(rope.get("partial_rotary_factor", 1.0), (1.0,), "text_config.partial_rotary_factor")
    for name in ROPE_TYPES[rope_type]:
        if not isinstance(rope.get(name), int | float):
            raise InbolError(f"text_config: rope_type {rope_type!r} needs a number {name!r}")
    window = getattr(t, "sliding_window", None)
    # Qwen2 and Qwen3 list which layers have the window; Mistral gives it to all.
    types = getattr(t, "layer_types", None) or ["sliding_attention"] * t.num_hidden_layers
    bias = bool(getattr(t, "attention_bias", False))
    return read(
        TextConfig,
        t,
        num_kv_heads=t.num_key_value_heads or t.num_attention_heads,
        head_dim=getattr(t, "head_dim", None) or t.hidden_size // t.num_attention_heads,
        rope_theta=float(rope.get("rope_theta", 10000.0)),
        rope_type=rope_type,
        rope_scaling=tuple((name, float(rope[name])) for name in ROPE_TYPES[rope_type]),
        qkv_bias=bias or t.model_type in ("qwen2", "qwen2_5_vl_text"),
        o_bias=bias,
        mlp_bias=bool(getattr(t, "mlp_bias", False)),
        windows=tuple(window if kind == "sliding_attention" else None for kind in types),
        tie_word_embeddings=tied,
        **given,
    )
