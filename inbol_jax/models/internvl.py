"""InternVL3 and 3.5: patches of image tiles, shuffled into a quarter as many features, projected.

Sources: Zhu et al. 2025 (arXiv 2504.10479); Wang et al. 2025 (arXiv 2508.18265). Layout and names
are those of transformers' InternVLForConditionalGeneration.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from inbol_jax.models.config import SquaresConfig, VisionConfig
from inbol_jax.models.decoder import Decoder
from inbol_jax.models.hf_config import fill_in_defaults, read_shared, read_vision, require
from inbol_jax.models.layers import ACTIVATIONS, ComputeOptions
from inbol_jax.models.llava import Projector
from inbol_jax.models.tiles import UNTILED, Grid
from inbol_jax.models.vit import VisionLayer, embed_patches, pixel_shuffle
from inbol_jax.models.vlm import Batch, VisionLanguageModel
from inbol_jax.models.weights import add_rows, array, below, dense, layer_norm, patches

PROJECTOR_EPS = 1e-5  # which no config of transformers changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVLConfig(SquaresConfig):
    """InternVL3 and 3.5: InternViT, pixel shuffle, norm and two-layer projector, decoder."""

    processor_class = "InternVLProcessor"

    projector_hidden_act: str

    def grid(self, processor: Any, width: int, height: int, *, alone: bool = True) -> Grid:
        images = processor.image_processor
        tiles = images.get_number_of_image_patches(height, width, processor.images_kwargs)
        # The text of these has no rows.
        return Grid(1, tiles - 1) if tiles > 1 else UNTILED


def read_config(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> InternVLConfig:
    """Returns what config.json and generation_config.json say, or raises InbolError."""
    hf = fill_in_defaults(raw, "InternVLConfig", ("internvl_vision",))
    vision = hf.vision_config
    require(
        hf,
        {
            "vision_feature_layer": (-1,),
            "vision_feature_select_strategy": ("default",),
            "downsample_ratio": (1.0, 0.5, 0.25),
            "projector_hidden_act": ACTIVATIONS,
            "vision_config.norm_type": ("layer_norm",),
            "vision_config.use_qk_norm": (False,),
        },
    )
    return InternVLConfig(
        vision=read_vision(
            hf,
            # Weights tell of other sides, and of options that add or drop some.
            image_size=vision.image_size[0],
            patch_size=vision.patch_size[0],
            qkv_bias=bool(vision.attention_bias),
            layer_scale=float(vision.layer_scale_init_value),
        ),
        # a ratio of 0.5 per side: squares of 2 x 2 patches
        scale_factor=int(1 / hf.downsample_ratio),
        projector_hidden_act=hf.projector_hidden_act,
        **read_shared(raw, generation, hf),
    )


# Projector and decoder besides are LLaVA's.
add_rows(
    *below(
        "vision_tower.",
        "vision_tower/",
        array("embeddings.cls_token", "cls_token", "norm norm norm"),
        array("embeddings.position_embeddings", "position_embeddings", "norm position norm"),
        *patches("embeddings.patch_embeddings.projection"),
    ),
    *below(
        "vision_tower.encoder.layer.{i}.",
        "vision_tower/layer_{i}/",
        *layer_norm("layernorm_before", "layer_norm1"),
        *layer_norm("layernorm_after", "layer_norm2"),
        *dense("attention.{m}_proj", "{m:[qkv]}_proj", "embed heads"),
        *dense("attention.projection_layer", "out_proj", "heads embed"),
        *dense("mlp.fc1", "fc1", "embed mlp"),
        *dense("mlp.fc2", "fc2", "mlp embed"),
        array("lambda_{n}", "lambda_{n}", "norm"),
    ),
    *layer_norm("multi_modal_projector.layer_norm", "multi_modal_projector/layer_norm"),
)


class InternViT(nn.Module):
    """The last hidden states of patches, without the class token's."""

    config: VisionConfig
    compute: ComputeOptions

    @nn.compact
    def __call__(self, pixel_values: Float[Array, "n 3 H W"]) -> Float[Array, "n s d"]:
        c, dtype, normal = self.config, self.compute.dtype, nn.initializers.normal(0.02)
        d, p, side = c.hidden_size, c.patch_size, c.side
        kernel_init = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        kernel = self.param("patch_embedding", kernel_init, (p, p, 3, d)).astype(dtype)
        x = embed_patches(pixel_values, kernel, side)
        x += self.param("patch_bias", nn.initializers.zeros, (d,)).astype(dtype)
        first = self.param("cls_token", normal, (1, 1, d)).astype(dtype)
        # [n, 1 + s, d]: the class token takes part in attention, and is dropped at the end.
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, d)), x], axis=1)
        x += self.param("position_embeddings", normal, (1, side * side + 1, d)).astype(dtype)
        for i in range(c.num_layers):
            x = VisionLayer(c, self.compute, name=f"layer_{i}")(x)
        return x[:, 1:]


class InternVL(VisionLanguageModel):
    """Vision tower, pixel shuffle, projector, decoder."""

    def setup(self) -> None:
        c, compute = self.config, self.compute
        self.vision_tower = InternViT(c.vision, compute)
        self.multi_modal_projector = Projector(
            c.text.hidden_size, c.projector_hidden_act, compute, norm_eps=PROJECTOR_EPS
        )
        self.language_model = Decoder(c.text, compute)

    def tile_features(self, batch: Batch) -> Float[Array, "n p d"]:
        features, c = self.vision_tower(self.normalised_pixels(batch)), self.config  # [n, s, v]
        # 448 pixels in patches of 14: [n, 1024, v] -> [n, 32, 32, v] -> [n, 256, 4 v]
        features = features.reshape(len(features), c.vision.side, c.vision.side, -1)
        return self.multi_modal_projector(pixel_shuffle(features, c.scale_factor))


Model = InternVL
