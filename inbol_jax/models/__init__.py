"""Flax ports of the vision-language models, with Hugging Face checkpoints in and out."""

from inbol_jax.models.loading import Loaded, load_pretrained, save_pretrained

__all__ = ["Loaded", "load_pretrained", "save_pretrained"]
