"""The families of models by name: a family is one file, imported when its checkpoint is loaded.

The file has `read_config` (transformers' config.json to the family's `ModelConfig`) and `Model`
(its `VisionLanguageModel`), and adds the family's rows to the weight table. What else a family is,
see docs/adding-an-architecture.md.
"""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp

from inbol_jax.artifacts import read_json
from inbol_jax.errors import InbolError
from inbol_jax.models.config import LoraConfig, ModelConfig
from inbol_jax.models.hf_config import read_generation
from inbol_jax.models.vlm import VisionLanguageModel

# model_type in config.json -> the family's file
FAMILIES = {
    "llava": "llava",
    "llava_next": "llava_next",
    "llava_onevision": "llava_next",
    "idefics3": "idefics3",
    "smolvlm": "idefics3",
    "internvl": "internvl",
    "gemma3": "gemma3",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
}


def family(model_type: str) -> ModuleType:
    """Returns the module of a family. Raises InbolError for one that is not ported."""
    if model_type not in FAMILIES:
        raise InbolError(
            f"model_type = {model_type!r} is not supported (supported: {', '.join(FAMILIES)})"
        )
    return importlib.import_module(f"inbol_jax.models.{FAMILIES[model_type]}")


def load_config(path: Path) -> ModelConfig:
    """Reads config.json of a checkpoint folder, and generation_config.json for token ids and bias.

    Raises:
      InbolError: if the folder or a key is missing, if the port does not support an option, or if
        a value is of the wrong type or size.
    """
    file = path / "config.json"
    if not file.is_file():
        raise InbolError(f"{path} is not a checkpoint folder: config.json is missing")
    raw, generation = read_json(file), read_generation(path)
    try:
        return family(raw["model_type"]).read_config(raw, generation)
    except KeyError as error:
        raise InbolError(f"{file}: key {error} is missing") from error
    except InbolError as error:
        raise InbolError(f"{file}: {error}") from error
    except Exception as error:  # transformers checks a config in ways of its own
        reason = " ".join(str(error).split())
        raise InbolError(f"{file}: a value is of the wrong type or size ({reason})") from error


def make_model(
    config: ModelConfig,
    dtype: Any = jnp.float32,
    lora: LoraConfig | None = None,
    remat: str = "none",
    attention: str = "xla",
) -> VisionLanguageModel:
    """Returns the family's module. The arguments are the fields of `VisionLanguageModel`."""
    return family(config.model_type).Model(config, dtype, lora, remat, attention)
