"""The part of a checkpoint's config.json that the Flax port reads. What it does not support it refuses by name.

Values that a config leaves out are filled in by transformers' own configuration classes: checkpoints on the hub write down little else.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbol_jax.errors import InbolError
from inbol_jax.models.layers import ACTIVATIONS

VISION_TOWERS = ("clip_vision_model", "siglip_vision_model")
DECODERS = ("llama", "qwen2", "mistral")
ROPE_TYPES = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """CLIP or SigLIP vision tower. Sizes in pixels for `image_size` and `patch_size`, in features otherwise.

    Attributes:
      pooling_head: SigLIP's, which LLaVA does not read; its weights are kept all the same.
    """

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    hidden_act: str
    layer_norm_eps: float
    pooling_head: bool

    @property
    def is_clip(self) -> bool:
        """CLIP has a class token and a norm in front of its layers, SigLIP a bias in its patch embedding."""
        return self.model_type == "clip_vision_model"

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Llama, Qwen2 or Mistral decoder.

    Attributes:
      rope_scaling: (name, value) pairs of what `rope_type` needs, see `ROPE_TYPES`.
      qkv_bias, o_bias, mlp_bias: which dense layers have biases.
      windows: of each layer, how many tokens back it sees, its own included; None for all.
      max_positions: longest sequence that the checkpoint was made for.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_act: str
    rms_norm_eps: float
    rope_theta: float
    rope_type: str
    rope_scaling: tuple[tuple[str, float], ...]
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    windows: tuple[int | None, ...]
    max_positions: int
    tie_word_embeddings: bool


@dataclasses.dataclass(frozen=True)
class LlavaConfig:
    """A LLaVA: vision tower, two-layer projector, decoder.

    Attributes:
      vision_feature_layers: indices into [embeddings, layer 1, ..., layer n] of the hidden states that are concatenated and projected.
      keep_first_token: select strategy "full"; "default" leaves out the first token, which is CLIP's class token.
      image_token_id: placeholder that an image's features replace, `num_image_tokens` of them an image.
      eos_token_ids: any of them ends a response.
      stored_dtype: of the weights, as config.json says: float32, float16 or bfloat16.
    """

    vision: VisionConfig
    text: TextConfig
    vision_feature_layers: tuple[int, ...]
    keep_first_token: bool
    projector_hidden_act: str
    projector_bias: bool
    image_token_id: int
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    stored_dtype: str

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches + self.vision.is_clip - (not self.keep_first_token)


def load_config(path: Path) -> LlavaConfig:
    """Reads config.json (and generation_config.json for the token ids) of a checkpoint folder.

    Raises:
      InbolError: when the folder or a key is missing, or when the config asks for what the port does not have.
    """
    file = path / "config.json"
    if not path.is_dir() or not file.is_file():
        raise InbolError(f"{path} is not a checkpoint folder: config.json is missing")
    hf = read_json(file)
    generation = (
        read_json(path / "generation_config.json")
        if (path / "generation_config.json").is_file()
        else {}
    )
    try:
        config = _from_hf(hf, generation)
        _check(config)
        return config
    except KeyError as error:
        raise InbolError(f"{file}: key {error} is missing") from error
    except InbolError as error:
        raise InbolError(f"{file}: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      InbolError: naming the file, when it is none.
    """
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InbolError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InbolError(f"{file}: a JSON object is needed")
    return value


def _check(config: LlavaConfig) -> None:
    """Sizes are positive whole numbers, heads divide them, token ids are given, the feature layers exist."""
    for part in (config.vision, config.text):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.type in (int, "int") and (type(value) is not int or value < 1):
                raise InbolError(
                    f"{field.name} = {value!r}: a whole number of at least 1 is needed"
                )
    for name in ("image_token_id", "pad_token_id"):
        if type(getattr(config, name)) is not int:
            raise InbolError(f"{name.replace('_id', '_index')} or {name} is missing")
    if not config.eos_token_ids or any(type(token) is not int for token in config.eos_token_ids):
        raise InbolError("eos_token_id is missing")
    layers = config.vision.num_layers + 1
    for layer in config.vision_feature_layers:
        if not -layers <= layer < layers:
            raise InbolError(f"vision_feature_layer = {layer}: the tower has {layers - 1} layers")
    if config.vision.hidden_size % config.vision.num_heads:
        raise InbolError(
            f"vision_config: {config.vision.num_heads} heads do not divide a hidden size of {config.vision.hidden_size}"
        )
    if config.text.num_heads % config.text.num_kv_heads:
        raise InbolError(
            f"text_config: {config.text.num_kv_heads} key-value heads do not divide {config.text.num_heads} heads"
        )


