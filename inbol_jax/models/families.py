"""The module of each family, by the class of its config. What else a family is, see
docs/adding-an-architecture.md.
"""

from typing import Any

import jax.numpy as jnp

from inbol_jax.models.architecture import (
    Gemma3Config,
    Idefics3Config,
    InternVLConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    ModelConfig,
    Qwen3VLConfig,
)
from inbol_jax.models.gemma3 import Gemma3
from inbol_jax.models.idefics3 import Idefics3
from inbol_jax.models.internvl import InternVL
from inbol_jax.models.llava import Llava
from inbol_jax.models.llava_next import LlavaNext
from inbol_jax.models.lora import LoraConfig
from inbol_jax.models.qwen3_vl import Qwen3VL
from inbol_jax.models.vlm import VisionLanguageModel

_MODULES: dict[type[ModelConfig], type[VisionLanguageModel]] = {
    LlavaConfig: Llava,
    LlavaNextConfig: LlavaNext,
    LlavaOnevisionConfig: LlavaNext,
    Idefics3Config: Idefics3,
    InternVLConfig: InternVL,
    Gemma3Config: Gemma3,
    Qwen3VLConfig: Qwen3VL,
}


def make_model(
    config: ModelConfig,
    dtype: Any = jnp.float32,
    lora: LoraConfig | None = None,
    remat: str = "none",
    attention: str = "xla",
) -> VisionLanguageModel:
    """Returns the family's module. The arguments are the fields of `VisionLanguageModel`."""
    return _MODULES[type(config)](config, dtype, lora, remat, attention)
