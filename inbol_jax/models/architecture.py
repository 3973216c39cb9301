"""The architecture of a model, as far as the Flax port knows it: plain frozen dataclasses.

`models.config` reads them from a checkpoint's config.json.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar


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
    pooling_head: bool
    """Whether there are weights of SigLIP's pooling head, which LLaVA keeps but does not use."""
    qkv_bias: bool = True
    qk_norm: bool = False
    """Whether queries and keys are normalised, all heads together."""
    rms_norm: bool = False
    """Whether norms are RMSNorm, and not LayerNorm."""
    layer_scale: float | None = None
    """What the learnt scales of residual branches start from; None if there are none."""

    @property
    def is_clip(self) -> bool:
        """CLIP has a class token and a norm before its layers, SigLIP a bias of its patches."""
        return self.model_type == "clip_vision_model"

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


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
    """(name, value) of each number that `rope_type` needs, see `config.ROPE_TYPES`."""
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
    """Whether the processor writes text around images, which it may cut into several tiles."""
    parts: ClassVar[tuple[str, str, str]]
    """Names of the vision tower, of what follows it, and of the decoder in parameter paths."""

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

    @property
    def num_image_tokens(self) -> int:
        """Image tokens per tile; an image that is not tiled is one tile."""
        raise NotImplementedError

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of so many tiles, as `models.vlm` names them."""
        size, channels = self.vision.image_size, ((tiles, 3), "float32")
        pixels = ((tiles, 3, size, size), "uint8")
        return {"pixel_values": pixels, "pixel_mean": channels, "pixel_scale": channels}

    def count_tiles(self, ids: Sequence[int]) -> int:
        """The number of tiles whose image tokens are among the ids."""
        return sum(token == self.image_token_id for token in ids) // self.num_image_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaConfig(ModelConfig):
    """A LLaVA: vision tower, two-layer projector, decoder."""

    parts = ("vision_tower", "multi_modal_projector", "language_model")

    vision_feature_layers: tuple[int, ...]
    """Which hidden states of [embeddings, layer 1, ..., layer n] are concatenated and projected."""
    keep_first_token: bool
    """Whether the first feature is used, which is CLIP's class token (select strategy "full")."""
    projector_hidden_act: str
    projector_bias: bool

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches + self.vision.is_clip - (not self.keep_first_token)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Idefics3Config(ModelConfig):
    """Idefics3, SmolVLM and SmolVLM2: SigLIP-like tower, pixel shuffle, one projection, decoder."""

    # SmolVLM's own class also needs torchvision and num2words, for videos; images and texts are
    # the same.
    processor_class = "Idefics3Processor"
    tiled = True
    parts = ("vision_model", "connector", "text_model")

    scale_factor: int
    """Pixel shuffle makes a square of this many patches per side one feature."""

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches // self.scale_factor**2

    def image_shapes(self, tiles: int) -> dict[str, tuple[tuple[int, ...], str]]:
        size = self.vision.image_size
        mask = {"pixel_attention_mask": ((tiles, size, size), "bool")}
        return super().image_shapes(tiles) | mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVLConfig(ModelConfig):
    """InternVL3 and 3.5: InternViT, pixel shuffle, norm and two-layer projector, decoder."""

    processor_class = "InternVLProcessor"
    tiled = True
    parts = ("vision_tower", "multi_modal_projector", "language_model")

    scale_factor: int
    """Pixel shuffle makes a square of this many patches per side one feature."""
    projector_hidden_act: str

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches // self.scale_factor**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gemma3Config(ModelConfig):
    """Gemma 3: SigLIP, average pooling, norm and one projection, decoder."""

    processor_class = "Gemma3Processor"
    tiled = True
    parts = ("vision_tower", "multi_modal_projector", "language_model")

    pooling: int
    """The mean of a square of this many patches per side is one feature."""

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches // self.pooling**2