def _require(value: Any, allowed: tuple[Any, ...], name: str) -> Any:
    if value not in allowed:
        raise InbolError(
            f"{name} = {value!r} is not supported (supported: {', '.join(map(repr, allowed))})"
        )
    return value


def _from_hf(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> LlavaConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import (
        LlavaConfig as HfConfig,  # seconds to import, and the modules do not need it
    )

    _require(raw["model_type"], ("llava",), "model_type")
    for part, known in (("vision_config", VISION_TOWERS), ("text_config", DECODERS)):
        _require(
            raw[part]["model_type"] if isinstance(raw[part], Mapping) else raw[part],
            known,
            f"{part}.model_type",
        )
    if "quantization_config" in raw:
        raise InbolError(
            "quantization_config is not supported: use the checkpoint's unquantised weights"
        )
    try:
        hf = HfConfig.from_dict(dict(raw))
    except (StrictDataclassError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise InbolError(
            f"a value is of the wrong type ({' '.join(str(error).split())})"
        ) from error
    eos = generation.get("eos_token_id", hf.text_config.eos_token_id)
    layer = hf.vision_feature_layer
    return LlavaConfig(
        vision=_vision(hf.vision_config),
        text=_text(
            hf.text_config, tied=bool(hf.tie_word_embeddings or hf.text_config.tie_word_embeddings)
        ),
        vision_feature_layers=tuple(layer) if isinstance(layer, list | tuple) else (layer,),
        keep_first_token=_require(
            hf.vision_feature_select_strategy, ("default", "full"), "vision_feature_select_strategy"
        )
        == "full",
        projector_hidden_act=_require(
            hf.projector_hidden_act, tuple(ACTIVATIONS), "projector_hidden_act"
        ),
        projector_bias=bool(hf.multimodal_projector_bias),
        image_token_id=hf.image_token_index,
        pad_token_id=generation.get("pad_token_id", hf.text_config.pad_token_id) or 0,
        eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
        stored_dtype=_require(
            str(raw.get("dtype", raw.get("torch_dtype")) or "float32"),
            ("float32", "float16", "bfloat16"),
            "dtype",
        ),
    )


def _vision(v: Any) -> VisionConfig:
    _require(v.num_channels, (3,), "vision_config.num_channels")
    return VisionConfig(
        model_type=v.model_type,
        hidden_size=v.hidden_size,
        intermediate_size=v.intermediate_size,
        num_layers=v.num_hidden_layers,
        num_heads=v.num_attention_heads,
        image_size=v.image_size,
        patch_size=v.patch_size,
        hidden_act=_require(v.hidden_act, tuple(ACTIVATIONS), "vision_config.hidden_act"),
        layer_norm_eps=v.layer_norm_eps,
        pooling_head=v.model_type == "siglip_vision_model" and v.vision_use_head,
    )


def _text(t: Any, *, tied: bool) -> TextConfig:
    rope = t.rope_parameters or {}
    kind = _require(rope.get("rope_type", "default"), tuple(ROPE_TYPES), "text_config.rope_type")
    _require(rope.get("partial_rotary_factor", 1.0), (1.0,), "text_config.partial_rotary_factor")
    for name in ROPE_TYPES[kind]:
        if not isinstance(rope.get(name), int | float):
            raise InbolError(f"text_config: rope_type {kind!r} needs a number {name!r}")
    window = getattr(t, "sliding_window", None)
    # Qwen2 says of each layer whether it has the window; Mistral gives it to all.
    windowed = [
        w == "sliding_attention"
        for w in getattr(t, "layer_types", None) or ["sliding_attention"] * t.num_hidden_layers
    ]
    bias = bool(getattr(t, "attention_bias", False))
    return TextConfig(
        model_type=t.model_type,
        vocab_size=t.vocab_size,
        hidden_size=t.hidden_size,
        intermediate_size=t.intermediate_size,
        num_layers=t.num_hidden_layers,
        num_heads=t.num_attention_heads,
        num_kv_heads=t.num_key_value_heads or t.num_attention_heads,
        head_dim=getattr(t, "head_dim", None) or t.hidden_size // t.num_attention_heads,
        hidden_act=_require(t.hidden_act, tuple(ACTIVATIONS), "text_config.hidden_act"),
        rms_norm_eps=t.rms_norm_eps,
        rope_theta=float(rope.get("rope_theta", 10000.0)),
        rope_type=kind,
        rope_scaling=tuple((name, float(rope[name])) for name in ROPE_TYPES[kind]),
        qkv_bias=bias or t.model_type == "qwen2",
        o_bias=bias,
        mlp_bias=bool(getattr(t, "mlp_bias", False)),
        windows=tuple(window if w else None for w in windowed),
        max_positions=t.max_position_embeddings,
        tie_word_embeddings=tied,
    )
