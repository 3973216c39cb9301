"""Defaults that several command lines share. Nothing here imports JAX: help must be fast."""

from pathlib import Path
from typing import Literal

TINY = Path(__file__).parent / "world" / "assets" / "tiny-llava"
"""The checkpoint that ships with the package."""

Dtype = Literal["auto", "float32", "bfloat16"]
"""Dtype of a model. "auto" is float32 for a float32 checkpoint and bfloat16 for any other."""
