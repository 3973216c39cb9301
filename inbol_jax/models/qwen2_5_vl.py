"""Qwen2.5-VL: a Qwen3-VL with windows in its tower and sections of rotary frequencies in a row.

Source: Bai et al. 2025 (arXiv 2502.13923). Layout and names are those of transformers'
Qwen2_5_VLForConditionalGeneration; batches are those of `models.qwen3_vl`.
"""

from collections.abc import Mapping
from typing import Any

from inbol_jax.models.hf_config import fill_in_defaults, read_shared, require
from inbol_jax.models.native_vit import read_native_vision
from inbol_jax.models.qwen3_vl import Qwen3VL, Qwen3VLConfig
from inbol_jax.models.weights import add_rows, array, below, dense


class Qwen25VLConfig(Qwen3VLConfig):
    """Qwen2.5-VL: the same with windows in its tower, and M-RoPE in sections."""

    processor_class = "Qwen2_5_VLProcessor"


def read_config(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Qwen25VLConfig:
    """Returns what config.json and generation_config.json say, or raises InbolError."""
    decoders = ("qwen2_5_vl_text",)
    # The hub's configs have the decoder's options beside those of the whole.
    flat = {name: value for name, value in raw.items() if name != "vision_config"}
    text = raw.get("text_config", flat | {"model_type": decoders[0]})
    raw = {name: value for name, value in raw.items() if not name.startswith("rope_")}
    raw["text_config"] = text
    towers = ("qwen2_5_vl_vision", "qwen2_5_vl")
    hf = fill_in_defaults(raw, "Qwen2_5_VLConfig", towers, decoders)
    # With positions in three axes, tokens know no distance in the row.
    require(hf, {"text_config.use_sliding_window": (False, None)})
    v = hf.vision_config
    vision = read_native_vision(
        hf,
        # 112 pixels / 2 / 14 = 4 tokens per side, rounded down in transformers' order
        window=v.window_size // v.spatial_merge_size // v.patch_size,
        full_layers=tuple(v.fullatt_block_indexes),
        rms_norm=True,
        gated=True,
        patch_bias=False,
    )
    sections = hf.text_config.rope_parameters.get("mrope_section", (16, 24, 24))
    return Qwen25VLConfig(
        vision=vision,
        mrope_section=tuple(sections),
        mrope_interleaved=False,
        **read_shared(raw, generation, hf),
    )


# The rest are Qwen3-VL's.
add_rows(
    *below(
        "model.visual.blocks.{i}.mlp.",
        "vision_tower/blocks_{i}/",
        *dense("{m}_proj", "{m:gate|up}_proj", "embed mlp"),
        *dense("down_proj", "down_proj", "mlp embed"),
    ),
    array("model.visual.merger.ln_q.weight", "merger/ln_q/scale", "norm"),
    *dense("model.visual.merger.mlp.0", "merger/mlp_0", "embed mlp"),
    *dense("model.visual.merger.mlp.2", "merger/mlp_2", "mlp embed"),
)


Model = Qwen3VL
