"""The architecture of a model, as far as the Flax port knows it, and the options of its adapters:
plain frozen dataclasses.

Here is what families share. A family's own class stands in the family's file, with the function
that reads it from a checkpoint's config.json.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.models.tiles import UNTILED, Grid


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """CLIP, SigLIP or InternViT vision tower. `image_size` and `patch_size` are in pixels."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    hidden_act: str
    layer_norm_eps: float
    qkv_bias: bool = True
    layer_scale: float | None = None
    """What the learnt scales of residual branches start from; None if there are none."""

    @property
    def is_clip(self) -> bool:
        """CLIP has a class token and a norm before its layers, SigLIP a bias of its patches."""
        return self.model_type == "clip_vision_model"

    @property
    def side(self) -> int:
        """Patches per side of an image."""
        # 336 pixels in patches of 14: 24; what fills no whole patch is dropped
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.side**2  # 24 x 24 = 576


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Llama, Qwen2, Qwen3, Mistral or Gemma 3 decoder."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_act: str
    rms_norm_eps: float
    rope_theta: float
    rope_type: str
    rope_scaling: tuple[tuple[str, float], ...]
    """(name, value) of each number that `rope_type` needs, see `hf_config.ROPE_TYPES`."""
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    """Whether the queries and keys of each head are normalised, before their rotary positions."""
    windows: tuple[int | None, ...]
    """Per layer, how many positions a token sees, its own included; None for all before it."""
    max_positions: int
    """Longest sequence that the checkpoint was made for."""
    tie_word_embeddings: bool
    embedding_scale: float = 1.0
    """What token embeddings are multiplied by."""
    query_scale: float = 1.0
    """What queries are multiplied by, beside the root of `head_dim`."""
    unit_offset: bool = False
    """Whether norms multiply by one plus their weight, in float32."""
    sandwich_norms: bool = False
    """Whether the outputs of attention and feed-forward network are normalised, too."""
    local_rope_theta: float | None = None
    """Base of the unscaled rotary positions of layers with a window; None: as in other layers."""
    bidirectional_images: bool = False
    """Whether the tokens of an image see each other, those behind them included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every family has. A family's own class adds its options and says what its images are."""

    processor_class: ClassVar[str] = "AutoProcessor"
    """transformers' class that loads the checkpoint's processor without torch."""
    tiled: ClassVar[bool] = False
    """Whether the processor writes text for images, which it may cut into several tiles."""
    cuts_several: ClassVar[bool] = True
    """Whether the processor also cuts an image that is not the only one of its question."""
    decoder: ClassVar[str] = "language_model"
    """Name of the decoder in parameter paths."""

    model_type: str
    """transformers' name of the family, which `families` finds the family's file by."""
    vision: VisionConfig
    text: TextConfig
    image_token_id: int
    """Placeholder that image features replace, `num_image_tokens` per tile."""
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    """Any of these ends a response."""
    stored_dtype: str
    """Dtype of the weights as config.json has it: float32, float16 or bfloat16."""
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    """(token or pair of tokens, what generation adds to the logit of the last one, if the other
    one has come before), from generation_config.json; training and P(True) do not use it."""
    refuse_below: tuple[float, str] | None = None
    """A log-probability in nats, and the refusal that replaces a greedy answer that is less likely,
    from generation_config.json."""

    @property
    def num_image_tokens(self) -> int:
        """Image tokens per tile; an image that is not tiled is one tile."""
        raise NotImplementedError

    def grid(self, processor: Any, width: int, height: int, *, alone: bool = True) -> Grid:
        """Returns how the processor cuts an image of so many pixels, by default a question's only
        one. Raises InbolError or ValueError if it takes no image of these sides.
        """
        return UNTILED

    def image_text(self, processor: Any, grid: Grid, token: str) -> str:
        """What the processor writes for an image, with one image token for each run of them."""
        return token

    def runs(self, grid: Grid) -> list[int]:
        """How many image tokens each run has."""
        return [self.num_image_tokens if grid.tokens is None else grid.tokens]

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of so many tiles, as `models.vlm` names them."""
        size, channels = self.vision.image_size, ((tiles, 3), "float32")
        # Pixels travel as bytes, a quarter of float32; the device normalises them.
        pixels = ((tiles, 3, size, size), "uint8")
        return {"pixel_values": pixels, "pixel_mean": channels, "pixel_scale": channels}

    def prepared(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what a processor makes of a picture as the model takes it."""
        return batch

    def counts(self, picture: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """Tiles and image tokens of an image in the arrays of its processor."""
        tiles = len(picture["pixel_values"])
        return tiles, tiles * self.num_image_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquaresConfig(ModelConfig):
    """A family whose image tokens are squares of patches."""

    tiled = True

    scale_factor: int
    """A square of this many patches per side becomes one feature."""

    @property
    def num_image_tokens(self) -> int:
        return (self.vision.side // self.scale_factor) ** 2

    def image_text(self, processor: Any, grid: Grid, token: str) -> str:
        # Each family's processor reads one of these names.
        cut = {"rows": [[grid.rows]], "cols": [[grid.columns]]}
        cut |= {"num_patches": [grid.tiles], "num_crops": [grid.tiles - 1]}
        names = ("image_seq_len", "image_seq_length")
        per_tile = next(getattr(processor, name) for name in names if hasattr(processor, name))
        return processor.replace_image_token(cut, 0).replace(token * per_tile, token)

    def runs(self, grid: Grid) -> list[int]:
        return [self.num_image_tokens] * grid.tiles


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Options of the adapters.

    Modules are given by names or regular expressions, which must match the whole Hugging Face name
    of a module, or all that follows one of its dots.
    """

    rank: int = 128
    """Rank of the update."""
    alpha: float = 256.0
    """Scale of the update times the rank (with rslora: times the square root of the rank)."""
    targets: tuple[str, ...] = (r"(language|text)_model\..*_proj",)
    """Modules that get an adapter; by default every dense layer of the decoder."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), as in Kalajdzievski 2023 (arXiv 2312.03732)."""
    trainable: tuple[str, ...] = ()
    """Modules that are trained whole beside the adapters, with all that is below them."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets:
            raise InbolError(f"adapters need a rank of at least 1 and targets, not {self}")
        for pattern in (*self.targets, *self.trainable):
            try:
                re.compile(pattern)
            except re.error as error:
                raise InbolError(
                    f"{pattern!r} is neither a module's name nor a regular expression ({error})"
                ) from error

    def scale(self, rank: int) -> float:
        """Returns the factor of the product `a @ b` of an adapter of that rank."""
        return self.alpha / (rank**0.5 if self.rslora else rank)
