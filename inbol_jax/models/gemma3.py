"""Gemma 3: patches, averaged over squares, normalised and projected into the decoder's embeddings.

Source: Gemma Team 2025 (arXiv 2503.19786). Layout and names are those of transformers'
Gemma3ForConditionalGeneration, with the attention that a processor's `token_type_ids` ask for: the
tokens of an image see each other.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from inbol_jax.errors import InbolError
from inbol_jax.models.config import SquaresConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.hf_config import fill_in_defaults, read_shared, read_vision, require
from inbol_jax.models.layers import ComputeOptions, RMSNorm
from inbol_jax.models.vit import VisionTower
from inbol_jax.models.vlm import Batch, VisionLanguageModel
from inbol_jax.models.weights import add_rows, array, below, decoder, tower


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gemma3Config(SquaresConfig):
    """Gemma 3: SigLIP, average pooling, norm and one projection, decoder."""

    processor_class = "Gemma3Processor"


def read_config(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> Gemma3Config:
    """Returns what config.json and generation_config.json say, or raises InbolError."""
    hf = fill_in_defaults(raw, "Gemma3Config", ("siglip_vision_model",), ("gemma3_text",))
    require(
        hf,
        {
            "text_config.use_bidirectional_attention": (False, None),
            "text_config.final_logit_softcapping": (None,),
            "text_config.attn_logit_softcapping": (None,),
        },
    )
    text, vision, tokens = hf.text_config, read_vision(hf), hf.mm_tokens_per_image
    # 896 / 14 = 64 patches per side and 256 = 16 x 16 tokens: squares of 64 / 16 = 4 patches.
    across = math.isqrt(tokens)
    if across**2 != tokens or vision.side % across:
        raise InbolError(
            f"mm_tokens_per_image = {tokens} is no square that divides {vision.side} x "
            f"{vision.side} patches"
        )
    local = text.rope_parameters["sliding_attention"]
    if local["rope_type"] != "default":
        raise InbolError("text_config.rope_type of sliding_attention is not 'default'")
    return Gemma3Config(
        vision=vision,
        scale_factor=vision.side // across,
        **read_shared(
            raw,
            generation,
            hf,
            rope=text.rope_parameters["full_attention"],
            hidden_act=text.hidden_activation,
            qk_norm=True,
            embedding_scale=text.hidden_size**0.5,
            # attention divides by sqrt(head_dim); Gemma 3 wants sqrt(query_pre_attn_scalar)
            query_scale=(text.head_dim / text.query_pre_attn_scalar) ** 0.5,
            unit_offset=True,
            sandwich_norms=True,
            local_rope_theta=float(local["rope_theta"]),
            bidirectional_images=True,
        ),
    )


add_rows(
    *tower("vision_tower.vision_model.", "vision_tower/"),
    *below(
        "multi_modal_projector.",
        "multi_modal_projector/",
        array("mm_input_projection_weight", "mm_input_projection_weight", "embed mlp"),
        array("mm_soft_emb_norm.weight", "mm_soft_emb_norm/scale", "norm"),
    ),
    *decoder("language_model.model.", "language_model/", "language_model.lm_head.weight"),
)


class Gemma3Projector(nn.Module):
    """Average pooling, a norm, and one projection."""

    config: Gemma3Config
    compute: ComputeOptions

    @nn.compact
    def __call__(self, x: Float[Array, "n y x v"]) -> Float[Array, "n p d"]:
        c, dtype, v = self.config, self.compute.dtype, x.shape[-1]
        # 896 pixels in patches of 14, squares of 4: [n, 64, 64, v] -> [n, 16 * 16, v]
        square = (c.scale_factor,) * 2
        x = nn.avg_pool(x, square, strides=square).reshape(len(x), -1, v)
        x = RMSNorm(c.vision.layer_norm_eps, dtype, True, name="mm_soft_emb_norm")(x)
        init = nn.initializers.lecun_normal()
        # [v, d]: the checkpoint has it as inputs x outputs, unlike torch's dense layers
        kernel = self.param("mm_input_projection_weight", init, (v, c.text.hidden_size))
        return x @ kernel.astype(dtype)


class Gemma3(VisionLanguageModel):
    """Vision tower, projector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = VisionTower(c.vision, None, compute)
        self.multi_modal_projector = Gemma3Projector(c, compute)
        self.language_model = Decoder(c.text, compute)

    def tile_features(self, batch: Batch) -> Float[Array, "n p d"]:
        features, vision = self.vision_tower(self.normalised_pixels(batch)), self.config.vision
        # Patches lie row by row: [n, side * side, v] -> [n, side, side, v].
        features = features.reshape(len(features), vision.side, vision.side, -1)
        return self.multi_modal_projector(features)


Model = Gemma3
