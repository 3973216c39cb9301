"""LLaVA: image patches, projected into the decoder's embedding space. Source: Liu et al. 2023 (arXiv 2310.03744).

A batch is a dict of arrays, as the checkpoint's own processor makes it, plus what packing needs:
  input_ids       i32[b, t]           `image_token_id` where an image's features go
  pixel_values    f32[n, 3, H, W]     the images of all rows, in the order of their tokens; left out when there is none; or
                  f32[b, m, 3, H, W]  up to m images of each row, which then stays on the row's own device; unused ones are anything
  attention_mask  i32[b, t]           0 for padding, on either side
  segments        i32[b, t]           optional, for packed rows: 0 = prefix that all branches see, 1, 2, ... = branches that do not see
                                      each other, -1 = padding; it replaces attention_mask
  positions       i32[b, t]           needed with segments: those of each branch go on where the prefix ends
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from inbol_jax.models.config import LlavaConfig
from inbol_jax.models.decoder import KV, Decoder, SuffixKV
from inbol_jax.models.layers import ACTIVATIONS, Compute, Dense
from inbol_jax.models.lora import LoraConfig
from inbol_jax.models.vit import VisionTower

Batch = Mapping[str, jax.Array]


def packed_mask(segments: Int[Array, "b t"]) -> Bool[Array, "b t t"]:
    """Causal attention in which a token sees the prefix (segment 0) and its own branch."""
    t = segments.shape[1]
    causal = jnp.tril(jnp.ones((t, t), bool))
    key, query = segments[:, None, :], segments[:, :, None]
    return causal & ((key == 0) | (key == query)) & (key >= 0)


class Projector(nn.Module):
    """Two layers from the tower's features to the decoder's embeddings."""

    config: LlavaConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Float[Array, "n p v"]) -> Float[Array, "n p d"]:
        c, d = self.config, self.config.text.hidden_size
        x = ACTIVATIONS[c.projector_hidden_act](
            Dense(d, self.compute, use_bias=c.projector_bias, name="linear_1")(x)
        )
        return Dense(d, self.compute, use_bias=c.projector_bias, name="linear_2")(x)


class Llava(nn.Module):
    """The model; `apply` with its methods is what the rest of the project calls.

    Attributes:
      lora: options of the adapters, where the variables hold a collection `lora`; without that collection it is the base model.
      remat: which activations of decoder layers training computes again instead of keeping them, see `layers.REMAT`.
    """

    config: LlavaConfig
    dtype: jnp.dtype = jnp.float32
    lora: LoraConfig | None = None
    remat: str = "none"

    def setup(self) -> None:
        c, compute = self.config, Compute(self.dtype, self.lora, self.remat)
        self.vision_tower = VisionTower(c.vision, c.vision_feature_layers, compute)
        self.multi_modal_projector = Projector(c, compute)
        self.language_model = Decoder(c.text, compute)

    def __call__(self, batch: Batch) -> Float[Array, "b t V"]:
        """Logits in float32. For training use `hidden` and `head`, which do not hold all of them at once."""
        return jnp.einsum(
            "btd,dv->btv",
            self.hidden(batch),
            self.head().astype(self.dtype),
            preferred_element_type=jnp.float32,
        )

    def hidden(self, batch: Batch) -> Float[Array, "b t d"]:
        """Final hidden states, after the last norm."""
        return self.prefill(batch)[0]

    def prefill(self, batch: Batch) -> tuple[Float[Array, "b t d"], list[KV]]:
        """Final hidden states and every layer's keys and values."""
        segments = (
            batch["segments"]
            if "segments" in batch
            else batch["attention_mask"].astype(jnp.int32) - 1
        )
        positions = (
            batch["positions"]
            if "positions" in batch
            else jnp.maximum(jnp.cumsum(batch["attention_mask"], axis=1) - 1, 0)
        )
        features = self.encode_images(batch["pixel_values"]) if "pixel_values" in batch else None
        return self.language_model(
            self.embed(batch["input_ids"], features), positions, packed_mask(segments)
        )

    def decode_step(
        self,
        tokens: Int[Array, "b n"],
        positions: Int[Array, "b n"],
        prefix: list[KV],
        prefix_mask,
        suffix: list[SuffixKV],
        step,
    ):
        return self.language_model.decode_step(tokens, positions, prefix, prefix_mask, suffix, step)

    def encode_images(self, pixel_values: Float[Array, "*n 3 H W"]) -> Float[Array, "*n p d"]:
        """Features in the decoder's embedding space, one vector an image token."""
        images = pixel_values.reshape(-1, *pixel_values.shape[-3:])
        features = self.vision_tower(images)
        if not self.config.keep_first_token:
            features = features[:, 1:]
        return self.multi_modal_projector(features).reshape(
            *pixel_values.shape[:-3], self.config.num_image_tokens, -1
        )

    def embed(
        self, input_ids: Int[Array, "b t"], features: Float[Array, "*n p d"] | None
    ) -> Float[Array, "b t d"]:
        """Token embeddings with the image features, in order, in the places of the image tokens."""
        is_image = input_ids == self.config.image_token_id
        text = self.language_model.embed_tokens(jnp.where(is_image, 0, input_ids))
        if features is None or not features.size:
            return text
        if features.ndim == 4:  # each row's own
            rows = features.reshape(features.shape[0], -1, features.shape[-1])
            index = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, rows.shape[1] - 1)
            own = jnp.take_along_axis(rows, index[..., None], axis=1)
        else:
            rows = features.reshape(-1, features.shape[-1])
            index = jnp.cumsum(is_image.reshape(-1)).reshape(is_image.shape) - 1
            own = rows[jnp.clip(index, 0, rows.shape[0] - 1)]
        return jnp.where(is_image[..., None], own, text)

    def head(self) -> Float[Array, "d V"]:
        return self.language_model.head()
