"""Flax ports of the vision-language models, with Hugging Face checkpoints and PEFT adapters in and out."""

from inbol_jax.models.loading import Loaded, load_pretrained, save_pretrained
from inbol_jax.models.lora import LoraConfig

__all__ = ["Loaded", "LoraConfig", "load_pretrained", "save_pretrained"]
