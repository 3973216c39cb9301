"""LLaVA: image patches, projected into the decoder's embedding space.

Source: Liu et al. 2023 (arXiv 2310.03744). Layout and names are those of transformers'
LlavaForConditionalGeneration.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from inbol_jax.errors import InbolError
from inbol_jax.models.config import ModelConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.hf_config import fill_in_defaults, read_shared, read_vision, require
from inbol_jax.models.layers import ACTIVATIONS, ComputeOptions, Dense
from inbol_jax.models.vit import VisionTower
from inbol_jax.models.vlm import Batch, VisionLanguageModel
from inbol_jax.models.weights import add_rows, array, below, decoder, dense, layer_norm, tower


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaConfig(ModelConfig):
    """A LLaVA: vision tower, two-layer projector, decoder."""

    vision_feature_layers: tuple[int, ...]
    """Which hidden states of [embeddings, layer 1, ..., layer n] are concatenated and projected."""
    keep_first_token: bool
    """Whether the first feature is used, which is CLIP's class token (select strategy "full")."""
    projector_hidden_act: str
    projector_bias: bool

    @property
    def num_image_tokens(self) -> int:
        return self.vision.num_patches + self.vision.is_clip - (not self.keep_first_token)


def read_config(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> LlavaConfig:
    """Returns what config.json and generation_config.json say, or raises InbolError."""
    hf = fill_in_defaults(raw, "LlavaConfig")
    # Old checkpoints say so in the decoder's part, newer ones in that of the whole.
    tied = bool(hf.tie_word_embeddings or hf.text_config.tie_word_embeddings)
    return LlavaConfig(**read_parts(hf), **read_shared(raw, generation, hf, tied=tied))


def read_parts(hf: Any) -> dict[str, Any]:
    """Returns the fields of LLaVA, LLaVA-NeXT and LLaVA-OneVision besides `read_shared`."""
    require(
        hf,
        {
            "vision_feature_select_strategy": ("default", "full"),
            "projector_hidden_act": ACTIVATIONS,
        },
    )
    layer, depth = hf.vision_feature_layer, hf.vision_config.num_hidden_layers
    layers = tuple(layer) if isinstance(layer, list | tuple) else (layer,)
    # There are depth + 1 states: the embeddings, and one behind each layer. LLaVA takes -2, the
    # last but one.
    if not {*layers} <= {*range(-depth - 1, depth + 1)}:
        raise InbolError(f"vision_feature_layer = {layer}: the tower has {depth} layers")
    return {
        "vision": read_vision(hf),
        "vision_feature_layers": layers,
        "keep_first_token": hf.vision_feature_select_strategy == "full",
        "projector_hidden_act": hf.projector_hidden_act,
        "projector_bias": bool(hf.multimodal_projector_bias),
    }


add_rows(
    *tower("vision_tower.vision_model.", "vision_tower/"),
    *below(
        "vision_tower.vision_model.",
        "vision_tower/",
        array("embeddings.class_embedding", "embeddings/class_embedding", "norm"),
        *layer_norm("pre_layrnorm", "pre_layernorm"),  # the checkpoints' spelling
    ),
    *below(
        "multi_modal_projector.",
        "multi_modal_projector/",
        *dense("linear_1", "linear_1", "embed mlp"),
        *dense("linear_2", "linear_2", "mlp embed"),
    ),
    *decoder("language_model.model.", "language_model/", "language_model.lm_head.weight"),
)


class Projector(nn.Module):
    """Two layers from features to the decoder's embeddings, behind a norm if there is one."""

    size: int
    activation: str
    compute: ComputeOptions
    use_bias: bool = True
    norm_eps: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n p v"]) -> Float[Array, "n p {self.size}"]:
        if self.norm_eps is not None:
            x = nn.LayerNorm(self.norm_eps, dtype=self.compute.dtype, name="layer_norm")(x)
        x = Dense(self.size, self.compute, use_bias=self.use_bias, name="linear_1")(x)
        x = ACTIVATIONS[self.activation](x)
        return Dense(self.size, self.compute, use_bias=self.use_bias, name="linear_2")(x)


class Llava(VisionLanguageModel):
    """Vision tower, two-layer projector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = VisionTower(c.vision, c.vision_feature_layers, compute)
        self.multi_modal_projector = Projector(
            c.text.hidden_size, c.projector_hidden_act, compute, c.projector_bias
        )
        self.language_model = Decoder(c.text, compute)

    def tile_features(self, batch: Batch) -> Float[Array, "n p d"]:
        # 336 pixels in patches of 14 and the class token: [n, 1 + 576, v]
        features = self.vision_tower(self.normalised_pixels(batch))
        if not self.config.keep_first_token:
            features = features[:, 1:]  # without CLIP's class token
        return self.multi_modal_projector(features)


Model = Llava
