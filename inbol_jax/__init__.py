"""InBoL in JAX: teach a vision-language model to say "I don't know" (arXiv 2412.11196)."""

__version__ = "0.1.0"
