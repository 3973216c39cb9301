"""What all families read alike of a checkpoint's config.json, by transformers' own configuration
classes. These fill in what a config leaves out: those on the hub write down what differs from the
defaults.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from inbol_jax.artifacts import read_json
from inbol_jax.errors import InbolError
from inbol_jax.models.config import TextConfig, VisionConfig
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
# Of a bias of generation: one token or two in a row, and what their logit gets, far within float32.
_Tokens = Annotated[
    list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1, max_length=2)
]
_Bias = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
GENERATION = "generation_config.json"


def read_generation(folder: Path) -> dict[str, Any]:
    """Reads generation_config.json; empty if there is none. Raises InbolError if it is no JSON."""
    file = folder / GENERATION
    return read_json(file) if file.is_file() else {}


def require(hf: Any, allowed: Mapping[str, Collection[Any]]) -> None:
    """Raises InbolError, which names the option, for a value that the port does not support.

    Args:
      hf: transformers' config object.
      allowed: the supported values of each option, whose name may lead into a part of the config,
        as "text_config.hidden_act" does.
    """
    for name, supported in allowed.items():
        value = functools.reduce(getattr, name.split("."), hf)
        if value not in supported:
            options = ", ".join(map(repr, supported))
            raise InbolError(f"{name} = {value!r} is not supported (supported: {options})")


def fill_in_defaults(
    raw: Mapping[str, Any],
    kind: str,
    towers: Collection[str] = VISION_TOWERS,
    decoders: Collection[str] = DECODERS,
) -> Any:
    """Returns transformers' config object of that class, which has every option.

    Raises:
      InbolError: if its parts are none of these types, or if its weights are quantised.
    """
    import transformers  # seconds to import, and the Flax modules do not need it

    if "quantization_config" in raw:
        raise InbolError(
            "quantization_config is not supported: use the checkpoint's unquantised weights"
        )
    hf = getattr(transformers, kind).from_dict(dict(raw))
    require(hf, {"vision_config.model_type": towers, "text_config.model_type": decoders})
    return hf


def read_shared(
    raw: Mapping[str, Any], generation: Mapping[str, Any], hf: Any, **text: Any
) -> dict[str, Any]:
    """Returns the fields that all families read alike: those of `ModelConfig` but `vision`.

    `text` are arguments of `read_text`.
    """
    decoder = hf.text_config
    eos = generation.get("eos_token_id", raw.get("eos_token_id", decoder.eos_token_id))
    stored_dtype = str(raw.get("dtype", raw.get("torch_dtype")) or "float32")
    if stored_dtype not in ("float32", "float16", "bfloat16"):
        raise InbolError(f"dtype = {stored_dtype!r} is not supported")
    pad = generation.get("pad_token_id", decoder.pad_token_id) or 0
    ends = tuple(eos) if isinstance(eos, list) else (eos,)
    # None can be guessed, and none may come up later as an error of JAX.
    known = {"image_token_id": (hf.image_token_id,), "eos_token_id": ends, "pad_token_id": (pad,)}
    for name, tokens in known.items():
        if not all(isinstance(token, int) for token in tokens):
            raise InbolError(f"{name} is missing, or no number")
    return {
        "model_type": raw["model_type"],
        "text": read_text(decoder, **{"tied": bool(hf.tie_word_embeddings)} | text),
        "image_token_id": hf.image_token_id,
        "pad_token_id": pad,
        "eos_token_ids": ends,
        "stored_dtype": stored_dtype,
        **read_refusing(generation, decoder.vocab_size),
    }


class _Rule(msgspec.Struct):
    logprob: float
    refusal: str


class _Refusing(msgspec.Struct):
    sequence_bias: list[tuple[_Tokens, _Bias]] | None = None
    refuse_below: _Rule | None = None


def read_refusing(generation: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Returns `sequence_bias` and `refuse_below` of `ModelConfig`, as `inbol calibrate` keeps them.

    Raises:
      InbolError: if either is not what it should be, such as a bias of longer sequences than two
        tokens, which transformers also knows.
    """
    try:
        read = msgspec.convert(generation, _Refusing)
    except msgspec.ValidationError as error:
        raise InbolError(f"{GENERATION}: {error}") from error
    # A sequence that stands twice keeps its last value, as in transformers.
    bias = {tuple(tokens): value for tokens, value in read.sequence_bias or ()}
    if largest := [token for tokens in bias for token in tokens if token >= vocab_size]:
        raise InbolError(
            f"{GENERATION}: sequence_bias: token {largest[0]}, the model has {vocab_size}"
        )
    rule = read.refuse_below
    return {
        "sequence_bias": tuple(bias.items()),
        "refuse_below": None if rule is None else (rule.logprob, rule.refusal),
    }


def read_fields(kind: Callable[..., Any], hf: Any, **given: Any) -> Any:
    """Returns a VisionConfig or TextConfig; what is neither given nor has a default is read from
    transformers' config.
    """
    missing = dataclasses.MISSING
    # Ours without a default, that nobody gave: read under transformers' name of the same thing.
    names = [
        f.name for f in dataclasses.fields(kind) if f.name not in given and f.default is missing
    ]
    return kind(**given, **{name: getattr(hf, HF_NAMES.get(name, name)) for name in names})


def read_vision(hf: Any, **given: Any) -> VisionConfig:
    """Returns the tower of a family's config; InbolError names what is not supported."""
    require(hf, {"vision_config.hidden_act": ACTIVATIONS})
    return read_fields(VisionConfig, hf.vision_config, **given)


def read_text(
    t: Any, *, tied: bool, rope: Mapping[str, Any] | None = None, **given: Any
) -> TextConfig:
    """Returns the decoder of transformers' `text_config`, or raises InbolError.

    `rope` is the config of rotary positions, if it is not all of `rope_parameters`; what is not
    given besides is read as most decoders have it.
    """
    # Decoders that have no option for it: Qwen3's always normalise queries and keys.
    given = {
        "hidden_act": getattr(t, "hidden_act", None),
        "qk_norm": t.model_type in ("qwen3", "qwen3_vl_text"),
    } | given
    rope = rope or t.rope_parameters or {}
    rope_type = rope.get("rope_type", "default")
    for name, value, supported in (
        ("hidden_act", given["hidden_act"], ACTIVATIONS),
        ("rope_type", rope_type, ROPE_TYPES),
        ("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), (1.0,)),
    ):
        if value not in supported:
            raise InbolError(f"text_config.{name} = {value!r} is not supported")
    window = getattr(t, "sliding_window", None)
    # Qwen2 and Qwen3 list which layers have the window; Mistral gives it to all.
    types = getattr(t, "layer_types", None) or ["sliding_attention"] * t.num_hidden_layers
    bias = bool(getattr(t, "attention_bias", False))
    return read_fields(
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
