"""The part of a checkpoint's config.json that the Flax port reads. What it does not support it refuses by name."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbol_jax.errors import InbolError


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """CLIP vision tower. Sizes in pixels for `image_size` and `patch_size`, in features otherwise."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    hidden_act: str
    layer_norm_eps: float

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Llama decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool


@dataclasses.dataclass(frozen=True)
class LlavaConfig:
    """A LLaVA: vision tower, two-layer projector, decoder.

    Attributes:
      vision_feature_layer: index into [embeddings, layer 1, ..., layer n] of the hidden state that is projected; -1 is the last.
      image_token_id: placeholder that an image's features replace, `num_image_tokens` of them an image.
      eos_token_ids: any of them ends a response.
    """

    vision: VisionConfig
    text: TextConfig
    vision_feature_layer: int
    projector_hidden_act: str
    image_token_id: int
    pad_token_id: int
    eos_token_ids: tuple[int, ...]

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches  # select strategy "default": without the class token


def load_config(path: Path) -> LlavaConfig:
    """Reads config.json (and generation_config.json for the token ids) of a checkpoint folder.

    Raises:
      InbolError: when the folder or a key is missing, or when the config asks for what the port does not have.
    """
    file = path / "config.json"
    if not path.is_dir() or not file.is_file():
        raise InbolError(f"{path} is not a checkpoint folder: config.json is missing")
    hf = _read_json(file)
    generation = _read_json(path / "generation_config.json") if (path / "generation_config.json").is_file() else {}
    if not isinstance(hf, dict) or not isinstance(generation, dict):
        raise InbolError(f"{file} or generation_config.json beside it: a JSON object is needed")
    try:
        config = _from_hf(hf, generation)
        _check(config)
        return config
    except KeyError as error:
        raise InbolError(f"{file}: key {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InbolError(f"{file}: a value is of the wrong type ({error})") from error
    except InbolError as error:
        raise InbolError(f"{file}: {error}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InbolError(f"{file}: not readable as JSON ({error})") from error


def _check(config: LlavaConfig) -> None:
    """Sizes are positive whole numbers, token ids are given, the feature layer exists."""
    for part in (config.vision, config.text):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.type in (int, "int") and (type(value) is not int or value < 1):
                raise InbolError(f"{field.name} = {value!r}: a whole number of at least 1 is needed")
    for name in ("image_token_id", "pad_token_id"):
        if type(getattr(config, name)) is not int:
            raise InbolError(f"{name.replace('_id', '_index')} or {name} is missing")
    if not config.eos_token_ids or any(type(token) is not int for token in config.eos_token_ids):
        raise InbolError("eos_token_id is missing")
    layers = config.vision.num_layers + 1
    if not -layers <= config.vision_feature_layer < layers:
        raise InbolError(f"vision_feature_layer = {config.vision_feature_layer}: the tower has {layers - 1} layers")


# What transformers fills in where a config leaves a value out.
_VISION_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                    "image_size": 224, "patch_size": 32}  # fmt: skip
_TEXT_DEFAULTS = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                  "num_attention_heads": 32, "eos_token_id": 2}  # fmt: skip


def _from_hf(hf: Mapping[str, Any], generation: Mapping[str, Any]) -> LlavaConfig:
    def require(value: Any, allowed: tuple[Any, ...], name: str) -> Any:
        if value not in allowed:
            raise InbolError(f"{name} = {value!r} is not supported (supported: {', '.join(map(repr, allowed))})")
        return value

    require(hf["model_type"], ("llava",), "model_type")
    v, t = _VISION_DEFAULTS | dict(hf["vision_config"]), _TEXT_DEFAULTS | dict(hf["text_config"])
    require(v["model_type"], ("clip_vision_model",), "vision_config.model_type")
    require(t["model_type"], ("llama",), "text_config.model_type")
    require(hf.get("vision_feature_select_strategy", "default"), ("default",), "vision_feature_select_strategy")
    require(hf.get("multimodal_projector_bias", True), (True,), "multimodal_projector_bias")
    for name in ("attention_bias", "mlp_bias"):
        require(t.get(name, False), (False,), f"text_config.{name}")
    rope = t.get("rope_parameters") or {"rope_theta": t.get("rope_theta", 10000.0), **(t.get("rope_scaling") or {})}
    require(rope.get("rope_type", rope.get("type", "default")), ("default",), "text_config.rope_type")
    require(t.get("hidden_act", "silu"), ("silu",), "text_config.hidden_act")
    require(bool(hf.get("tie_word_embeddings", False)), (bool(t.get("tie_word_embeddings", False)),), "tie_word_embeddings")
    layer = hf.get("vision_feature_layer", -2)
    if not isinstance(layer, int):
        raise InbolError(f"vision_feature_layer = {layer!r} is not supported (supported: one index)")
    eos = generation.get("eos_token_id", t.get("eos_token_id"))
    return LlavaConfig(
        vision=VisionConfig(
            hidden_size=v["hidden_size"],
            intermediate_size=v["intermediate_size"],
            num_layers=v["num_hidden_layers"],
            num_heads=v["num_attention_heads"],
            image_size=v["image_size"],
            patch_size=v["patch_size"],
            hidden_act=require(v.get("hidden_act", "quick_gelu"), ("quick_gelu", "gelu"), "vision_config.hidden_act"),
            layer_norm_eps=v.get("layer_norm_eps", 1e-5),
        ),
        text=TextConfig(
            vocab_size=t["vocab_size"],
            hidden_size=t["hidden_size"],
            intermediate_size=t["intermediate_size"],
            num_layers=t["num_hidden_layers"],
            num_heads=t["num_attention_heads"],
            num_kv_heads=t.get("num_key_value_heads") or t["num_attention_heads"],
            head_dim=t.get("head_dim") or t["hidden_size"] // t["num_attention_heads"],
            rms_norm_eps=t.get("rms_norm_eps", 1e-6),
            rope_theta=float(rope.get("rope_theta", 10000.0)),
            tie_word_embeddings=bool(t.get("tie_word_embeddings", False)),
        ),
        vision_feature_layer=layer,
        projector_hidden_act=require(hf.get("projector_hidden_act", "gelu"), ("gelu",), "projector_hidden_act"),
        image_token_id=hf.get("image_token_index", hf.get("image_token_id", 32000)),
        pad_token_id=generation.get("pad_token_id", t.get("pad_token_id")) or 0,
        eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
    )
