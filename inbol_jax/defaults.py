"""What several command lines have in common. Nothing here imports JAX: help must be fast."""

from pathlib import Path
from typing import Literal

# The checkpoint that ships with the package.
TINY = Path(__file__).parent / "world" / "assets" / "tiny-llava"

# "auto" is float32 for a float32 checkpoint and bfloat16 for any other.
Dtype = Literal["auto", "float32", "bfloat16"]
