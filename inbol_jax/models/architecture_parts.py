"""Vision towers and decoders, as far as the Flax port knows them, which families share."""

import dataclasses


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
        # 336 pixels in patches of 14: 24 x 24 = 576; what fills no whole patch is dropped
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class NativeVisionConfig:
    """Qwen2.5-VL's or Qwen3-VL's vision tower, which takes images of any size. `patch_size` is in
    pixels.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    temporal_patch_size: int
    """Frames per patch. Those of an image are alike."""
    merge_size: int
    """A square of this many patches per side becomes one image token."""
    hidden_act: str
    rope_theta: float
    num_positions: int | None = None
    """Of the learnt ones, a square that is interpolated for each image; None if there are none."""
    deepstack_layers: tuple[int, ...] = ()
    """After which layers features are taken that are added behind the decoder's first layers."""
    window: int | None = None
    """Image tokens per side of the squares within which patches see each other; None: images."""
    full_layers: tuple[int, ...] = ()
    """Layers without such windows."""
    rms_norm: bool = False
    """Whether norms are RMSNorm, and not LayerNorm."""
    gated: bool = False
    """Whether feed-forward networks have a gate."""
    patch_bias: bool = True

    @property
    def square(self) -> int:
        """Patches per image token."""
        # 2 x 2 patches, merged into one token
        return self.merge_size**2

    @property
    def patch_dim(self) -> int:
        """Numbers per patch."""
        # channels * frames * height * width: 3 * 2 * 16 * 16 = 1536
        return 3 * self.temporal_patch_size * self.patch_size**2


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
    """(name, value) of each number that `rope_type` needs, see `config_parts.ROPE_TYPES`."""
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
