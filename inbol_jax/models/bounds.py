"""What the numbers of a config may be: checked before anything of their size is made."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from inbol_jax.errors import InbolError
from inbol_jax.models.architecture import MAX_IMAGE_TOKENS, ModelConfig

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


def check_sizes(options: Mapping[str, Any]) -> None:
    """Raises InbolError for a number beyond `MAX_SIZES`, before anything of that size is made."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            check_sizes(value)
        elif name in MAX_SIZES and isinstance(value, int | float) and value > MAX_SIZES[name]:
            raise InbolError(f"{name} = {str(value)[:20]}: at most {MAX_SIZES[name]:,} is read")


def check(config: ModelConfig) -> None:
    """Raises InbolError for a value of a config that makes no model, or tokens that it lacks."""
    vision, text = config.vision, config.text
    for part in (vision, text):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            # An option that may be left out.
            if value is None and field.type == (int | None):
                continue
            if field.type in (int, int | None) and (type(value) is not int or value < 1):
                raise InbolError(
                    f"{field.name} = {value!r}: a whole number of at least 1 is needed"
                )
            if field.type is float and not 0 < value < math.inf:
                raise InbolError(f"{field.name} = {value!r}: a number greater than 0 is needed")
    # 0 or infinity would make frequencies that are not finite, or all of them 0.
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
